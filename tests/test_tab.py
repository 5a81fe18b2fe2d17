"""The form against the options, and what the tab answers."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

gr = pytest.importorskip("gradio")

from lib_lora.config.groups import all_options, build_config  # noqa: E402
from lib_lora.jobs.runner import Runner  # noqa: E402
from lib_lora.ui.form import component, decimal, installed_suggestions  # noqa: E402
from lib_lora.ui.tab import HINT, ROWS, TrainTab  # noqa: E402
from lib_lora.ui.uploads import KEPT_DROPS, keep_uploads  # noqa: E402
from tests.conftest import write_picture  # noqa: E402

SHOWN = [opt for opt in all_options() if opt.declaration.place != "none"]


class Host:
    """A host with a folder and nothing to lend."""

    def device(self) -> torch.device:
        return torch.device("cpu")

    def __init__(self, folder: Path, *problems: str) -> None:
        self.folder, self.told = folder, list(problems)

    def problems(self) -> list[str]:
        return self.told

    def lora_folder(self) -> Path:
        return self.folder


@pytest.fixture
def tab(tmp_path: Path) -> TrainTab:
    made = TrainTab(Runner(Host(tmp_path / "loras", "No checkpoint is loaded.")), tmp_path / ".private")
    made.build()
    return made


def values(**changes: object) -> list[Any]:
    """What the form's components hold, in order: defaults but for `changes`."""
    return [changes.get(opt.name, "" if opt.kind is tuple else opt.default) for opt in order()]


def order() -> list[Any]:
    return [opt for place in ("basic", "advanced") for opt in all_options() if opt.declaration.place == place]


@pytest.mark.parametrize("opt", SHOWN, ids=lambda opt: opt.name)
def test_every_option_has_a_component_that_says_what_the_declaration_says(opt: Any) -> None:
    made = component(opt)
    assert made.label == opt.declaration.label and made.info == opt.declaration.help
    assert made.do_not_save_to_config
    raw = made.value
    assert opt.kind is tuple or build_config({opt.name: raw}).value(opt) == opt.default
    if opt.choices:
        assert [choice[1] if isinstance(choice, tuple) else choice for choice in made.choices] == list(opt.choices)
    if isinstance(made, gr.Slider):
        assert (made.minimum, made.maximum) == (opt.declaration.ge, opt.declaration.le)


def test_suggestions_that_need_a_package_are_offered_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = next(opt for opt in SHOWN if opt.name == "optimizer")
    assert component(optimizer).allow_custom_value
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "torch" else None)
    assert installed_suggestions(optimizer) == ["AdamW", "SGDNesterov"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name in {"torch", "lion_pytorch"} else None)
    assert installed_suggestions(optimizer) == ["AdamW", "Lion", "SGDNesterov"]


def test_every_basic_option_has_its_place() -> None:
    placed = [name for row in ROWS for name in row]
    assert sorted([*placed, "data"]) == sorted(opt.name for opt in SHOWN if opt.declaration.place == "basic")


def test_decimal() -> None:
    assert [decimal(x) for x in (5e-5, 1e-4, 16.0, 0.0)] == ["0.00005", "0.0001", "16", "0"]


def test_report_without_images_is_a_hint(tab: TrainTab) -> None:
    assert tab.report(None, *values()).startswith(HINT)
    assert tab.report(None, *values(data=" ")).startswith(HINT)


def test_report_shows_what_was_found(tab: TrainTab, photos: Path) -> None:
    html = tab.report(None, *values(data=str(photos), trigger="ohwx", epochs=2, batch_size=2))
    for part in ("3_blob: 4 images × 3", "3 of 4 from files", "ohwx, a blob, number 0", "× 2 epochs", "512x512"):
        assert part in html
    assert "Name" not in html


def test_several_folders_one_a_line(tab: TrainTab, tmp_path: Path) -> None:
    for name in ("one", "two words", "3_class"):
        write_picture(tmp_path / name / "a.png")
    lines = f'  "{tmp_path / "one"}"\n\n{tmp_path / "two words"}|4 \n'
    html = tab.report(None, *values(data=lines, reg_data=f"{tmp_path / '3_class'}\n", trigger="ohwx", validation_split=0.5))
    for part in ("one: 1 images × 10", "two words: 1 images × 4", "3_class: 1 images × 3", "2, 1 of them held out"):
        assert part in html
    assert tab._settings(None, values(optimizer_args="a=1 b=(2, 3)"))["optimizer_args"] == "a=1 b=(2, 3)"
    data = next(opt for opt in SHOWN if opt.name == "data")
    assert component(data).max_lines > 1


