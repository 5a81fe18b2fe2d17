"""Captions beside images are read once, and again as soon as anybody has changed their files."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib_lora.data.hidden_names import given_stem, suffix_of
from lib_lora.datasets import caption_files
from lib_lora.datasets.caption_files import CaptionFiles
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from tests.conftest import write_picture

TICK_S = 0.02  # longer than the steps in which the disk's clock goes


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The names of the images whose caption files were opened; files count as settled after TICK_S of the disk's clock.

    That clock stands still for a while on a busy machine, and then goes on.
    """
    names: list[str] = []
    monkeypatch.setattr(caption_files, "time", SimpleNamespace(time_ns=lambda: disk_time(tmp_path)))
    read = caption_files._read
    monkeypatch.setattr(caption_files, "_read", lambda image, root: (names.append(image.name), read(image, root))[1])
    monkeypatch.setattr(caption_files, "SETTLED_NS", int(TICK_S * 1e9))
    yield names


def disk_time(tmp_path: Path) -> int:
    """What the disk's clock says, in ns."""
    probe = tmp_path / "clock"
    probe.write_bytes(b"x")
    return probe.stat().st_mtime_ns


def settle(tmp_path: Path) -> None:
    """Wait until all files that are there count as settled."""
    until = disk_time(tmp_path) + int(1.5 * TICK_S * 1e9)
    while disk_time(tmp_path) < until:
        time.sleep(TICK_S / 4)


def folder_of(tmp_path: Path, count: int = 3) -> ImageSet:
    """A dataset of a folder on the disk."""
    photos = tmp_path / "photos"
    for number in range(count):
        write_picture(photos / f"{number}.png", 8, 8, seed=number)
        (photos / f"{number}.txt").write_text(f"photo {number}")
    return Catalogue(tmp_path / "sets").create("photos", str(photos))


def captions(dataset: ImageSet) -> dict[str, str | None]:
    return {entry.name: entry.caption for entry in dataset.entries()[0]}


def anew(dataset: ImageSet) -> tuple[dict[str, str | None], list[str]]:
    """Captions and problems as a webui that was just started finds them."""
    fresh = ImageSet(dataset.id, dataset.folder, dataset.looked)
    return captions(fresh), fresh.entries()[1]


def test_captions_that_did_not_change_are_read_once(opened: list[str], tmp_path: Path) -> None:
    dataset = folder_of(tmp_path)
    settle(tmp_path)
    assert captions(dataset) == {f"{number}.png": f"photo {number}" for number in range(3)} and len(opened) == 3
    assert captions(dataset) == anew(dataset)[0] and len(opened) == 3 + 3, "the new one reads them once, too"
    (tmp_path / "photos" / "1.txt").write_text("other")
    assert captions(dataset)["1.png"] == "other" and opened[6:] == ["1.png"]


def test_what_was_just_written_is_read_again(opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second change within a tick of the disk's clock does not show in the file's times: here that clock stands still."""
    dataset = folder_of(tmp_path, 1)
    photos = tmp_path / "photos"
    still = caption_files._states(photos / "0.png")
    assert still is not None and still[0] is not None
    monkeypatch.setattr(caption_files, "_states", lambda image: still)
    now = still[0].mtime_ns + caption_files.SETTLED_NS
    monkeypatch.setattr(caption_files, "time", SimpleNamespace(time_ns=lambda: now))
    for text in ("aaaa", "bbbb", "cccc"):
        (photos / "0.txt").write_text(text)
        assert captions(dataset) == {"0.png": text}
    now += 1  # the file is as old as it must be, and what it says is kept from the next look on
    assert captions(dataset) == {"0.png": "cccc"}
    (photos / "0.txt").write_text("dddd")
    assert captions(dataset) == {"0.png": "cccc"}, "which nobody could see; no disk's clock stands still for so long"


def test_a_time_that_was_set_back_hides_no_change(opened: list[str], tmp_path: Path) -> None:
    dataset = folder_of(tmp_path, 1)
    caption = tmp_path / "photos" / "0.txt"
    settle(tmp_path)
    before = caption.stat()
    assert captions(dataset) == {"0.png": "photo 0"}
    caption.write_text("photo 9")
    os.utime(caption, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert caption.stat().st_size == before.st_size and caption.stat().st_mtime_ns == before.st_mtime_ns
    assert captions(dataset) == {"0.png": "photo 9"}


def test_links_are_followed_anew_each_time(opened: list[str], tmp_path: Path) -> None:
    dataset = folder_of(tmp_path, 1)
    inside, outside = tmp_path / "photos" / "said.md", tmp_path / "secret.txt"
    inside.write_text("inside")
    outside.write_text("secret")
    caption = tmp_path / "photos" / "0.txt"
    caption.unlink()
    caption.symlink_to(inside)
    settle(tmp_path)
    assert [captions(dataset)["0.png"] for _ in range(2)] == ["inside", "inside"] and len(opened) == 2
    inside.unlink()
    inside.symlink_to(outside)
    (entry,), told = dataset.entries()
    assert entry.caption is None and "link out of" in " ".join(told)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_others_do_the_answer_is_that_of_a_first_look(seed: int, opened: list[str], tmp_path: Path) -> None:
    dataset, chance = folder_of(tmp_path, 4), random.Random(seed)
    photos = tmp_path / "photos"

    def change() -> None:
        path = photos / f"{chance.randrange(4)}{chance.choice(['.txt', '.caption', '.png'])}"
        kind = chance.choice(["write", "write", "remove", "swap", "damage", "make"])
        if kind == "make" or not path.exists():
            write_picture(photos / f"{path.stem}.png", 8, 8, seed=chance.randrange(99))
        elif kind == "remove":
            path.unlink()
        elif kind == "swap":
            other = photos / f"{chance.randrange(4)}{path.suffix}"
            other.replace(path) if other.exists() else None
        elif path.suffix != ".png":
            path.write_bytes(b"\xff\xfe" if kind == "damage" else f"text {chance.randrange(10)}".encode())

    for _ in range(60):
        change()
        if chance.random() < 0.3:
            settle(tmp_path)
        known = captions(dataset), dataset.entries()[1]
        assert known == anew(dataset)


def test_only_images_that_are_there_are_remembered(opened: list[str], tmp_path: Path) -> None:
    dataset = folder_of(tmp_path, 4)
    settle(tmp_path)
    captions(dataset)
    known = dataset._caption_files
    assert isinstance(known, CaptionFiles) and len(known._kept) == 4
    (tmp_path / "photos" / "2.png").unlink()
    captions(dataset)
    assert {path.name for path in known._kept} == {"0.png", "1.png", "3.png"}


@pytest.mark.parametrize(
    "name", ["a.png", ".png", "a.", "..png", "a.tar.gz", "a", ".", "..", "...", "a.b.", ".a.b", "猫.JPG", " .x", "a. "]
)
def test_suffixes_are_those_of_pathlib(name: str) -> None:
    assert suffix_of(name) == Path(name).suffix
    assert given_stem(Path(name)) == Path(name).stem
