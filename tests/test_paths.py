"""PATH|N is read by one rule, and files are linked or copied by one function."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib_lora.data.folders import FolderSearch
from lib_lora.files.atomic import link_or_copy
from lib_lora.jobs.queue_store import Store
from lib_lora.kohya.export import _folders
from lib_lora.paths import split_repeats
from tests.conftest import write_picture


@pytest.mark.parametrize(
    ("entry", "path", "number"),
    [
        ("{0}/cat|5", "{0}/cat", "5"),
        (' "{0}/cat"|5 ', "{0}/cat", "5"),
        ("{0}/cat", "{0}/cat", None),
        ("{0}/a|5", "{0}/a|5", None),
        ("{0}/a|5|6", "{0}/a|5", "6"),
        ("{0}/none|x", "{0}/none", "x"),
    ],
)
def test_repeats_behind_a_path(entry: str, path: str, number: str | None, tmp_path: Path) -> None:
    """A bar in a folder's own name is no sign; spaces and quotation marks go."""
    for name in ("cat", "a|5"):
        write_picture(tmp_path / name / "a.png")
    wanted = Path(path.format(tmp_path))
    assert split_repeats(entry.format(tmp_path)) == (str(wanted), number)
    found = list(FolderSearch("Images", 1, [], []).folders(entry.format(tmp_path)))
    exported = _folders(entry.format(tmp_path), 1)
    assert [(folder.path, folder.repeats) for folder in exported] == [(wanted, int(number) if number and number != "x" else 1)]
    assert not found or [folder.path for folder in found] == [wanted]
    assert Store(tmp_path).owns(entry.format(tmp_path))


def test_a_link_or_a_whole_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100)
    link_or_copy(source, tmp_path / "linked")
    assert (tmp_path / "linked").stat().st_ino == source.stat().st_ino

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(str(source), str(tmp_path / "copied"))
    assert (tmp_path / "copied").read_bytes() == source.read_bytes()
    assert (tmp_path / "copied").stat().st_ino != source.stat().st_ino

    def half(_: object, target: Path) -> None:
        target.write_bytes(b"x")
        raise OSError("full")

    monkeypatch.setattr("shutil.copyfile", half)
    with pytest.raises(OSError, match="full"):
        link_or_copy(source, tmp_path / "third")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied", "linked", "source"]
