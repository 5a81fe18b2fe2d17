"""A folder on the disk: its files change with *Write captions to the folder*, and with nothing else."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_lora.data.captions import CaptionSource
from lib_lora.data.dataset import scan
from lib_lora.data.decoder_process import Readers
from lib_lora.data.sizes import Crop
from lib_lora.datasets import write_captions as room
from lib_lora.datasets.arrivals import Arrivals
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.datasets.receiving import Receiving
from lib_lora.datasets.write_captions import caption_plan, write_captions
from lib_lora.datasets.zip_export import export_zip
from lib_lora.datasets.zips import import_zip
from lib_lora.errors import DatasetError


def picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        (folder / f"{name}.png").write_bytes(picture(colour))
    (folder / "a.txt").write_bytes(b"before a\r\n")
    (folder / "b.caption").write_bytes(b"before b")
    return folder


@pytest.fixture
def dataset(mine: Path, tmp_path: Path) -> ImageSet:
    return Catalogue(tmp_path / "sets").create("mine", str(mine))


def say(dataset: ImageSet, **captions: str) -> None:
    for entry in dataset.entries()[0]:
        if Path(entry.name).stem in captions:
            dataset.change_image(entry.id, {"caption": captions[Path(entry.name).stem]})


def hashed(folder: Path) -> dict[str, tuple[str, int]]:
    """Name -> hash and time of change, of all that is in a folder."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_only_texts_that_differ_are_written(mine: Path, dataset: ImageSet) -> None:
    say(dataset, a="after a, 猫", b="after b")
    before = hashed(mine)
    plan = caption_plan(dataset)
    assert [(write.path.name, write.text) for write in plan.writes] == [("a.txt", "after a, 猫"), ("b.txt", "after b")]
    assert hashed(mine) == before and plan.told == ()
    assert write_captions(dataset) == plan
    after = hashed(mine)
    assert {name: after[name] for name in before if name != "a.txt"} == {name: before[name] for name in before if name != "a.txt"}
    assert set(after) - set(before) == {"a.txt.bak", "b.txt"}
    assert (mine / "a.txt").read_text("utf-8") == "after a, 猫" and (mine / "a.txt.bak").read_bytes() == b"before a\r\n"
    assert write_captions(dataset).writes == () and hashed(mine) == after
    found = scan([str(mine)], captions=CaptionSource(), repeats=1)
    assert [sample.caption for sample in found.samples[:2]] == ["after a, 猫", "after b"]


def test_the_first_copy_is_kept_for_ever(mine: Path, dataset: ImageSet) -> None:
    for text in ("one", "two", "three"):
        say(dataset, a=text)
        write_captions(dataset)
        assert (mine / "a.txt").read_bytes() == text.encode()
    assert (mine / "a.txt.bak").read_bytes() == b"before a\r\n" and not (mine / "a.txt.bak.bak").exists()


def test_an_edit_back_to_the_files_text_writes_nothing(mine: Path, dataset: ImageSet) -> None:
    say(dataset, a="x")
    say(dataset, a="before a")
    before = hashed(mine)
    assert write_captions(dataset).writes == () and hashed(mine) == before


def test_an_emptied_caption_empties_its_file_and_makes_none(mine: Path, dataset: ImageSet) -> None:
    say(dataset, a="", c="x")
    say(dataset, c="")
    write_captions(dataset)
    assert (mine / "a.txt").read_bytes() == b"" and not (mine / "c.txt").exists()


def test_a_file_that_is_no_text_is_kept_beside(mine: Path, dataset: ImageSet) -> None:
    (mine / "a.txt").write_bytes(b"\xff\xfe\x00")
    say(dataset, a="new")
    write_captions(dataset)
    assert (mine / "a.txt").read_bytes() == b"new" and (mine / "a.txt.bak").read_bytes() == b"\xff\xfe\x00"


def test_another_extension(mine: Path, dataset: ImageSet) -> None:
    say(dataset, b="after b")
    assert [write.path.name for write in caption_plan(dataset, ".caption").writes] == ["b.caption"]
    before = hashed(mine)
    for wrong in (".png", "txt", "/../x", ".bak", ".t/t", "", ".JPG", ".heic", ".json"):
        with pytest.raises(DatasetError, match="Caption extension"):
            write_captions(dataset, wrong)
    assert hashed(mine) == before


