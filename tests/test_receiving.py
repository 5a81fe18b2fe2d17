"""Uploads in chunks: bounded, refused early, and never half there."""

from __future__ import annotations

import errno
import io
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_lora.data.decoder_process import Readers
from lib_lora.datasets import receiving
from lib_lora.datasets.arrivals import Arrivals
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.datasets.receiving import Receiving
from lib_lora.errors import DatasetError


@pytest.fixture
def cats(tmp_path: Path) -> ImageSet:
    return Catalogue(tmp_path / "sets").create("cats")


@pytest.fixture
def arrivals(cats: ImageSet) -> Iterator[Arrivals]:
    with Readers() as pool:
        yield Arrivals(cats, pool)


def picture(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


def chunks(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def left(dataset: ImageSet) -> list[str]:
    return sorted(path.name for path in dataset.folder.parent.rglob("*") if path.is_file())


NOTHING = ["train-lora-dataset.json"]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_chunks_of_any_size_give_the_file(size: int, arrivals: Arrivals) -> None:
    with Receiving(arrivals, "猫.png") as upload:
        for chunk in chunks(picture(), size):
            upload.write(chunk)
        assert upload.finish().images == ("猫.png",)
    (entry,), _ = arrivals.dataset.entries()
    assert entry.path.read_bytes() == picture()
    assert left(arrivals.dataset) == [*NOTHING, "猫.pn_"]


def test_a_broken_off_upload_leaves_nothing(arrivals: Arrivals) -> None:
    upload = Receiving(arrivals, "a.png")
    upload.write(picture()[:50])
    assert len(left(arrivals.dataset)) == 2
    upload.abandon()
    upload.abandon()
    assert left(arrivals.dataset) == NOTHING
    for after in (lambda: upload.write(b"x"), upload.finish):
        with pytest.raises(DatasetError, match="'a.png' has ended"):
            after()
    with pytest.raises(ConnectionError), Receiving(arrivals, "b.png") as upload:
        upload.write(picture()[:50])
        raise ConnectionError
    assert left(arrivals.dataset) == NOTHING


def test_what_will_not_be_used_is_refused_with_its_first_bytes(arrivals: Arrivals) -> None:
    upload = Receiving(arrivals, "film.png")
    with pytest.raises(DatasetError, match="videos"):
        upload.write(b"\0\0\0\x14ftypqt  ".ljust(64, b"\0"))
    assert left(arrivals.dataset) == NOTHING
    with pytest.raises(DatasetError, match="videos"):
        upload.finish()


def test_sizes_are_bounded_while_bytes_arrive(arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MAX_BYTES", 1000)
    monkeypatch.setattr(receiving, "MAX_ZIP_BYTES", 2000)
    for start, most in ((picture()[:100], 1000), (b"PK\x03\x04".ljust(100, b"\0"), 2000), (b"", 1000)):
        upload, sent = Receiving(arrivals, "a.png" if start else "a.txt"), 0
        with pytest.raises(DatasetError, match="larger than"):
            while True:
                sent += 100
                upload.write(start if sent == 100 and start else b"y" * 100)
        assert sent == most + 100 and left(arrivals.dataset) == NOTHING


def test_a_zip_is_unpacked(arrivals: Arrivals) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("10_cat/a.png", picture())
        archive.writestr("10_cat/a.txt", "a cat")
        archive.writestr("b.md", "x")
    with Receiving(arrivals, "all.zip") as upload:
        upload.write(file.getvalue())
        done = upload.finish()
    assert (done.images, done.captions, len(done.told)) == (("a.png",), 1, 1)
    assert left(arrivals.dataset) == ["a.pn_", "a.txt", *NOTHING]


def test_a_broken_zip_leaves_nothing(arrivals: Arrivals) -> None:
    with Receiving(arrivals, "all.zip") as upload, pytest.raises(DatasetError, match="Zip 'all.zip' is damaged"):
        upload.write(b"PK\x03\x04" + bytes(500))
        upload.finish()
    assert left(arrivals.dataset) == NOTHING


def test_an_empty_upload_names_itself(arrivals: Arrivals) -> None:
    with Receiving(arrivals, "a.png") as upload, pytest.raises(DatasetError, match="'a.png': empty"):
        upload.finish()
    assert left(arrivals.dataset) == NOTHING


def test_a_full_disk_is_one_sentence(arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = Receiving(arrivals, "a.png")
    upload._file.close()

    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    upload._file = Full()  # type: ignore[assignment]
    with pytest.raises(DatasetError, match="'a.png' cannot be stored .No space left on device"):
        upload.write(picture())
    assert left(arrivals.dataset) == NOTHING
    upload = Receiving(arrivals, "b.png")
    upload.write(picture())
    monkeypatch.setattr(ImageSet, "add", lambda *_: Full().write(b""))
    with pytest.raises(DatasetError, match="'b.png' cannot be stored"):
        upload.finish()
    assert left(arrivals.dataset) == NOTHING


def test_a_real_full_disk(arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no full device")
    upload = Receiving(arrivals, "a.png")
    upload._file.close()
    upload._file = Path("/dev/full").open("wb")  # noqa: SIM115
    with pytest.raises(DatasetError, match="No space left on device"):
        upload.write(picture())
        upload.finish()
    assert left(arrivals.dataset) == NOTHING


def test_a_dataset_that_takes_no_files_says_so_before_any_byte(tmp_path: Path, arrivals: Arrivals) -> None:
    (tmp_path / "mine").mkdir()
    theirs = Catalogue(tmp_path / "sets").create("theirs", str(tmp_path / "mine"))
    with pytest.raises(DatasetError, match="folder on the disk"):
        Receiving(Arrivals(theirs, arrivals.readers), "a.png")
    with pytest.raises(DatasetError, match="must have a name such as"):
        Receiving(arrivals, "a.png", "..")
    assert list((tmp_path / "mine").iterdir()) == []


def test_an_upload_goes_to_the_folder_that_is_chosen(arrivals: Arrivals) -> None:
    for folder in ("10_cat", "3_dog"):
        with Receiving(arrivals, "a.png", folder) as upload:
            upload.write(picture())
            upload.finish()
    assert [entry.place for entry in arrivals.dataset.entries()[0]] == ["10_cat/a.png", "3_dog/a.png"]


def test_what_a_killed_program_left_is_removed_when_it_is_old(arrivals: Arrivals) -> None:
    first = Receiving(arrivals, "a.png")
    folder = arrivals.dataset.folder.parent / "arriving"
    old = folder / ".upload-01234567.train-lora.tmp"
    old.write_bytes(b"x")
    unpacked = folder / ".zip-01234567.train-lora.tmp"
    unpacked.mkdir()
    (unpacked / "0").write_bytes(b"x")
    for path in (old, unpacked):
        os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
    Receiving(arrivals, "b.png").abandon()
    assert [path.name for path in folder.iterdir()] == [first._path.name]
    first.abandon()
