"""Exported zips: kohya's layout, byte for byte, and the way back."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lib_lora.data.decoder_process import Readers
from lib_lora.data.edits import FILE, ImageEdit
from lib_lora.data.sizes import Crop
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.datasets.zip_export import export_zip
from lib_lora.datasets.zips import import_zip
from lib_lora.errors import DatasetError


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "sets")


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with Readers() as pool:
        yield pool


def picture(seed: int, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 20, 3), dtype=np.uint8)).save(file, kind, **more)
    return file.getvalue()


def put(dataset: ImageSet, tmp_path: Path, name: str, content: bytes, folder: str = "") -> None:
    (tmp_path / "new").write_bytes(content)
    dataset.add(name, tmp_path / "new", folder)


def files_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def edit(dataset: ImageSet, name: str, **changes: Any) -> None:
    entry = next(entry for entry in dataset.entries()[0] if entry.name == name)
    dataset.change({entry.place: replace(entry.edit, **changes)}, "test")


def test_what_training_would_use_is_in_kohyas_layout(tmp_path: Path, catalogue: Catalogue, readers: Readers) -> None:
    cats = catalogue.create("ohwx: cat")
    for number, name in enumerate(("a.png", "b.jpg", "猫.webp", "out.png")):
        put(cats, tmp_path, name, picture(number, {"b": "JPEG", "猫": "WEBP"}.get(name[0], "PNG")))
    put(cats, tmp_path, "a.txt", b"from the file")
    put(cats, tmp_path, "b.txt", b"before")
    edit(cats, "b.jpg", caption="edited, 猫")
    edit(cats, "out.png", left_out=True)
    done = export_zip(cats, tmp_path / "out" / "a.zip", readers, 10)
    found = files_of(tmp_path / "out" / "a.zip")
    folder = "10_ohwx_ cat"
    assert found == {
        f"{folder}/a.png": picture(0), f"{folder}/a.txt": b"from the file", f"{folder}/b.jpg": picture(1, "JPEG"),
        f"{folder}/b.txt": "edited, 猫".encode(), f"{folder}/猫.webp": picture(2, "WEBP"),
    }  # fmt: skip
    assert done == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.zip"]
    assert next(iter(files_of_default(cats, tmp_path, readers))).startswith("1_ohwx_ cat/")


def files_of_default(dataset: ImageSet, tmp_path: Path, readers: Readers) -> dict[str, bytes]:
    export_zip(dataset, tmp_path / "default.zip", readers)
    return files_of(tmp_path / "default.zip")


def test_numbered_folders_keep_their_names(tmp_path: Path, catalogue: Catalogue, readers: Readers) -> None:
    cats = catalogue.create("cats")
    put(cats, tmp_path, "a.png", picture(1), "10_cat")
    put(cats, tmp_path, "a.png", picture(2), "3_ohwx dog")
    assert set(files_of_default(cats, tmp_path, readers)) == {"10_cat/a.png", "3_ohwx dog/a.png"}


def test_a_folder_on_the_disk_is_exported_with_collisions_resolved(
    tmp_path: Path, catalogue: Catalogue, readers: Readers
) -> None:
    """a.png and a.jpg share a caption file on the disk, and A.png is the same on some; here their captions differ."""
    mine = tmp_path / "mine"
    mine.mkdir()
    contents = {"a.png": picture(1), "a.jpg": picture(2, "JPEG"), "A.png": picture(3), "a-2.png": picture(4)}
    for name, content in contents.items():
        (mine / name).write_bytes(content)
    dataset = catalogue.create("mine", str(mine))
    for name in contents:
        edit(dataset, name, caption=f"caption of {name}")
    found = files_of_default(dataset, tmp_path, readers)
    images = {name: content for name, content in found.items() if not name.endswith(".txt")}
    assert sorted(images.values()) == sorted(contents.values())
    assert len({name.casefold().rpartition(".")[0] for name in images}) == 4
    names = {content: name for name, content in contents.items()}
    assert {names[content]: found[name.rpartition(".")[0] + ".txt"].decode() for name, content in images.items()} == {
        name: f"caption of {name}" for name in contents
    }
    again = catalogue.create("again")
    import_zip(tmp_path / "default.zip", "default.zip", again, readers)
    assert {names[entry.path.read_bytes()]: entry.caption for entry in again.entries()[0]} == {
        name: f"caption of {name}" for name in contents
    }


def test_crops_are_a_file_beside_or_applied(tmp_path: Path, catalogue: Catalogue, readers: Readers) -> None:
    cats = catalogue.create("cats")
    exif = Image.Exif()
    exif[0x0112] = 6
    content = picture(5, "JPEG", exif=exif, quality=95)
    put(cats, tmp_path, "a.jpg", content)
    put(cats, tmp_path, "b.png", picture(6))
    edit(cats, "a.jpg", crop=Crop(2, 3, 10, 17), cut=(0.25, 1.0), caption="turned")
    beside = files_of_default(cats, tmp_path, readers)
    assert beside["1_cats/a.jpg"] == content
    assert json.loads(beside[FILE])["images"] == {"1_cats/a.jpg": {"crop": [2, 3, 10, 17], "cut": [0.25, 1.0]}}
    again = catalogue.create("again")
    import_zip(tmp_path / "default.zip", "default.zip", again, readers)
    assert again.entries()[0][0].edit == ImageEdit(crop=Crop(2, 3, 10, 17), cut=(0.25, 1.0))

    export_zip(cats, tmp_path / "applied.zip", readers, apply_crops=True)
    applied = files_of(tmp_path / "applied.zip")
    assert set(applied) == {"1_cats/a.png", "1_cats/a.txt", "1_cats/b.png", FILE}
    part = Image.open(io.BytesIO(applied["1_cats/a.png"]))
    by_pillow = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).crop((2, 3, 10, 17))
    assert part.size == (8, 14) and np.array_equal(np.asarray(part), np.asarray(by_pillow)) and not part.getexif()
    assert json.loads(applied[FILE])["images"] == {"1_cats/a.png": {"cut": [0.25, 1.0]}}


def test_a_crop_beyond_the_image_is_one_sentence(tmp_path: Path, catalogue: Catalogue, readers: Readers) -> None:
    cats = catalogue.create("cats")
    put(cats, tmp_path, "a.png", picture(6))
    edit(cats, "a.png", crop=Crop(0, 0, 500, 10))
    with pytest.raises(DatasetError, match="'a.png': smaller than the part chosen"):
        export_zip(cats, tmp_path / "a.zip", readers, apply_crops=True)
    assert not list(tmp_path.glob("*.zip*"))


@pytest.mark.parametrize(
    "caption", ["", " ", "a\n\nb", "\ufeffa", "  a  ", "a\r\nb", "\n", "(tag:1.2), \\(escaped\\), 猫 🐱 قطة", "a\u2028b", "x\ty"]
)
def test_captions_come_back_byte_for_byte(caption: str, tmp_path: Path, catalogue: Catalogue, readers: Readers) -> None:
    assert comes_back(caption, tmp_path, catalogue, readers) == caption


def comes_back(caption: str, tmp_path: Path, catalogue: Catalogue, readers: Readers) -> str | None:
    """The caption of an image after its dataset was exported and imported, with the image as it was."""
    number = len(catalogue.all())
    cats, again = catalogue.create(f"cats {number}"), catalogue.create(f"again {number}")
    put(cats, tmp_path, "a.png", picture(1))
    cats.change_image(cats.entries()[0][0].id, {"caption": "something else"})
    cats.change_image(cats.entries()[0][0].id, {"caption": caption})
    export_zip(cats, tmp_path / "a.zip", readers)
    import_zip(tmp_path / "a.zip", "a.zip", again, readers)
    (before,), (after,) = cats.entries()[0], again.entries()[0]
    assert before.caption == caption and before.path.read_bytes() == after.path.read_bytes()
    return after.caption


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(caption=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80))
def test_any_caption_comes_back(caption: str, readers: Readers, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any")
    assert comes_back(caption, root, Catalogue(root / "sets"), readers) == caption


def test_equal_datasets_give_equal_zips(tmp_path: Path, catalogue: Catalogue, readers: Readers) -> None:
    cats = catalogue.create("cats")
    put(cats, tmp_path, "a.png", picture(1))
    for name in ("1.zip", "2.zip"):
        export_zip(cats, tmp_path / name, readers)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_nothing_to_export_is_a_sentence(tmp_path: Path, catalogue: Catalogue, readers: Readers) -> None:
    with pytest.raises(DatasetError, match="no images to export"):
        export_zip(catalogue.create("cats"), tmp_path / "a.zip", readers)


def test_a_full_disk_keeps_the_older_zip(
    tmp_path: Path, catalogue: Catalogue, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats = catalogue.create("cats")
    put(cats, tmp_path, "a.png", picture(1))
    target = tmp_path / "out" / "a.zip"
    export_zip(cats, target, readers)
    older = target.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(DatasetError, match="No space left on device"):
        export_zip(cats, target, readers)
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"] and target.read_bytes() == older


def test_large_images_are_not_held_in_memory(
    tmp_path: Path, catalogue: Catalogue, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    cats = catalogue.create("cats")
    for number in range(4):
        put(cats, tmp_path, f"{number}.png", picture(number) + bytes(16 * 2**20))
    tracemalloc.start()
    export_zip(cats, tmp_path / "a.zip", readers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20 and (tmp_path / "a.zip").stat().st_size > 64 * 2**20
