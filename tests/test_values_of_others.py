"""The values that other programs would have trained with, if one key alone does not decide them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from lib_lora.cli_options import add_options, config_from
from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.config.rules import config_notes, config_problems
from lib_lora.errors import ConfigError
from lib_lora.kohya.files import source_of
from tests.test_kohya_import import gui, toml, verdict, why
from tests.test_settings_of_others import refused

LYCORIS = 'network_module = "lycoris.kohya"\nnetwork_dim = 16\nnetwork_alpha = 8\n'


@pytest.mark.parametrize(
    ("arguments", "rank", "alpha"),
    [
        (["algo=loha", "conv_dim=4"], 4, 8),
        (["algo=loha", "conv_alpha=2"], 16, 2),
        (["algo=locon"], 16, 8),
        (["algo=lokr", "conv_dim=0", "conv_alpha=0"], 16, 8),
        (["algo=loha", "conv_dim=4", "conv_alpha=1"], 4, 1),
        (["algo=loha", "conv_dim=4", "preset=attn-mlp"], 0, 1),
    ],
    ids=str,
)
def test_lycoris_takes_the_ordinary_rank_and_alpha_for_convolutions(arguments: list[str], rank: int, alpha: float) -> None:
    """`create_network` of LyCORIS: `conv_dim or network_dim`, `conv_alpha or network_alpha`."""
    adapter = toml(f"{LYCORIS}network_args = {arguments}").config().adapter
    assert (adapter.conv_dim, adapter.conv_alpha) == (rank, alpha)


def test_kohyas_own_lora_takes_no_rank_and_an_alpha_of_1_for_convolutions() -> None:
    text = 'network_module = "networks.lora"\nnetwork_dim = 16\nnetwork_alpha = 8\nnetwork_args = ["conv_dim=4"]\n'
    assert (toml(text).config().adapter.conv_dim, toml(text).config().adapter.conv_alpha) == (4, 1)
    assert toml(text.replace("=4", "=0")).config().adapter.conv_dim == 0


def test_whole_matrices_and_a_rank_of_0_for_convolutions_are_whole() -> None:
    found = gui(LoRA_type="LyCORIS/LoKr", network_dim=100000, network_alpha=1, conv_dim=0, factor=8)
    assert refused(found) == [] and found.flat["full_matrix"] is True and found.config().adapter.conv_dim > 0


def test_network_args_of_the_free_text_replace_those_that_the_form_makes() -> None:
    fields = {"conv_dim": 2, "conv_alpha": 1, "module_dropout": 0.1, "train_norm": True, "network_dropout": 0.2}
    found = gui(LoRA_type="LyCORIS/LoCon", network_dim=8, network_alpha=4, **fields,
                additional_parameters="--network_args conv_dim=8 algo=loha --lowram")  # fmt: skip
    wanted = {"adapter_type": "loha", "conv_dim": 8, "conv_alpha": 4, "module_dropout": 0, "network_dropout": 0.2}
    assert refused(found) == [] and {name: found.config().to_flat()[name] for name in wanted} == wanted
    assert {verdict(found, key) for key in list(fields)[:4]} == {"ignored"} and "replaces" in why(found, "train_norm")
    blocks = gui(LoRA_type="Standard", down_lr_weight="0,1", additional_parameters='--network_args "rank_dropout=0.1"')
    assert refused(blocks) == [] and "down_lr_weight" not in blocks.flat and blocks.flat["rank_dropout"] == 0.1


@pytest.mark.parametrize("kind", ["Standard", "LyCORIS/LoCon"])
def test_an_alpha_of_0_that_the_form_leaves_out_is_told(kind: str) -> None:
    found = gui(LoRA_type=kind, network_dim=8, network_alpha=0)
    assert found.flat["alpha"] == 8 and "drops a 0" in why(found, "network_alpha")
    assert "leaves" not in why(toml("network_dim = 8\nnetwork_alpha = 0\n"), "network_alpha")


def test_an_alpha_of_0_for_convolutions_is_told_for_kohyas_own_types_alone() -> None:
    own, lycoris = (gui(LoRA_type=kind, network_alpha=4, conv_dim=8, conv_alpha=0) for kind in ("Kohya LoCon", "LyCORIS/LoHa"))
    assert own.flat["conv_alpha"] == 0 and "drops a 0" in why(own, "conv_alpha")
    assert lycoris.flat["conv_alpha"] == 4 and "leaves" not in why(lycoris, "conv_alpha")


def test_an_adaptive_scale_without_an_offset_has_no_effect() -> None:
    """sd-scripts makes no offset then."""
    config = build_config({"name": "x", "trigger": "zxq", "data": ["photos"], "adaptive_noise_scale": 0.1})
    assert config_problems(config) == []
    assert [note for note in config_notes(config) if "adaptive_noise_scale" in note and "no effect" in note]


@pytest.mark.parametrize("size", ['"768,768"', "[768, 768]"])
def test_a_size_that_kohya_spells_outweighs_one_name_of_ours(size: str) -> None:
    text = f"resolution = {size}\nenable_bucket = true\nepochs = 3\n"
    assert (toml(text).flat["resolution"], refused(toml(text))) == (768, ["epochs"])
    assert source_of({"resolution": 768, "enable_bucket": True, "epochs": 3}, toml=False).form == "ours"


@pytest.mark.parametrize(
    "key", ["sample_every_n_epochs", "save_every_n_steps", "save_last_n_epochs", "caption_dropout_every_n_epochs"]
)
def test_more_epochs_and_steps_than_any_run_has_mean_never(key: str) -> None:
    """Notebooks write 999999 where no sample is wanted."""
    found = toml(f"{LYCORIS}{key} = 99999999\n")
    assert refused(found) == [] and found.flat[key] == 0 and "more than any run has" in why(found, key)
    assert toml(f"{LYCORIS}{key} = 7\n").flat[key] == 7


def given(settings: dict[str, Any], folder: Path, *arguments: str) -> TrainConfig:
    path = folder / "c.json"
    path.write_text(json.dumps(settings))
    parser = argparse.ArgumentParser()
    add_options(parser)
    return config_from(parser.parse_args(["--config", str(path), *arguments]))


LOCON: dict[str, Any] = {"LoRA_type": "LyCORIS/LoCon", "network_dim": 4}
SCRIPTS: dict[str, Any] = {"network_module": "networks.lora", "network_dim": 4}


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({**LOCON, "train_norm": True}, ["--network_args", "train_norm=False"]),
        ({**LOCON, "LyCORIS_preset": "unet-only"}, ["--train-layers", "attention"]),
        ({**SCRIPTS, "max_train_epochs": -3}, ["--steps", "3"]),
        ({**SCRIPTS, "max_train_epochs": "many"}, ["--steps", "3"]),
        ({**SCRIPTS, "enable_bucket": True, "min_bucket_reso": 7}, ["--enable-bucket", "false"]),
        ({**SCRIPTS, "loss_type": "huber", "huber_c": -5}, ["--loss-type", "l2"]),
    ],
    ids=str,
)
def test_an_argument_wins_over_what_it_leaves_without_effect(
    settings: dict[str, Any], arguments: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        given(settings, tmp_path)
    given(settings, tmp_path, *arguments)


@pytest.mark.parametrize("rate", ["inf", "nan", "-1", "1e30"])
def test_a_rate_that_is_none_is_refused_where_it_stands_in(rate: str) -> None:
    found = toml(f"{LYCORIS}learning_rate = {rate}\nunet_lr = 1e-4\n")
    assert refused(found) == ["learning_rate"] and "from 0 to 100" in why(found, "learning_rate")
    assert refused(toml(f"{LYCORIS}learning_rate = {rate}\nunet_lr = 1e-4\ntext_encoder_lr = 0\n")) == []
