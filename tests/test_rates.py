"""The text encoder's default learning rate: 0 for SDXL, 0.00005 for the others. A given one counts everywhere."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.check import look
from lib_lora.cli_options import add_options, config_from
from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.config.presets import PRESETS
from lib_lora.config.toml_reader import parse_toml
from lib_lora.errors import ConfigError
from lib_lora.estimate.estimate import estimate
from lib_lora.events import Event, Finished, Planned, StateSaved
from lib_lora.families.family import DetectedModel, inpainting
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL
from lib_lora.files.lora_file import read
from lib_lora.files.plain_values import StateError
from lib_lora.files.state_file import VALUES
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.kohya.export import export_kohya
from lib_lora.kohya.files import source_of
from lib_lora.kohya.importing import import_file, import_source
from lib_lora.run_control import RunControl
from lib_lora.settle import model_problems, settle
from lib_lora.train import train
from tests.conftest import small_config
from tests.models import shared_host
from tests.test_kohya_export import back

FORMS = ("toml", "json")


def unset(photos: Path, out: Path, **changes: object) -> TrainConfig:
    return small_config(photos, out, **{"text_encoder_lr": "", "train_layers": "cross-attention", "steps": 2, **changes})


def run(config: TrainConfig, host: StandaloneHost, stop_at: int = 0) -> tuple[list[Event], dict[str, Any], dict[str, str]]:
    """The events, tensors and metadata of a run, ended after `stop_at` steps."""
    control, events = RunControl(), []
    for event in train(config, host, control):
        events.append(event)
        if getattr(event, "step", 0) == stop_at > 0:
            control.request_stop(keep=True)
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    return events, *read(events[-1].path)


def test_the_family_decides_and_a_rate_that_is_given_stays() -> None:
    for family, rate in ((SD1, 5e-5), (SD2, 5e-5), (SDXL, 0.0), (inpainting(SDXL), 0.0), (inpainting(SD1), 5e-5)):
        for raw in ("", "  ", None):
            assert (
                settle(build_config({"text_encoder_lr": raw}), DetectedModel(family, "a test")).optimizer.text_encoder_lr == rate
            )
        for given in (0, 1e-5):
            assert (
                settle(build_config({"text_encoder_lr": given}), DetectedModel(family, "a test")).optimizer.text_encoder_lr
                == given
            )


@pytest.mark.parametrize(("checkpoint", "rate"), [("mini_sdxl", 0.0), ("mini_checkpoint", 5e-5)])
def test_a_run_without_one(
    checkpoint: str, rate: float, photos: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers of the file, its metadata, the state and what is told agree. Not given and given as much are the same run."""
    host = shared_host(request.getfixturevalue(checkpoint), tmp_path)
    events, tensors, metadata = run(unset(photos, tmp_path, name="part", save_state=True), host, stop_at=1)
    assert any(key.startswith("lora_te") for key in tensors) == (rate > 0)
    assert metadata["ss_text_encoder_lr"] == str(rate) and metadata["ss_learning_rate"] == "0.001"
    (state,) = (event.folder for event in events if isinstance(event, StateSaved))
    assert json.loads((state / VALUES).read_text())["configuration"]["text_encoder_lr"] == rate
    told = [getattr(event, "text", "") for event in events]
    assert any("Text encoders: not trained, since training only the U-Net is usual for SDXL" in text for text in told) == (
        rate == 0
    )
    (plan,) = (event.plan for event in events if isinstance(event, Planned))
    assert (" 0 of the text encoders" in plan.layers) == (rate == 0)
    with pytest.raises(ConfigError, match=rf"text_encoder_lr\) was {rate}, is 1e-06; change them back"):
        run(unset(photos, tmp_path, name="other", resume="part", text_encoder_lr=1e-6), host)
    _, given, _ = run(unset(photos, tmp_path, name="given", resume="part", text_encoder_lr=rate), host)
    monkeypatch.setattr(host, "detected_model", lambda: None)  # the family is known only with the model
    _, again, told_again = run(unset(photos, tmp_path, name="again", resume="part"), host)
    assert set(again) == set(tensors) and all(torch.equal(again[key], given[key]) for key in tensors)
    assert told_again["ss_text_encoder_lr"] == str(rate)


