"""The user's own presets: saved, renamed, deleted, shared; files from elsewhere are bounded and judged."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from lib_lora.advice import own_presets
from lib_lora.advice.own_presets import LONGEST_FILE, OwnPresets, read_preset
from lib_lora.config.groups import all_options, build_config, read_config
from lib_lora.config.presets import PRESETS
from lib_lora.errors import ConfigError
from tests.test_presets import PERSONAL

MINE = {"rank": 4, "unet_lr": 2e-5, "optimizer_args": ["weight_decay=0.1"], "name": "my cat", "data": ["/photos"], "trigger": "ohwx",
        "network_weights": "/a.safetensors", "metadata_author": "me", "sample_prompts": "a cat"}  # fmt: skip


@pytest.fixture
def presets(tmp_path: Path) -> OwnPresets:
    return OwnPresets(tmp_path / "presets")


def shared(**changed: Any) -> bytes:
    return json.dumps({"train_lora_preset": 1, "name": "Shared", "settings": {"rank": 4}, **changed}).encode()


def test_a_preset_is_there_after_a_restart_without_what_is_personal(presets: OwnPresets, tmp_path: Path) -> None:
    assert presets.all() == []
    saved = presets.save("  For   cats ", build_config(MINE))
    (found,) = OwnPresets(tmp_path / "presets").all()
    assert found == saved and found.name == "For cats"
    assert not found.settings.keys() & PERSONAL
    assert found.config() == build_config({name: value for name, value in MINE.items() if name not in PERSONAL})
    assert all(name not in found.to_text() for name in ("/photos", "my cat", "ohwx", "safetensors", '"me"', "a cat"))


def test_it_is_renamed_replaced_and_deleted(presets: OwnPresets, tmp_path: Path) -> None:
    first, second = presets.save("One", build_config({"rank": 3})), presets.save("Two", build_config({"rank": 5}))
    assert [one.name for one in presets.all()] == ["One", "Two"]
    assert presets.rename(first.id, "Zebra").settings == first.settings
    assert [one.name for one in presets.all()] == ["Two", "Zebra"]
    assert presets.save("Two", build_config({"rank": 9}), instead=second.id).id == second.id
    assert presets.get(second.id).config().adapter.rank == 9
    presets.delete(first.id)
    assert [one.name for one in presets.all()] == ["Two"] and len(list((tmp_path / "presets").iterdir())) == 1
    for gone in (first.id, "preset-0", "../../etc/passwd", "", "preset-" + "0" * 16):
        for ask in (presets.get, presets.delete, lambda id_: presets.rename(id_, "x")):
            with pytest.raises(ConfigError, match="does not exist any more"):
                ask(gone)


@pytest.mark.parametrize(
    "name", ["", "   ", "x" * 81, "a\x07b", "a\u202eb", "one", "ONE", "Defaults", PRESETS["style"].title.upper()]
)
def test_names_that_are_not_legal_or_taken_are_told(presets: OwnPresets, name: str) -> None:
    saved = presets.save("One", build_config({}))
    with pytest.raises(ConfigError, match=r"Name of the preset: .*(must have 1 to 80|is taken)"):
        presets.save(name, build_config({}))
    assert presets.all() == [saved] and presets.rename(saved.id, "ONE").name == "ONE"


@pytest.mark.parametrize("name", ["../../x", "con", "a/b", "a.json", "<img src=x>", "猫", "a'b\"c"])
def test_any_printable_name_is_legal_since_it_is_no_file_name(presets: OwnPresets, tmp_path: Path, name: str) -> None:
    assert presets.save(name, build_config({})).name == name == presets.all()[0].name
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "presets"]


def test_there_are_at_most_so_many(presets: OwnPresets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_presets, "MOST", 2)
    presets.save("One", build_config({}))
    last = presets.save("Two", build_config({}))
    with pytest.raises(ConfigError, match="There are 2 presets; delete one first"):
        presets.save("Three", build_config({}))
    with pytest.raises(ConfigError, match="There are 2 presets; delete one first"):
        presets.receive(shared())
    assert presets.save("Other", build_config({}), instead=last.id).name == "Other"


def test_a_shared_file_is_the_same_preset_elsewhere(presets: OwnPresets, tmp_path: Path) -> None:
    saved = presets.save("猫", build_config(MINE))
    other = OwnPresets(tmp_path / "other")
    received = other.receive(saved.to_text().encode())
    assert (received.name, received.settings, received.left_out) == (saved.name, saved.settings, ())
    assert other.receive(saved.to_text().encode()).name == "猫 2" and len(other.all()) == 2
    assert other.receive(shared(name="Style")).name == "Style 2" and other.receive(shared(name=7)).name == "Preset"
    assert other.receive(shared(name="x" * 500)).name == "x" * 76


def test_what_is_not_used_of_a_shared_file_is_told(presets: OwnPresets) -> None:
    wrong = {
        "rank": "many",
        "batch_size": 10**9,
        "nosuch": 1,
        "data": ["/x"],
        "trigger": "ohwx",
        "optimizer": "os.path.Thing",
        "epochs": 7,
    }
    received = presets.receive(shared(settings=wrong))
    assert received.settings["epochs"] == 7 and received.config() == build_config({"epochs": 7})
    assert {problem.option for problem in received.left_out} == {"rank", "batch_size", "data", "trigger", "optimizer", ""}
    assert all(problem.endswith(".") for problem in received.left_out)
    assert "code of a package" in next(problem for problem in received.left_out if problem.option == "optimizer")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no readable JSON"), (b"\xff\xfe", "no readable JSON"), (b"[" * 100_000, "no readable JSON"), (b"[]", "no preset of"),
        (b'{"rank": 4}', "no preset of"), (shared(settings=[]), "no preset of"), (shared(train_lora_preset=2), "newer version"),
        (shared(name="x" * LONGEST_FILE), "larger than 256 KB"), (b'{"a": ' + b"9" * 5000 + b"}", "no readable JSON"),
        (b"NaN", "no readable JSON"), (b"null", "no preset of"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_file_that_is_none_is_one_sentence_and_saves_nothing(presets: OwnPresets, content: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        presets.receive(content)
    assert len(caught.value.problems) == 1 and presets.all() == []


def test_damaged_and_foreign_files_in_the_folder_are_passed_over(presets: OwnPresets, tmp_path: Path) -> None:
    saved = presets.save("One", build_config({}))
    folder = tmp_path / "presets"
    (folder / ("preset-" + "1" * 16 + ".json")).write_text("{")
    (folder / "other.json").write_bytes(shared())
    (tmp_path / "outside.json").write_bytes(shared())
    (folder / ("preset-" + "2" * 16 + ".json")).symlink_to(tmp_path / "outside.json")
    assert presets.all() == [saved]


def test_a_full_disk_changes_nothing(presets: OwnPresets, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = presets.save("One", build_config({"rank": 3}))

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(own_presets, "write_atomically", refuse)
    with pytest.raises(OSError, match="No space"):
        presets.rename(saved.id, "Two")
    with pytest.raises(OSError, match="No space"):
        presets.save("Three", build_config({}))
    assert presets.all() == [saved]


def test_two_pages_never_make_two_of_a_name(presets: OwnPresets) -> None:
    made: list[str] = []

    def save() -> None:
        with contextlib.suppress(ConfigError):
            made.append(presets.save("Same", build_config({})).id)

    threads = [threading.Thread(target=save) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 == len(presets.all())


def test_every_setting_of_a_preset_is_read_back_as_it_was() -> None:
    flat = {opt.name: opt.default for opt in all_options() if opt.declaration.set_by == "preset" and opt.default is not None}
    content = shared(settings={name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()})
    assert read_config(read_preset(content).settings)[1] == [] == list(read_preset(content).left_out)
