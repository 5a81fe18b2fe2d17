"""Export to kohya's files, and back."""

from __future__ import annotations

import ast
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lib_lora.cli import main
from lib_lora.cli_options import config_from
from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.config.options import Option
from lib_lora.config.toml_reader import parse_toml, toml_table, toml_value
from lib_lora.data.folders import FolderSearch
from lib_lora.kohya.export import export_files, export_kohya
from lib_lora.kohya.files import source_of
from lib_lora.kohya.importing import import_file, import_source
from tests.conftest import write_picture
from tests.samples import sample
from tests.test_kohya_table import KEYS

FORMS = ("toml", "json")
ODD = {
    "data": ["/some where/photos"], "reg_data": ["/reg"], "optimizer_args": ["weight_decay=0.1", "betas=(0.9,0.99)"],
    "lr_scheduler_args": ["step_size=3"], "base_weights": ["/a b.safetensors", "/c.safetensors"],
    "base_weights_multiplier": ["0.5", "1"], "lr_scheduler": "cosine", "lr_warmup_steps": 0.07, "resolution": 640,
    "resolution_height": 768, "caption_prefix": 'a "quoted" \\ prefix', "trigger": "ohwx cat", "optimizer": "Prodigy",
    "sample_prompts": "a cat --n ugly\na dog", "block_dims": ",".join("2" * 25), "down_lr_weight": "1,1,0.5", "mid_lr_weight": "0.5",
    "keep_tokens_separator": "|||", "training_comment": "ünïcode 🐈 \x7f", "mixed_precision": "fp16", "gradient_checkpointing": "on",
}  # fmt: skip


def back(text: str, form: str) -> TrainConfig:
    settings = parse_toml(text) if form == "toml" else json.loads(text)
    found = import_source(source_of(settings, toml=form == "toml"), keep_names=True)
    assert found.problems() == []
    return found.config()


def changed(opt: Option) -> Any:
    return ODD.get(opt.name, sample(opt))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("opt", all_options(), ids=lambda opt: opt.name)
def test_one_changed_option_comes_back(opt: Option, form: Any) -> None:
    more = {"lr_scheduler": "linear"} if opt.name == "lr_warmup_steps" else {}
    config = build_config({opt.name: changed(opt), **more})
    assert config != build_config(more)
    assert back(export_kohya(config, form), form) == config


@pytest.mark.parametrize("form", FORMS)
def test_all_options_changed_come_back(form: Any) -> None:
    for more in ({}, {"steps": 0}, {"unet_lr": 0}, {"text_encoder_lr": 0}, {"data": []}, {"data": ["a", "b"]}, {"max_grad_norm": 0},
                 {"prior_loss_weight": 0}, {"stop_text_encoder_training": 20}, {"lr_warmup_steps": 5}, {"seed": 0},
                 {"multires_noise_iterations": 0}, {"caption_prefix": ""}, {"validate_every_n_epochs": 0}, {"trigger": ""}):  # fmt: skip
        config = build_config({**{opt.name: changed(opt) for opt in all_options()}, **more})
        assert back(export_kohya(config, form), form) == config


def test_defaults_come_back() -> None:
    for form in FORMS:
        assert back(export_kohya(TrainConfig(), form), form) == TrainConfig()  # type: ignore[arg-type]


def test_a_toml_holds_only_what_sd_scripts_knows_and_a_section_of_ours() -> None:
    config = build_config({opt.name: changed(opt) for opt in all_options()})
    settings = parse_toml(export_kohya(config))
    assert set(settings) - set(KEYS["sd_scripts"]) == {"sd_webui_train_lora"}
    assert not set(settings["sd_webui_train_lora"]) & set(KEYS["sd_scripts"])  # a later section would win there
    assert settings["caption_prefix"].endswith("ohwx cat,")
    assert settings["network_args"][0].count("=") == 1 and settings["resolution"] == "640,768"


def test_what_sd_scripts_divides_by_is_never_0() -> None:
    settings = parse_toml(export_kohya(build_config({"text_encoder_lr": 0, "validate_every_n_epochs": 0})))
    assert not [key for key, value in settings.items() if key.startswith(("save_", "sample_", "validate_")) and value == 0]
    assert settings["network_train_unet_only"] is True


def test_shares_are_floats_and_steps_whole_numbers() -> None:
    assert "lr_warmup_steps = 0.1\n" in export_kohya(build_config({"lr_warmup_steps": 0.1}))
    assert "lr_warmup_steps = 10\n" in export_kohya(build_config({"lr_warmup_steps": 10}))


def test_a_json_holds_only_fields_of_the_form() -> None:
    config = build_config({opt.name: changed(opt) for opt in all_options()})
    settings = json.loads(export_kohya(config, "json"))
    assert set(settings) - set(KEYS["kohya_ss"]) == {"sd_webui_train_lora"}
    assert settings["max_resolution"] == "640,768" and settings["lr_warmup"] == 7.0 and settings["LoRA_type"] == "LyCORIS/LoCon"
    assert json.loads(export_kohya(build_config({}), "json"))["LoRA_type"] == "Standard"
    assert "--zero_terminal_snr" in settings["additional_parameters"]