@pytest.mark.case(20)
def test_report_escapes(tab: TrainTab, tmp_path: Path) -> None:
    write_picture(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "a.txt").write_text("<img src=x onerror=alert(1)>")
    html = tab.report(None, *values(data=str(tmp_path / "p"), name="<b>"))
    assert "<img" not in html and "&lt;img" in html and "<b>&lt;" not in html and "&lt;b&gt;" in html


def test_report_names_problems(tab: TrainTab) -> None:
    html = tab.report(None, *values(data="/does/not/exist", rank=0))
    assert "Rank (rank): got 0" in html


def test_start_tells_all_problems_at_once(tab: TrainTab, tmp_path: Path) -> None:
    html = tab.start(None, *values(rank=0, unet_lr="NaN", name="a/b", data=str(tmp_path / "missing"), resolution=500))
    for part in ("Rank (rank)", "(unet_lr)", "plain file name", "does not exist", "multiple of 8", "No checkpoint is loaded."):
        assert html.count(part) == 1, part


def test_start_answers_with_the_job(tab: TrainTab) -> None:
    assert "data-job" in tab.start(None, *values(name="x"))


def dropped(*paths: Path) -> list[Any]:
    return [SimpleNamespace(name=str(path)) for path in paths]


def test_dropped_files_are_copied_to_a_private_folder(tab: TrainTab, tmp_path: Path) -> None:
    files = [write_picture(tmp_path / f"up{i}" / f"{i}.png", seed=i) for i in range(2)]
    (tmp_path / "up0" / "1.txt").write_text("a caption")
    (tmp_path / "up0" / "virus.exe").touch()
    drop = dropped(*files, tmp_path / "up0" / "1.txt", tmp_path / "up0" / "virus.exe")
    assert "a caption" in tab.report(drop, *values(trigger="ohwx"))
    folders = list((tmp_path / ".private").iterdir())
    assert len(folders) == 1
    assert sorted(p.name for p in folders[0].iterdir()) == ["0.png", "1.png", "1.txt"]
    assert (folders[0] / "0.png").read_bytes() == files[0].read_bytes()
    assert keep_uploads([Path(f.name) for f in drop], tmp_path / ".private") == folders[0]


def test_two_dropped_files_of_one_name_are_refused(tab: TrainTab, tmp_path: Path) -> None:
    drop = dropped(*(write_picture(tmp_path / f"up{i}" / "same.png", seed=i) for i in range(2)))
    for html in (tab.report(drop, *values(trigger="ohwx")), tab.start(drop, *values(name="x"))):
        assert "Two dropped files are named &#x27;same.png&#x27;; rename one." in html


def test_old_drops_are_forgotten(tmp_path: Path) -> None:
    for number in range(KEPT_DROPS + 3):
        newest = keep_uploads([write_picture(tmp_path / "a.png", 8, 8, seed=number)], tmp_path / ".private")
        os.utime(newest, (number, number))
    kept = list((tmp_path / ".private").iterdir())
    assert len(kept) == KEPT_DROPS and newest in kept


def test_buttons_of_a_run_answer_without_one(tab: TrainTab) -> None:
    import asyncio

    for answer in (tab.stop, tab.stop_and_keep, tab.pause, tab.go_on, tab.save_now):
        assert asyncio.run(answer()) == ""
    assert "There is no other LoRA" in tab.use_best()


def test_the_buttons_have_their_names(tmp_path: Path) -> None:
    blocks = TrainTab(Runner(Host(tmp_path)), tmp_path).build()
    parts = {part["props"].get("elem_id"): part["props"] for part in blocks.get_config_file()["components"]}
    for name in ("more_buttons", "pause", "go_on", "save_now", "use_best"):
        assert "train-lora-hidden" in parts[f"train_lora_{name}"]["elem_classes"], name
    assert {f"train_lora_{name}" for name in ("train", "stop", "keep", "message", "progress_box", "report")} <= set(parts)
    assert parts["train_lora_sample_prompts"]["lines"] == 4
