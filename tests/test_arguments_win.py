"""Arguments override a settings file before the file is judged, under our names and kohya's."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from lib_lora.cli_options import add_options, config_from
from lib_lora.config.groups import TrainConfig
from lib_lora.config.options import Option
from lib_lora.errors import ConfigError
from lib_lora.kohya.table import options_by_kohya

PARSER = argparse.ArgumentParser(allow_abbrev=False)
add_options(PARSER)
TOML = 'network_module = "networks.lora"\nenable_bucket = true\n'
# a line that is refused by itself, what is typed against it, and what it then is
WON = [
    ("max_token_length = 20", ("--max-token-length", "150"), ("text", "max_token_length", "150")),
    ("max_token_length = 300", ("--max_token_length", "225"), ("text", "max_token_length", "225")),
    ("bucket_reso_steps = 1", ("--bucket-reso-steps", "32"), ("data", "bucket_reso_steps", 32)),
    ("network_dim = 5000", ("--network-dim", "8"), ("adapter", "rank", 8)),
    ("network_dim = 5000", ("--rank", "8"), ("adapter", "rank", 8)),
    ('network_alpha = "much"', ("--alpha", "8"), ("adapter", "alpha", 8.0)),
    ('mixed_precision = "fp8"', ("--mixed-precision", "fp16"), ("precision", "mixed_precision", "fp16")),
    ('save_model_as = "ckpt"', ("--save_model_as", "safetensors"), None),
    ('save_model_as = "ckpt"', ("--save-model-as", "safetensors"), None),
    ("deepspeed = true", ("--deepspeed", "false"), None),
    ('resolution = "wide"', ("--resolution", "640"), ("data", "resolution", 640)),
    ('resolution = "wide"', ("--resolution", "512,640"), ("data", "resolution_height", 640)),
    ("train_batch_size = 0", ("--batch-size", "3"), ("data", "batch_size", 3)),
    ("train_batch_size = 0", ("--train_batch_size", "3"), ("data", "batch_size", 3)),
    ('learning_rate = "x"', ("--learning_rate", "0.001"), ("optimizer", "unet_lr", 0.001)),
    ('learning_rate = "x"', ("--unet-lr", "0.001", "--text-encoder-lr", "0"), ("optimizer", "unet_lr", 0.001)),
    ('max_train_epochs = "many"', ("--max_train_epochs", "2"), ("run", "epochs", 2)),
    ('lr_scheduler = "odd"', ("--lr_scheduler", "cosine"), ("optimizer", "lr_scheduler", "cosine")),
    ('network_args = ["conv_dim=9999"]', ("--network_args", "conv_dim=4"), ("adapter", "conv_dim", 4)),
    ('network_args = ["conv_dim=9999"]', ("--conv-dim", "4"), ("adapter", "conv_dim", 4)),
    ('network_args = ["train_norm=True"]', ("--network_args", "train_norm=False"), None),
]


# every text is a value of the others, or they stand inside another key, or are looked at above
HAVE_WRONG_VALUES = {
    opt.name: opt
    for name, opt in options_by_kohya().items()
    if name == opt.declaration.kohya and "." not in name and name != "resolution"
    if opt.choices is not None or opt.type in (bool, int, float)
}


def parsed(*argv: str) -> TrainConfig:
    return config_from(PARSER.parse_args(argv))


def written(folder: Path, text: str, name: str = "c.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize(("line", "typed", "wanted"), WON)
def test_an_argument_wins_over_what_would_be_refused(
    line: str, typed: tuple[str, ...], wanted: tuple[str, str, Any] | None, tmp_path: Path
) -> None:
    line = line.replace("network_args = [", 'network_args = ["algo=locon", ') if "train_norm" in line else line
    text = TOML.replace("networks.lora", "lycoris.kohya") if "train_norm" in line else TOML
    name = line.partition(" ")[0]
    with pytest.raises(ConfigError, match=name):
        parsed("--config", written(tmp_path, f"{text}{line}\n"))
    for number, variant in enumerate((f"{text}{line}\n", f"{text}[more]\n{line}\n")):
        config = parsed("--config", written(tmp_path, variant, f"{number}.toml"), *typed)
        if wanted:
            group, option, value = wanted
            assert getattr(getattr(config, group), option) == value


@pytest.mark.parametrize("typed", [("--bucket-reso-steps", "64"), ("--bucket_reso_steps", "64")])
def test_an_argument_wins_over_datasets_and_forms_and_our_own_files(typed: tuple[str, ...], tmp_path: Path) -> None:
    dataset = "[general]\nenable_bucket = true\nbucket_reso_steps = 1\n[[datasets]]\nbucket_reso_steps = 2\n"
    form = {"LoRA_type": "Standard", "enable_bucket": True, "bucket_reso_steps": 1}
    more = {"LoRA_type": "Standard", "enable_bucket": True, "additional_parameters": "--bucket_reso_steps 1"}
    ours = {"rank": 4, "trigger": "x", "bucket_reso_steps": 1}
    for name, text in (
        ("d.toml", dataset),
        ("f.json", json.dumps(form)),
        ("m.json", json.dumps(more)),
        ("o.json", json.dumps(ours)),
    ):
        path = written(tmp_path, text, name)
        with pytest.raises(ConfigError):
            parsed("--config", path)
        assert parsed("--config", path, *typed).data.bucket_reso_steps == 64


def test_the_type_of_the_file_can_be_chosen_anew(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"LoRA_type": "LyCORIS/BOFT", "network_dim": 8}), "c.json")
    assert parsed("--config", path, "--adapter-type", "lora").adapter.rank == 8


@pytest.mark.parametrize("opt", HAVE_WRONG_VALUES.values(), ids=lambda opt: opt.name)
def test_every_option_wins_over_a_value_that_is_none(opt: Option, tmp_path: Path) -> None:
    kohya = opt.declaration.kohya or ""
    value = opt.choices[-1] if opt.choices else "true" if opt.type is bool else str((opt.declaration.between or (0, 0))[0])
    for name in dict.fromkeys((opt.name, kohya)):
        for flag in dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")):
            config = parsed(
                "--config", written(tmp_path, f'network_module = "networks.lora"\n{kohya} = ["none", "such"]\n'), flag, value
            )
            assert str(config.value(opt)).lower() == value or float(config.value(opt)) == float(value)


def test_other_options_of_sd_scripts_are_judged_as_in_a_file() -> None:
    assert parsed("--xformers", "--cache_info", "--lowram", "--sdpa", "--no_half_vae").adapter.rank == 16
    with pytest.raises(ConfigError) as caught:
        parsed("--save_model_as", "ckpt", "--deepspeed")
    assert sorted(problem.partition(" ")[0] for problem in caught.value.problems) == ["--deepspeed", "--save_model_as"]


def test_an_argument_says_nothing_of_whose_file_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"rank": 5, "alpha": 2}), "c.json")
    assert parsed("--config", path, "--network_dim", "6", "--network_args", "rank_dropout=0.1").adapter.alpha == 2