def test_two_images_that_share_a_file(mine: Path, dataset: ImageSet) -> None:
    Image.new("RGB", (40, 30)).save(mine / "a.jpg")
    entries = {entry.name: entry for entry in dataset.entries()[0]}
    dataset.change_image(entries["a.jpg"].id, {"caption": "one"})
    before = hashed(mine)
    plan = write_captions(dataset)
    assert plan.writes == () and "'a.jpg', 'a.png' share 'a.txt'" in plan.told[0] and hashed(mine) == before
    dataset.change_image(entries["a.png"].id, {"caption": "one"})
    assert [write.path.name for write in write_captions(dataset).writes] == ["a.txt"]


def test_links_out_of_the_folder_are_not_followed(mine: Path, dataset: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("outside")
    say(dataset, c="inside")
    (mine / "c.txt").symlink_to(tmp_path / "outside.txt")
    plan = write_captions(dataset)
    assert plan.writes == () and any("'c.txt' is a link out" in told for told in plan.told)
    assert (tmp_path / "outside.txt").read_text() == "outside" and (mine / "c.txt").is_symlink()


@pytest.mark.parametrize("what", ["write_atomically", "copy_whole"])
def test_a_disk_that_refuses_is_one_sentence(what: str, mine: Path, dataset: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    say(dataset, a="after a", b="after b", c="after c")

    def full(path: Path, *more: Any) -> None:
        if path.name in ("a.txt", "b.txt"):
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(*more)

    before = hashed(mine)
    monkeypatch.setattr(room, what, full)
    with pytest.raises(DatasetError, match="'a.txt' cannot be written .No space left on device.; 0 of 3 were"):
        write_captions(dataset)
    assert {name: value for name, value in hashed(mine).items() if name != "a.txt.bak"} == before


def test_a_private_dataset_has_no_folder_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folder on the disk; export"):
        caption_plan(Catalogue(tmp_path / "sets").create("cats"))


def all_operations(dataset: ImageSet, tmp_path: Path, readers: Readers) -> list[Callable[[], Any]]:
    """Whatever the page can do to a dataset, except the button."""
    catalogue = Catalogue(tmp_path / "sets")
    entries = dataset.entries()[0]

    def refused(act: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            with pytest.raises(DatasetError):
                act()

        return run

    (tmp_path / "new").write_bytes(picture("white"))
    return [
        dataset.entries, lambda: dataset.change_image(entries[0].id, {"caption": "new"}), lambda: dataset.remove(entries[1].id),
        lambda: dataset.change({entry.place: replace(entry.edit, crop=Crop(0, 0, 9, 9), cut=(0, 1)) for entry in entries}, "crop"),
        lambda: dataset.change({entry.place: replace(entry.edit, left_out=True) for entry in entries[:2]}, "leave out"),
        dataset.undo, dataset.undo, lambda: caption_plan(dataset), refused(lambda: dataset.add("n.png", tmp_path / "new")),
        refused(lambda: Receiving(Arrivals(dataset, readers), "n.png")), lambda: export_zip(dataset, tmp_path / "out.zip", readers),
        lambda: export_zip(dataset, tmp_path / "cropped.zip", readers, apply_crops=True),
        refused(lambda: import_zip(tmp_path / "out.zip", "out.zip", dataset, readers)),
        lambda: import_zip(tmp_path / "out.zip", "out.zip", catalogue.create("other"), readers),
        lambda: scan([str(dataset.folder)], captions=CaptionSource(), repeats=1), lambda: catalogue.rename(dataset.id, "another"),
        lambda: catalogue.duplicate(dataset.id, "copy"), lambda: catalogue.delete(dataset.id),
    ]  # fmt: skip


def test_nothing_else_writes_into_the_folder(mine: Path, dataset: ImageSet, tmp_path: Path) -> None:
    before = hashed(mine)
    with Readers() as readers:
        for act in all_operations(dataset, tmp_path, readers):
            act()
            assert hashed(mine) == before
    assert before and not dataset.folder.exists()