def test_folders_with_repeats_of_their_own(tmp_path: Path) -> None:
    for name in ("set/10_ohwx cat", "set/3_a dog", "plain", "reg/1_cat"):
        write_picture(tmp_path / name / "a.png")
    config = build_config(
        {"data": [str(tmp_path / "set"), str(tmp_path / "plain")], "reg_data": [str(tmp_path / "reg")], "repeats": 7}
    )
    found = parse_toml(export_kohya(config, "dataset"))
    subsets = found["datasets"][0]["subsets"]
    assert [(Path(s["image_dir"]).name, s["num_repeats"], s.get("class_tokens"), s["is_reg"]) for s in subsets] == [
        ("10_ohwx cat", 10, "ohwx cat", False), ("3_a dog", 3, "a dog", False), ("plain", 7, None, False), ("1_cat", 1, "cat", True)]  # fmt: skip
    assert found["general"]["resolution"] == [512, 512]
    assert set(found["general"]) | {key for s in subsets for key in s} <= set(KEYS["dataset"])


def test_a_dataset_file_is_written_beside_where_one_parent_does_not_say_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "set" / "10_cat" / "a.png")
    write_picture(tmp_path / "plain" / "a.png")
    one = build_config({"data": [str(tmp_path / "set")]})
    assert list(export_files(one, "toml", tmp_path / "x.toml")) == [tmp_path / "x.toml"]
    (tmp_path / "c.json").write_text(json.dumps({"rank": 3, "data": [str(tmp_path / "plain")], "repeats": 4}))
    assert main(["export-kohya", "--config", str(tmp_path / "c.json"), "--out", str(tmp_path / "out" / "x.toml")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'x.toml'}\n"
    found = import_file(tmp_path / "out" / "x.toml", keep_names=True)
    assert (found.flat["data"], found.flat["repeats"], found.flat["rank"]) == ((str(tmp_path / "plain"),), 4, 3)
    assert "train_data_dir" not in parse_toml((tmp_path / "out" / "x.toml").read_text())


@pytest.mark.parametrize("form", ["dataset", "toml"])
@pytest.mark.parametrize("prefix", ["", "a photo of"])
def test_a_dataset_file_is_taken_again(tmp_path: Path, form: Any, prefix: str) -> None:
    for name in ("set/10_ohwx cat", "set/3_a dog", "plain", "reg/2_cat", "more"):
        write_picture(tmp_path / name / "a.png")
    data, reg = [str(tmp_path / "set"), f"{tmp_path / 'plain'}|9"], [str(tmp_path / "reg"), str(tmp_path / "more")]
    text = {"trigger": "ohwx cat", "caption_prefix": prefix, "shuffle_caption": True}
    config = build_config({"data": data, "reg_data": reg, "repeats": 7, **text})
    for path, text in export_files(config, form, tmp_path / "x.toml").items():
        path.write_text(text)
    again = config_from(Namespace(config=tmp_path / "x.toml", preset=None))
    for old, new, repeats in ((config.data.data, again.data.data, 7), (config.data.reg_data, again.data.reg_data, 1)):
        assert (again.text.trigger, again.text.caption_prefix) == ("ohwx cat", prefix)
        assert form == "dataset" or again.text == config.text
        assert shown(old, repeats) == shown(new, again.data.repeats if repeats == 7 else 1)


@pytest.mark.parametrize(
    "moving", [{"shuffle_caption": True}, {"caption_tag_dropout_rate": 0.5}, {"token_warmup_step": 3}], ids=str
)
def test_the_trigger_is_kept_where_tags_move(moving: dict[str, object]) -> None:
    config = build_config({"trigger": "ohwx", "keep_tokens": 2, **moving})
    for form in FORMS:
        text = export_kohya(config, form)  # type: ignore[arg-type]
        assert (parse_toml(text) if form == "toml" else json.loads(text))["keep_tokens"] == 3
        assert back(text, form) == config
    assert parse_toml(export_kohya(config, "dataset"))["general"]["keep_tokens"] == 3
    assert parse_toml(export_kohya(build_config({"trigger": "ohwx", "keep_tokens": 2})))["keep_tokens"] == 2


def test_regularisation_images_have_no_trigger(tmp_path: Path) -> None:
    for name in ("set/10_cat", "reg/1_cat"):
        write_picture(tmp_path / name / "a.png")
    flat = {"data": [str(tmp_path / "set")], "reg_data": [str(tmp_path / "reg")], "trigger": "ohwx", "caption_prefix": "a"}
    config = build_config(flat)
    found = parse_toml(export_kohya(config, "dataset"))
    assert [s["caption_prefix"] for s in found["datasets"][0]["subsets"]] == ["a ohwx,", "a"]
    assert "caption_prefix" not in found["general"]
    assert len(export_files(config, "toml", tmp_path / "x.toml")) == 2
    assert "applies to regularisation" not in export_files(config, "toml", tmp_path / "x.toml")[tmp_path / "x.toml"]
    for form in FORMS:
        text = export_kohya(config, form)  # type: ignore[arg-type]
        assert "applies to regularisation images" in text and back(text, form) == config


def shown(paths: Sequence[str], repeats: int) -> list[tuple[Path, int]]:
    return [(found.path, found.repeats) for path in paths for found in FolderSearch("", repeats, [], []).folders(path)]


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["export-kohya", "--preset", "style", "--out", str(tmp_path / "file" / "x.toml")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_arguments_are_one_by_one_with_values_as_literals() -> None:
    """sd-scripts splits each item at its only = and evaluates the rest."""
    names = ("optimizer_args", "lr_scheduler_args")
    config = build_config({name: ["weight_decay=0.1 betas=(0.9, 0.99)", "decouple=true, kind=x"] for name in names})
    expected = ["weight_decay=0.1", "betas=(0.9,0.99)", "decouple=True", "kind='x'"]
    in_toml, in_json = parse_toml(export_kohya(config)), json.loads(export_kohya(config, "json"))
    for name in names:
        assert in_toml[name] == expected and in_json[name] == " ".join(expected)
        assert [ast.literal_eval(item.split("=")[1]) for item in in_toml[name]] == [0.1, (0.9, 0.99), True, "x"]


@pytest.mark.parametrize("there", [True, False])
def test_repeats_behind_a_bar(tmp_path: Path, there: bool) -> None:
    if there:
        for name in ("set/10_cat", "plain", "reg"):
            write_picture(tmp_path / name / "a.png")
    config = build_config({"data": [f"{tmp_path / 'set'}|4", f"{tmp_path / 'plain'}|6"], "reg_data": [f"{tmp_path / 'reg'}|2"]})
    subsets = parse_toml(export_kohya(config, "dataset"))["datasets"][0]["subsets"]
    first = "10_cat" if there else "set"
    assert [(Path(s["image_dir"]).name, s["num_repeats"]) for s in subsets] == [(first, 4), ("plain", 6), ("reg", 2)]
    one = build_config({"data": [f"{tmp_path / 'set'}|4"]})
    assert len(export_files(one, "toml", tmp_path / "x.toml")) == 2
    for form in FORMS:
        assert back(export_kohya(one, form), form) == one  # type: ignore[arg-type]
        assert "|4" not in str((parse_toml if form == "toml" else json.loads)(export_kohya(one, form)).get("train_data_dir"))  # type: ignore[arg-type,operator]


def test_values_as_toml() -> None:
    values = {"a": True, "b": 1, "c": 1e-7, "d": 'x"\\\n\t\x00\x7f ü🐈', "e": [1, "y"], "f": [], "g": 5e-05, "h": 1e22}
    assert parse_toml(toml_table(values)) == values
    assert toml_value(0.5) == "0.5"


@pytest.mark.parametrize("form", ["toml", "json"])
@pytest.mark.parametrize(
    "flat",
    [
        {"adapter_type": "dora"},
        {"adapter_type": "loha", "conv_dim": 4, "conv_alpha": 2},
        {"adapter_type": "ia3"},
        {"unit": 4, "conv_dim": 16},
        {"adapter_type": "diag-oft", "conv_dim": 4, "rank": 8},
        {"adapter_type": "glora"},
        {"adapter_type": "lokr", "factor": 8, "full_matrix": True, "decompose_both": True, "conv_alpha": 3},
    ],
    ids=str,
)
def test_types_come_back(flat: dict[str, object], form: Any, tmp_path: Path) -> None:
    config = build_config(flat)
    path = tmp_path / f"c.{form}"
    path.write_text(export_kohya(config, form), encoding="utf-8")
    found = import_file(path, keep_names=True)
    assert found.config() == config and found.not_supported == [] and found.unknown == []


def test_types_are_lycoris_there() -> None:
    dora = parse_toml(export_kohya(build_config({"adapter_type": "dora"})))
    assert dora["network_module"] == "lycoris.kohya"
    assert dora["network_args"] == ["algo=locon", "dora_wd=True", "wd_on_output=False", "preset=attn-mlp"]
    lokr = parse_toml(export_kohya(build_config({"adapter_type": "lokr", "factor": 8, "conv_dim": 4, "conv_alpha": 2})))
    assert sorted(lokr["network_args"]) == ["algo=lokr", "conv_alpha=2", "conv_dim=4", "factor=8"]
    ia3 = parse_toml(export_kohya(build_config({"adapter_type": "ia3"})))
    assert sorted(ia3["network_args"]) == ["algo=ia3", "preset=ia3"] and ia3["network_module"] == "lycoris.kohya"
    dylora = parse_toml(export_kohya(build_config({"unit": 4})))
    assert (dylora["network_module"], dylora["network_args"]) == ("networks.dylora", ["unit=4"])
    form = json.loads(export_kohya(build_config({"adapter_type": "loha", "conv_dim": 4}), "json"))
    assert (form["LoRA_type"], form["LyCORIS_preset"], form["conv_dim"]) == ("LyCORIS/LoHa", "full", 4)
