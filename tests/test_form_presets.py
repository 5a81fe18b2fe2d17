"""Presets, import and export above the form."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from lib_lora.config.groups import build_config  # noqa: E402
from lib_lora.config.options import field_value  # noqa: E402
from lib_lora.config.presets import PRESETS  # noqa: E402
from lib_lora.config.toml_reader import parse_toml  # noqa: E402
from lib_lora.datasets.catalogue import Catalogue  # noqa: E402
from lib_lora.kohya.importing import import_file  # noqa: E402
from lib_lora.ui.form_presets import (  # noqa: E402
    DEFAULTS,
    EXPORTS,
    PresetBar,
    choose_preset,
    read_file,
    set_options,
)
from lib_lora.ui.guard import Guard  # noqa: E402
from lib_lora.ui.tab import TrainTab  # noqa: E402
from tests.conftest import write_picture  # noqa: E402
from tests.test_kohya_import import BASIC  # noqa: E402
from tests.test_presets import OPTIONS, PERSONAL  # noqa: E402
from tests.test_tab import Host, order, queue_of, values  # noqa: E402


def applied(answer: list[Any]) -> dict[str, Any]:
    """Option name -> the value that its field gets."""
    return {opt.name: update["value"] for opt, update in zip(set_options(), answer[1:], strict=True) if "value" in update}


def written(path: Path, settings: Any) -> Any:
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return SimpleNamespace(name=str(path))


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_fills_the_form_and_leaves_what_is_the_users_own(name: str) -> None:
    answer = choose_preset(PRESETS[name].title)
    fields = applied(answer)
    assert build_config(fields) == build_config(PRESETS[name].settings())
    assert not set(fields) & PERSONAL
    assert all(choice.why.replace("'", "&#x27;") in answer[0] for choice in PRESETS[name].choices)


def test_defaults_put_a_preset_back() -> None:
    assert build_config(applied(choose_preset(DEFAULTS))) == build_config({})


def test_no_field_of_a_name_or_a_folder_is_ever_set() -> None:
    names = {opt.name for opt in set_options()}
    assert not names & {"name", "data", "reg_data", "mask_data", "trigger", "overwrite", "network_weights", "resume"}
    assert names & PERSONAL == {name for name in PERSONAL if OPTIONS[name].declaration.set_by == "file"} != set()


def test_every_field_holds_what_it_is_given() -> None:
    config = build_config({"optimizer_args": ["a=1", "b=2"], "unet_lr": 1e-7})
    told = {opt.name: field_value(opt, config.value(opt)) for opt in set_options()}
    assert told["optimizer_args"] == "a=1 b=2" and told["unet_lr"] == "0.0000001"


def test_a_kohya_file_fills_the_form(tmp_path: Path) -> None:
    preset, *answer = read_file(
        written(tmp_path / "basic.json", {**BASIC, "LoRA_type": "LyCORIS/<b>", "training_comment": "mine"})
    )
    fields = applied(answer)
    assert preset["value"] is None
    assert fields["rank"] == 128 and fields["optimizer"] == "AdamW8bit" and fields["training_comment"] == "mine"
    assert "sample_prompts" not in fields  # the file says nothing of them, so they stay
    assert "Not supported and left out: 1" in answer[0] and "<b>" not in answer[0] and "<details open>" in answer[0]


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    preset, *answer = read_file(written(tmp_path / "broken.json", "{"))
    assert applied(answer) == {} and "train-lora-problem" in answer[0] and str(tmp_path) not in answer[0]
    assert applied(read_file(None)[1:]) == {} and "value" not in preset


def test_a_file_does_not_make_the_server_read_others(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text("[[datasets]]\nbatch_size = 7\n")
    _, *answer = read_file(written(tmp_path / "run.toml", 'dataset_config = "data.toml"\n'))
    assert applied(answer)["batch_size"] == 1 and "dataset_config" in answer[0]


@pytest.fixture
def bar() -> PresetBar:
    made = PresetBar(Guard(), Path("taken"), lambda: None)
    with gr.Blocks():
        made.build()
    made._options = order()
    return made


def exported(bar: PresetBar, *sent: Any) -> Any:
    """What the page gets from Export."""
    return bar._guarded(bar.write, 1)(bar._guard.key, *sent)


@pytest.mark.parametrize("form", list(EXPORTS))
def test_settings_are_written_and_come_back(form: str, bar: PresetBar, tmp_path: Path) -> None:
    write_picture(tmp_path / "set" / "3_cat" / "a.png")
    told, update = bar.write(form, *values(rank=7, name="my_cat", data=f' "{tmp_path / "set"}" ', resolution=640))
    path = Path(update["value"])
    assert "value" not in told and update["visible"] and path.name.startswith("my_cat")
    if EXPORTS[form] == "dataset":
        assert parse_toml(path.read_text())["datasets"][0]["subsets"][0]["num_repeats"] == 3
        return
    config = import_file(path, keep_names=True).config()
    assert config == build_config({"rank": 7, "name": "my_cat", "data": [str(tmp_path / "set")], "resolution": 640})


def test_a_plain_folder_is_written_with_its_dataset_file(bar: PresetBar, tmp_path: Path) -> None:
    write_picture(tmp_path / "plain" / "a.png")
    paths = [
        Path(path) for path in bar.write("sd-scripts (TOML)", *values(name="../x", data=str(tmp_path / "plain")))[1]["value"]
    ]
    assert [path.name for path in paths] == ["train_lora.toml", "train_lora-dataset.toml"]
    assert parse_toml(paths[0].read_text())["dataset_config"] == "train_lora-dataset.toml"


def test_illegal_settings_are_told_instead_of_written(bar: PresetBar) -> None:
    told, update = exported(bar, "kohya_ss (JSON)", *values(rank=0))
    assert "Rank (rank): got 0" in told and "value" not in update


def test_the_tab_has_it_and_gradio_takes_its_answers(tmp_path: Path) -> None:
    guard = Guard()
    blocks = TrainTab(
        queue_of(Host(tmp_path / "loras"), tmp_path),
        Catalogue(tmp_path / ".private" / "datasets"),
        tmp_path / ".private" / "taken",
        guard,
    ).build()
    made = {item.elem_id: item for item in blocks.blocks.values() if getattr(item, "elem_id", None)}
    for name in ("preset", "import", "form_of", "export", "exported"):
        assert made[f"train_lora_{name}"].do_not_save_to_config
    chosen = made["train_lora_preset"]._id
    events = [number for number, event in enumerate(blocks.dependencies) if event["targets"] == [chosen]]
    (fn_index,) = (number for number in events if blocks.dependencies[number]["trigger"] == "input")
    answers = blocks.postprocess_data(fn_index, blocks.fns[fn_index].fn(guard.key, "Style"), {})
    assert len(answers) == len(set_options()) + 1 and PRESETS["style"].text in answers[0]


def test_several_folders_are_exported_as_several(bar: PresetBar, tmp_path: Path) -> None:
    written_values = values(data=f"{tmp_path / 'one'}\n{tmp_path / 'two'}|5", base_weights="a b.safetensors\nc.safetensors",
                            base_weights_multiplier="0.5\n0.7")  # fmt: skip
    settings = json.loads(Path(bar.write("Settings (JSON)", *written_values)[1]["value"]).read_text())
    assert settings["data"] == [str(tmp_path / "one"), f"{tmp_path / 'two'}|5"]
    assert settings["base_weights"] == ["a b.safetensors", "c.safetensors"] and settings["base_weights_multiplier"] == [
        "0.5",
        "0.7",
    ]


def test_settings_that_cannot_run_are_not_exported(bar: PresetBar) -> None:
    told, update = exported(bar, "Settings (JSON)", *values(min_timestep=900, max_timestep=100))
    assert "min_timestep" in told and "value" not in update
