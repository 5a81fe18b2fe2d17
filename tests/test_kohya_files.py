"""Settings files: datasets, TOML, ours, unreadable ones, and the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lib_lora.cli import main
from lib_lora.config.groups import all_options, build_config
from lib_lora.config.options import Option
from lib_lora.config.toml_reader import parse_toml
from lib_lora.errors import ConfigError
from lib_lora.kohya.files import source_of
from lib_lora.kohya.importing import from_kohya, import_file, import_source
from tests.samples import sample
from tests.test_kohya_import import BASIC, LISTS, toml, verdict, why

DATASETS = """
[general]
enable_bucket = true
caption_extension = ".txt"
keep_tokens = 1
[[datasets]]
resolution = [512, 640]
batch_size = 4
  [[datasets.subsets]]
  image_dir = "/photos/cat"
  num_repeats = 5
  flip_aug = true
  class_tokens = "ohwx cat"
  [[datasets.subsets]]
  image_dir = "/photos/more cats"
  num_repeats = 5
  flip_aug = true
  keep_tokens = 2
  [[datasets.subsets]]
  is_reg = true
  image_dir = "/photos/reg"
  num_repeats = 1
  flip_aug = true
"""


def test_a_dataset_file() -> None:
    found = toml(DATASETS)
    flat = found.flat
    assert (flat["resolution"], flat["resolution_height"], flat["batch_size"], flat["repeats"]) == (512, 640, 4, 5)
    assert flat["enable_bucket"] and flat["flip_aug"] and flat["caption_extension"] == ".txt" and flat["keep_tokens"] == 1
    assert "data" not in flat and "rank" not in flat
    assert verdict(found, "datasets[0].subsets[0].image_dir") == "ignored"
    assert verdict(found, "datasets[0].subsets[0].num_repeats") == "used"
    assert verdict(found, "datasets[0].subsets[2].num_repeats") == "ignored"
    assert verdict(found, "datasets[0].subsets[0].class_tokens") == "ignored"
    assert verdict(found, "datasets[0].subsets[1].keep_tokens") == "not_supported"
    assert verdict(found, "general.keep_tokens") == "used"


def test_a_dataset_file_with_its_folders() -> None:
    found = toml(DATASETS, keep_names=True)
    flat = found.flat
    assert verdict(found, "datasets[0].subsets[2].is_reg") == "used"
    assert flat["data"] == ("/photos/cat", "/photos/more cats") and flat["reg_data"] == ("/photos/reg",)


def test_a_folder_whose_name_says_other_repeats_takes_those_of_the_file() -> None:
    text = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "/photos/10_cat"\nnum_repeats = '
    other, same = toml(text + "5", keep_names=True), toml(text + "10", keep_names=True)
    assert other.flat["data"] == ("/photos/10_cat|5",) and same.flat["data"] == ("/photos/10_cat",)
    assert other.problems() == [] and verdict(other, "datasets[0].subsets[0].num_repeats") == "used"


def test_repeats_that_differ_stand_behind_their_folders() -> None:
    text = """[general]\nnum_repeats = 3\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\nnum_repeats = 5\n
    [[datasets.subsets]]\nimage_dir = "7_b"\nnum_repeats = 7\n[[datasets.subsets]]\nimage_dir = "c"\n
    [[datasets.subsets]]\nimage_dir = "r"\nis_reg = true\nnum_repeats = 2\n"""
    found = toml(text, keep_names=True)
    assert found.problems() == []
    assert found.flat["data"] == ("a|5", "7_b", "c|3") and found.flat["reg_data"] == ("r|2",)
    assert all(verdict(found, f"datasets[0].subsets[{i}].num_repeats") == "used" for i in (0, 1, 3))
    assert verdict(found, "general.num_repeats") == "used"
    assert toml(text).problems()  # without the folders their repeats cannot be kept
    assert toml(text.replace("= 5", "= 0"), keep_names=True).problems()


def test_class_tokens_are_told_where_the_folder_says_something_else() -> None:
    text = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "/photos/10_cat"\nclass_tokens = '
    key = "datasets[0].subsets[0].class_tokens"
    assert "'cat'" in why(toml(text + '"dog"'), key) and "'cat'" not in why(toml(text + '"cat"'), key)
    assert verdict(toml(text + '"dog"'), key) == "ignored"


def test_the_folders_own_value_wins() -> None:
    found = toml(
        '[general]\nflip_aug = false\n[[datasets]]\nresolution = 256\n[[datasets.subsets]]\nimage_dir = "a"\nflip_aug = true'
    )
    assert found.flat["flip_aug"] and found.flat["resolution"] == 256 and not found.not_supported
    assert verdict(found, "general.flip_aug") == "ignored"


def test_a_dataset_file_that_a_toml_names(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text(DATASETS)
    (tmp_path / "run.toml").write_text('network_dim = 8\ndataset_config = "data.toml"\n')
    found = import_file(tmp_path / "run.toml")
    assert (found.flat["rank"], found.flat["batch_size"], found.flat["repeats"]) == (8, 4, 5)
    assert verdict(found, "dataset_config") == "used"
    assert verdict(import_file(tmp_path / "run.toml", follow=False), "dataset_config") == "not_supported"


def test_settings_of_ours_come_back(tmp_path: Path) -> None:
    ours = build_config(
        {"rank": 8, "stop_text_encoder_training": 50, "gradient_checkpointing": "on", "optimizer_args": ["a=1"], "name": "x"}
    )
    (tmp_path / "ours.json").write_text(json.dumps(ours.to_flat()))
    assert import_file(tmp_path / "ours.json", keep_names=True).config() == ours
    assert import_file(tmp_path / "ours.json").config().run.name == ""


@pytest.mark.parametrize("opt", [opt for opt in all_options() if opt.declaration.kohya], ids=lambda opt: opt.name)
def test_every_kohya_name_sets_its_option(opt: Option) -> None:
    kohya = opt.declaration.kohya or ""
    value = sample(opt)
    if opt.name == "gradient_checkpointing":
        value = True
    settings = {"network_args": [f"{kohya.partition('.')[2]}={value}"]} if "." in kohya else {kohya: value}
    config = import_source(source_of(settings, toml=True), keep_names=True).config()
    expected = "on" if opt.name == "gradient_checkpointing" else tuple(value) if opt.type is tuple else value
    assert config.value(opt) == expected


@pytest.mark.parametrize("missing", [(), ("tomllib",), ("tomllib", "tomli", "toml")])
def test_toml_is_read_with_what_there_is(missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert parse_toml("[a]\nb = [1, 'x']") == {"a": {"b": [1, "x"]}}


def test_without_any_reader_of_toml_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tomllib", "tomli", "toml", "pip._vendor.tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="tomli"):
        parse_toml("")


def test_the_command_prints_one_object_or_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "basic.json"
    path.write_text(json.dumps(BASIC), encoding="utf-8-sig")
    assert main(["import-kohya", str(path), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert set(found) == {*LISTS, "config"} and said.out.count("\n") == 1
    assert sorted(item["key"] for name in LISTS for item in found[name]) == sorted(BASIC)
    assert all(set(item) == {"key", "value", "why"} and item["why"] for name in LISTS for item in found[name])
    assert next(item["value"] for item in found["used"] if item["key"] == "unet_lr") == "0.0001"
    assert build_config(found["config"]).adapter.rank == 128
    assert main(["import-kohya", str(path)]) == 0
    assert "Ignored on purpose" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "a = ", '"text"', "\x00", "null"])
def test_what_cannot_be_parsed_is_one_sentence(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("f.json", "f.toml"):
        path = tmp_path / name
        path.write_text(text)
        code = main(["import-kohya", str(path), "--json"])
        said = capsys.readouterr()
        if text == "" and name == "f.toml":  # an empty document is one
            assert code == 0
            continue
        assert code == 2 and said.out == "" and len(said.err.splitlines()) == 1
    assert main(["import-kohya", str(tmp_path / "missing.json")]) == 2


def test_odd_values_do_not_break_the_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.toml").write_text("date = 2024-01-01\nnan = nan\nnetwork_dim = inf\n[a.b]\nc = 1\n")
    assert main(["import-kohya", str(tmp_path / "odd.toml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda text: pytest.fail(text))
    assert len(found["unknown"]) == 3 and found["not_supported"][0]["key"] == "network_dim"


def test_recorded_configurations_keep_neutral_options_without_a_word() -> None:
    told = from_kohya({"scale_weight_norms": None, "network_args": None, "deepspeed": False, "zero_stage": 2, "v2": False,
                       "lowram": True, "face_crop_aug_range": None, "fp8_base": False, "network_module": "networks.lora",
                       "initial_step": 0, "use_8bit_adam": False, "lr_warmup_steps": 0, "save_model_as": "safetensors"}).problems()  # fmt: skip
    assert told == []
    assert from_kohya({"resolution": "256,320"}).flat == {"resolution": 256, "resolution_height": 320}
    assert from_kohya({"network_args.rank_dropout": 0.1}).flat == {"rank_dropout": 0.1}


@pytest.mark.parametrize("text", [None, "a = ["])
def test_a_dataset_file_that_cannot_be_read_is_told(text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text('network_dim = 8\ndataset_config = "data.toml"\n')
    if text is not None:
        (tmp_path / "data.toml").write_text(text)
    assert main(["import-kohya", str(tmp_path / "run.toml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["key"] for item in found["not_supported"]] == ["dataset_config"]
    assert "cannot be read" in found["not_supported"][0]["why"]
    assert found["config"]["rank"] == 8


def test_a_lone_surrogate_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.json").write_text('{"\\ud800": 1, "network_dim": 8}')
    assert main(["import-kohya", str(tmp_path / "odd.json")]) == 0
    assert "\\ud800 = 1" in capsys.readouterr().out
