"""An option added to a copy of one group is found everywhere without another edit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lib_lora.config import groups
from lib_lora.config.declaration import ReadIf, option
from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.config.objective import ObjectiveConfig
from lib_lora.config.rules import config_notes
from lib_lora.errors import ConfigError
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_listing import details
from lib_lora.kohya.export import ExportForm, export_kohya
from lib_lora.kohya.importing import Imported, import_file
from lib_lora.training.resume import _settings_problem
from tests.test_cli import parsed
from tests.test_metadata_size import metadata, planned
from tools import kohya_table, options_table


@dataclass(frozen=True)
class WithSparkle(ObjectiveConfig):
    """A copy of a group with three options more."""

    sparkle: float = option(
        0.0, label="Sparkle", between=(0.0, 9.0), row=(5, 3), metadata="ss_sparkle", none_by_default=True,
        help="How much it sparkles.",
    )  # fmt: skip
    sparkle_map: str = option("", label="Sparkle map", is_path="file", help="Where it sparkles.")
    sparkle_files: bool = option(
        False, label="Sparkle files", kohya=None, affects="files", help="Leaves files that sparkle.",
        read_if=ReadIf(lambda objective: objective.sparkle > 0, "Sparkle (sparkle) is 0"),
    )  # fmt: skip


@dataclass(frozen=True)
class Extended(TrainConfig):
    """All groups, with the copy in the place of its original."""

    objective: WithSparkle = field(default_factory=WithSparkle, metadata={"title": "Loss and noise"})


@pytest.fixture(autouse=True)
def extended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "sparkle" not in {opt.name for opt in all_options()}  # and what follows from the list was looked at before
    kohya_table.page()
    monkeypatch.setattr(groups, "TrainConfig", Extended)


def flat(**changes: object) -> dict[str, Any]:
    return json.loads(json.dumps(build_config(changes).to_flat()))  # type: ignore[no-any-return]


def test_validation() -> None:
    with pytest.raises(ConfigError, match=r"Sparkle \(sparkle\): got 10.0, must be a number from 0 to 9\."):
        build_config({"sparkle": 10})
    (note,) = config_notes(build_config({"sparkle_files": True}))
    assert note == "Sparkle files (sparkle_files): no effect, because Sparkle (sparkle) is 0."
    assert config_notes(build_config({"sparkle_files": True, "sparkle": 1})) == []


def test_command_line() -> None:
    config = parsed("--sparkle", "2", "--sparkle-map", "/a/b.png", "--sparkle-files")
    assert config == build_config({"sparkle": 2, "sparkle_map": "/a/b.png", "sparkle_files": True}) != build_config({})


def read_back(text: str, folder: Path, form: str, *, keep_names: bool) -> Imported:
    path = folder / f"settings.{form}"
    path.write_text(text)
    return import_file(path, keep_names=keep_names)


@pytest.mark.parametrize("form", ["toml", "json"])
def test_kohyas_files(form: ExportForm, tmp_path: Path) -> None:
    config = build_config({"sparkle": 2, "sparkle_map": "/a/b.png", "sparkle_files": True, "text_encoder_lr": 5e-5})
    text = export_kohya(config, form)
    assert "sparkle = 2.0" in text if form == "toml" else json.loads(text)["sparkle"] == 2.0
    assert read_back(text, tmp_path, form, keep_names=True).config() == config
    found = read_back(text, tmp_path, form, keep_names=False)
    assert found.flat["sparkle"] == 2.0 and "sparkle_map" not in found.flat and "sparkle_map" not in found.report()["config"]
    (reason,) = [said.why for said in found.ignored if said.key == "sparkle_map"]
    assert reason == "A file of another computer; choose yours in Sparkle map (sparkle_map)."


def test_metadata() -> None:
    told = [metadata(*planned(["a"], sparkle=value))["ss_sparkle"] for value in (2.0, 0.0)]
    assert told == ["2.0", "None"]
    assert not any("sparkle_map" in key for key in metadata(*planned(["a"], sparkle_map="/a/b.png")))


def test_who_may_only_look_sees_no_folder() -> None:
    entry = Entry("1", flat(sparkle=2, sparkle_map="/home/somebody/b.png"), 1.0)
    settings = {name: value for _, name, value in details(entry)["settings"]}
    assert settings == {"sparkle": "2.0", "sparkle_map": "b.png"}


def test_resume() -> None:
    saved = flat()
    assert "Sparkle (sparkle) was 0.0, is 2.0" in str(_settings_problem(build_config({"sparkle": 2}), saved))
    assert "sparkle_map" in str(_settings_problem(build_config({"sparkle_map": "x"}), saved))
    saved = flat(sparkle=2)
    assert _settings_problem(build_config({"sparkle": 2, "sparkle_files": True}), saved) is None


def test_documents() -> None:
    assert "| `sparkle` | Sparkle | `sparkle` | 0.0 | 0 to 9 | How much it sparkles. |" in options_table.page()
    assert "| `sparkle` | `sparkle` | Sparkle (sparkle). |" in kohya_table.page()


def row_of(item: Any) -> Any:
    """The row that a component stands in."""
    return item if item.get_block_name() == "row" else row_of(item.parent)


def test_form(tmp_path: Path) -> None:
    gr = pytest.importorskip("gradio")
    from lib_lora.datasets.catalogue import Catalogue
    from lib_lora.ui.form import component
    from lib_lora.ui.form_presets import choose_preset, set_options
    from lib_lora.ui.guard import Guard
    from lib_lora.ui.hidden_paths import hidden_path_problems
    from lib_lora.ui.tab import TrainTab
    from tests.test_tab import Host, queue_of

    for hides in (False, True):
        queue = queue_of(Host(tmp_path / "loras"), tmp_path)
        tab = TrainTab(
            queue, Catalogue(tmp_path / ".private" / "datasets"), tmp_path / ".private" / "taken", Guard(), hides_folders=hides
        )
        made = {getattr(item, "elem_id", None): item for item in tab.build().blocks.values()}
        assert row_of(made["train_lora_sparkle"]) is row_of(made["train_lora_rank"])
        assert made["train_lora_sparkle"].label == "Sparkle" and made["train_lora_sparkle_files"].info.startswith("Leaves")
        assert made["train_lora_sparkle_map"].visible is not hides
    names = [opt.name for opt in set_options()]
    assert "sparkle" in names and "sparkle_map" not in names
    assert choose_preset("Style")[1:][names.index("sparkle")]["value"] == "0"
    hidden = hidden_path_problems(flat(sparkle_map="/a/b.png"))
    assert len(hidden) == 1 and hidden[0].startswith("Sparkle map (sparkle_map): the webui runs with --hide")
    assert isinstance(component(next(opt for opt in all_options() if opt.name == "sparkle_files")), gr.Checkbox)