def test_a_run_with_one_trains_both_encoders_of_sdxl(
    mini_sdxl: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = shared_host(mini_sdxl, tmp_path)
    flat: dict[str, object] = {"save_state": True, "text_encoder_lr": 1e-5}
    _, tensors, metadata = run(unset(photos, tmp_path, **flat), host, stop_at=1)
    assert metadata["ss_text_encoder_lr"] == "1e-05"
    assert {key.partition("_text_model")[0] for key in tensors if key.startswith("lora_te")} == {"lora_te1", "lora_te2"}
    left = {**flat, "name": "other", "resume": "blob", "text_encoder_lr": ""}
    with pytest.raises(
        ConfigError, match=r"text_encoder_lr\) was 1e-05, is 0.0; change them back"
    ):  # before the model is touched
        run(unset(photos, tmp_path, **left), host)
    monkeypatch.setattr(host, "detected_model", lambda: None)
    with pytest.raises(StateError, match=r"text_encoder_lr\) was 1e-05, is 0.0; change them back"):
        run(unset(photos, tmp_path, **left), host)


def test_rules_look_at_the_familys_rate(mini_sdxl: Path, mini_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    xl, sd = shared_host(mini_sdxl, tmp_path), shared_host(mini_checkpoint, tmp_path)
    text_alone = unset(photos, tmp_path, unet_lr=0)
    assert look(text_alone, sd).checked().steps == 2
    with pytest.raises(ConfigError, match="nothing would be trained; the model is SDXL"):
        look(text_alone, xl).checked()
    one_rate = unset(photos, tmp_path, optimizer="Prodigy", unet_lr=1)
    if importlib.util.find_spec("prodigyopt") is not None:
        assert look(one_rate, xl).checked().steps == 2
    assert not any(
        "one learning rate for everything" in problem
        for problem in model_problems(settle(one_rate, DetectedModel(SDXL, "a test")))
    )
    (problem,) = model_problems(settle(one_rate, DetectedModel(SD1, "a test")))
    assert "one learning rate for everything" in problem and problem.endswith("; the model is SD 1.x.")


def test_the_account_counts_what_is_trained(mini_sdxl: Path, photos: Path, tmp_path: Path) -> None:
    host = shared_host(mini_sdxl, tmp_path)
    base, device = host.look(), host.device()
    assert base is not None
    found = {
        rate: estimate(settle(unset(photos, tmp_path, text_encoder_lr=rate), host.detected_model()), base, device)
        for rate in ("", 1e-5)
    }
    assert found[""].adapters["LoRA"] < found[1e-5].adapters["LoRA"]


def test_the_command_line(tmp_path: Path) -> None:
    def parsed(*arguments: str) -> float | None:
        parser = argparse.ArgumentParser()
        add_options(parser)
        return config_from(parser.parse_args(arguments)).optimizer.text_encoder_lr

    (tmp_path / "ours.json").write_text(json.dumps(build_config({"name": "x"}).to_flat()))
    (tmp_path / "kohya.toml").write_text('network_dim = 4\nlearning_rate = 1e-3\nnetwork_module = "networks.lora"\n')
    (tmp_path / "unet.toml").write_text("network_dim = 4\nlearning_rate = 1e-3\nnetwork_train_unet_only = true\n")
    assert parsed() is None and parsed("--unet_lr", "1e-3") is None and parsed("--text_encoder_lr", "0") == 0
    assert parsed("--config", str(tmp_path / "ours.json")) is None
    assert parsed("--config", str(tmp_path / "kohya.toml")) == 1e-3, "sd-scripts takes the learning rate"
    assert parsed("--config", str(tmp_path / "unet.toml")) == 0
    assert parsed("--learning_rate", "1e-3") == 1e-3
    help_text = argparse.ArgumentParser()
    add_options(help_text)
    assert "Default: 0.00005; 0 for SDXL." in " ".join(help_text.format_help().split())


def test_a_json_of_kohya_ss_without_rates_leaves_it_to_the_family() -> None:
    def gui(**settings: Any) -> float | None:
        return import_source(source_of({"LoRA_type": "Standard", **settings}, toml=False)).config().optimizer.text_encoder_lr

    assert gui() is None and gui(learning_rate=1e-3) == 1e-3 and gui(unet_lr=1e-4, text_encoder_lr="") == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("family", "rate"), [(None, 5e-5), (SD1, 5e-5), (SDXL, 0)])
def test_sd_scripts_is_told_the_rate_and_we_read_that_it_was_not_given(form: Any, family: Any, rate: float) -> None:
    config = build_config({"name": "x", "data": ["/a"]})
    text = export_kohya(config, form, family=family)
    found = parse_toml(text) if form == "toml" else json.loads(text)
    assert found["text_encoder_lr"] == rate and bool(found.get("network_train_unet_only")) == (form == "toml" and rate == 0)
    assert back(text, form) == config
    assert ("for SDXL set it to 0" in text) == (family is None)
    given = build_config({"name": "x", "data": ["/a"], "text_encoder_lr": rate})
    assert back(export_kohya(given, form, family=family), form) == given


@pytest.mark.parametrize("form", FORMS)
def test_a_rate_that_was_changed_in_the_file_counts(form: Any, tmp_path: Path) -> None:
    text = export_kohya(build_config({"name": "x"}), form, family=SDXL)
    for old, new in (("text_encoder_lr = 0.0", "text_encoder_lr = 3e-5"), ("network_train_unet_only = true\n", ""),
                     ('"text_encoder_lr": 0.0', '"text_encoder_lr": 3e-5')):  # fmt: skip
        text = text.replace(old, new, 1)
    path = tmp_path / f"edited.{form}"
    path.write_text(text)
    assert import_file(path, keep_names=True).config().optimizer.text_encoder_lr == 3e-5


def test_presets_and_what_is_kept_of_settings() -> None:
    rates = {name: build_config(preset.settings()).optimizer.text_encoder_lr for name, preset in PRESETS.items()}
    assert rates["character"] is None and rates["object"] is None and rates["style"] == 2e-5 and rates["low_memory"] == 0
    assert build_config(json.loads(json.dumps(build_config({}).to_flat()))) == build_config({})
    assert [opt.name for opt in all_options() if opt.default is None] == ["text_encoder_lr"]
