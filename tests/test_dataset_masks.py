"""Masks of named datasets: what training sees of them, and that jobs, zips, Undo and states carry them."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_lora.check import find_images
from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.data.augmentation import PLAIN
from lib_lora.data.dataset import Dataset
from lib_lora.data.decoder_process import Readers
from lib_lora.data.edits import MASKS, edits_in
from lib_lora.data.example import Example, load_example
from lib_lora.data.sizes import Crop
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.datasets.masks import KEPT_S, MaskUpload, make_mask, mask_from_transparency, mask_of, remove_mask
from lib_lora.datasets.zip_export import export_zip
from lib_lora.datasets.zips import import_zip
from lib_lora.errors import DatasetError, Problem
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_store import Store
from lib_lora.plan import make_plan
from lib_lora.training.resume import data_fingerprint
from lib_lora.ui.report import plan_html
from tests.conftest import write_picture

WIDTH, HEIGHT = 160, 96


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / ".private" / "datasets")


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with Readers() as made:
        yield made


@pytest.fixture
def cats(catalogue: Catalogue, tmp_path: Path) -> ImageSet:
    """Two images of random noise."""
    return filled(catalogue, tmp_path, "cats", 2)


def filled(catalogue: Catalogue, tmp_path: Path, name: str, count: int) -> ImageSet:
    dataset = catalogue.create(name)
    for number in range(count):
        picture = write_picture(tmp_path / "up" / f"{name}-{number}.png", WIDTH, HEIGHT, seed=number)
        dataset.add(f"{name}-{number}.png", picture)
    return dataset


def grey(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A mask with every grey."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))


def paint(dataset: ImageSet, place: int, mask: Image.Image, readers: Readers, kind: str = "PNG") -> None:
    content = io.BytesIO()
    mask.save(content, kind)
    with MaskUpload(dataset) as upload:
        for start in range(0, len(content.getvalue()), 1000):
            upload.write(content.getvalue()[start : start + 1000])
        upload.finish(dataset, ids(dataset)[place], readers)


def ids(dataset: ImageSet) -> list[str]:
    return [entry.id for entry in dataset.entries()[0]]


def masks_in(dataset: ImageSet) -> list[Path]:
    return sorted((dataset.folder / MASKS).iterdir())


def config(*folders: Path | str, **more: Any) -> TrainConfig:
    flat = {
        "data": [str(folder) for folder in folders],
        "trigger": "ohwx",
        "resolution": 64,
        "min_bucket_reso": 64,
        "masked_loss": True,
    }
    return build_config({"name": "x", "enable_bucket": False, **flat, **more})


def seen(dataset: Dataset, index: int, settings: TrainConfig) -> Example:
    assert dataset.problems == ()
    plan = make_plan(settings, dataset)
    return load_example(settings.data, plan.samples[index], plan.placements[index], PLAIN)


@pytest.mark.parametrize("crop", [None, Crop(8, 0, 136, 64)])
def test_training_sees_the_mask_that_was_painted(crop: Crop | None, cats: ImageSet, readers: Readers) -> None:
    """Pixel for pixel if nothing is scaled, with the crop of the image; the image without a mask is learned whole."""
    mask = grey()
    paint(cats, 1, mask.convert("RGB"), readers)
    cats.change_image(ids(cats)[1], {"crop": crop or Crop(0, 0, WIDTH, 64)})
    settings = config(cats.folder)
    dataset = find_images(settings)
    shown = seen(dataset, 1, settings).mask
    left = (136 + 8) // 2 - 32 if crop else 48
    assert shown is not None and np.array_equal(shown, np.asarray(mask)[:64, left : left + 64])
    whole = seen(dataset, 0, settings).mask
    assert whole is not None and (whole == 255).all()
    assert [sample.mask is None for sample in dataset.samples] == [True, False]


def test_a_scaled_mask_is_that_of_pillow(cats: ImageSet, readers: Readers, tmp_path: Path) -> None:
    """At half size, where a pixel is the mean of 2 by 2."""
    cats.add("large.png", write_picture(tmp_path / "large.png", 320, 160, seed=9))
    mask = grey(1, 320, 160)
    paint(cats, 2, mask, readers)
    cats.change_image(ids(cats)[2], {"crop": Crop(20, 32, 300, 160)})
    settings = config(cats.folder)
    shown = seen(find_images(settings), 2, settings).mask
    small = np.asarray(mask.crop((20, 32, 300, 160)).resize((140, 64), Image.Resampling.BOX)).astype(int)
    assert shown is not None and np.abs(shown - small[:, 38:102]).max() <= 1


def test_a_turned_photo_has_an_upright_mask(catalogue: Catalogue, tmp_path: Path, readers: Readers) -> None:
    dataset, exif = catalogue.create("turned"), Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "up.jpg"
    Image.new("RGB", (128, 64), "red").save(path, exif=exif)
    dataset.add("a.jpg", path)
    with pytest.raises(DatasetError, match="is 128x64, but its image is 64x128; make them the same size"):
        paint(dataset, 0, grey(0, 128, 64), readers)
    mask = grey(0, 64, 128)
    paint(dataset, 0, mask, readers)
    settings = config(dataset.folder)
    shown = seen(find_images(settings), 0, settings).mask
    assert shown is not None and np.array_equal(shown, np.asarray(mask)[32:96])


def test_masks_are_used_by_masked_loss_alone_and_told_otherwise(cats: ImageSet, readers: Readers, tmp_path: Path) -> None:
    none = find_images(config(cats.folder)).problems
    assert [problem.option for problem in none if isinstance(problem, Problem)] == [
        "masked_loss"
    ] and "paint one in Images" in none[0]
    paint(cats, 0, grey(), readers)
    off = find_images(config(cats.folder, masked_loss=False))
    assert all(sample.mask is None for sample in off.samples) and off.problems == ()
    assert off.notes == ("Masks painted in Images (1) are not used: Mask images (masked_loss) is off.",)
    for number in range(2):
        (tmp_path / "masks").mkdir(exist_ok=True)
        grey(9).save(tmp_path / "masks" / f"cats-{number}.png")
    folder = find_images(config(cats.folder, mask_data=str(tmp_path / "masks")))
    assert {sample.mask and sample.mask.parent.name for sample in folder.samples} == {"masks"} and folder.problems == ()
    assert folder.notes == ("Masks painted in Images (1) are not used: Mask folder (mask_data) is used instead.",)


def test_the_report_tells_how_many_images_have_a_mask_and_their_share(cats: ImageSet, readers: Readers) -> None:
    half = Image.new("L", (WIDTH, HEIGHT), 0)
    half.paste(255, (0, 0, WIDTH // 2, HEIGHT))
    paint(cats, 0, half, readers)
    settings = config(cats.folder)
    assert "1 of 2 images has a mask; it covers 50 %" in plan_html(make_plan(settings, find_images(settings)))
    paint(cats, 1, Image.new("L", (WIDTH, HEIGHT), 255), readers)
    cats.change_image(ids(cats)[0], {"crop": Crop(40, 0, 120, HEIGHT)})
    cats.change_image(ids(cats)[1], {"crop": Crop(0, 0, 80, HEIGHT)})
    assert make_plan(settings, find_images(settings)).masks == "2 of 2 images have a mask; they cover 75 % on average"
    cats.change_image(ids(cats)[0], {"crop": Crop(80, 0, 160, HEIGHT)})
    assert "they cover 50 % on average" in make_plan(settings, find_images(settings)).masks
    assert [entry.edit.mask and entry.edit.mask.covered for entry in cats.entries()[0]] == [0.5, 1.0]
    plain = config(cats.folder, masked_loss=False)
    assert "mask;" not in plan_html(make_plan(plain, find_images(plain)))


def test_a_job_keeps_the_masks_it_was_given(cats: ImageSet, readers: Readers, tmp_path: Path) -> None:
    """Also those of a dataset that is painted anew, or deleted; and a regularisation dataset goes with it."""
    mask = grey()
    paint(cats, 0, mask, readers)
    catalogue = Catalogue(tmp_path / ".private" / "datasets")
    dogs = filled(catalogue, tmp_path, "dog", 1)
    paint(dogs, 0, grey(2), readers)
    store = Store(tmp_path / ".queue", tmp_path / ".private")
    entry = Entry("job", {"data": [str(cats.folder)], "reg_data": [str(dogs.folder)]}, queued=0.0)
    taken = store.add(entry).settings
    paint(cats, 0, grey(5), readers)
    catalogue.delete(cats.id)
    catalogue.delete(dogs.id)
    settings = config(*taken["data"], reg_data=taken["reg_data"])
    dataset = find_images(settings)
    assert dataset.problems == () and [sample.caption for sample in dataset.samples] == ["ohwx", "ohwx", "dog"]
    assert dataset.samples[2].mask is None, "regularisation images are learned whole"
    assert dataset.samples[0].mask is not None and dataset.samples[0].mask.is_relative_to(tmp_path / ".queue")
    with Image.open(dataset.samples[0].mask) as kept:
        assert np.array_equal(np.asarray(kept), np.asarray(mask))


def test_a_state_knows_the_masks(cats: ImageSet, readers: Readers) -> None:
    def fingerprint() -> str:
        settings = config(cats.folder)
        return data_fingerprint(make_plan(settings, find_images(settings)))

    paint(cats, 0, grey(), readers)
    first = fingerprint()
    paint(cats, 0, grey(), readers)
    assert fingerprint() == first
    paint(cats, 0, grey(1), readers)
    assert fingerprint() != first
    cats.undo()
    assert fingerprint() == first


def test_undo_brings_each_mask_back(cats: ImageSet, readers: Readers) -> None:
    first, second = grey(), grey(1)
    paint(cats, 0, first, readers)
    paint(cats, 0, second, readers)
    remove_mask(cats, ids(cats)[0])
    assert mask_of(cats.entries()[0][0]) is None and cats.undoable == "mask of cats-0.png"
    for wanted in (second, first):
        cats.undo()
        path = mask_of(cats.entries()[0][0])
        assert path is not None and np.array_equal(np.asarray(Image.open(path)), np.asarray(wanted))
    cats.undo()
    assert mask_of(cats.entries()[0][0]) is None and cats.edits.images == {}


def test_masks_that_nobody_names_go_after_a_day(cats: ImageSet, readers: Readers, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        paint(cats, 0, grey(seed), readers)
    old = time.time() - KEPT_S - 60
    for path in masks_in(cats):
        os.utime(path, (old, old))
    remove_mask(cats, ids(cats)[0])
    assert len(masks_in(cats)) == 3, "Undo brings these back"
    again = Catalogue(tmp_path / ".private" / "datasets").get(cats.id)
    paint(again, 0, grey(3), readers)
    assert len(masks_in(again)) == 1


def test_masks_are_no_images_and_not_served(cats: ImageSet, readers: Readers) -> None:
    paint(cats, 0, grey(), readers)
    assert len(cats.entries()[0]) == 2 and [path.suffix for path in masks_in(cats)] == [".pn_"]
    for image in ids(cats):
        cats.remove(image)
    assert cats.is_empty()


def test_masks_that_need_no_painting(cats: ImageSet, readers: Readers, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8))
    picture.save(tmp_path / "clear.png")
    cats.add("clear.png", tmp_path / "clear.png")
    clear, plain = (next(e.id for e in cats.entries()[0] if e.name == name) for name in ("clear.png", "cats-0.png"))
    alpha = np.asarray(picture.getchannel("A"))

    def made(image: str, how: str) -> Any:
        make_mask(cats, image, how, readers)
        path = mask_of(cats.entry(image))
        assert path is not None
        return np.asarray(Image.open(path))

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(mask_from_transparency(cats, clear, readers)))), alpha)
    assert cats.entry(clear).edit.mask is None, "asking stores nothing"
    assert np.array_equal(made(clear, "transparency"), alpha) and np.array_equal(made(clear, "inverted"), 255 - alpha)
    with pytest.raises(DatasetError, match="'cats-0.png' has no mask; paint one first"):
        make_mask(cats, plain, "inverted", readers)
    with pytest.raises(DatasetError, match="'cats-0.png' has no transparent part; paint its mask"):
        make_mask(cats, plain, "transparency", readers)
    assert (made(plain, "filled") == 255).all()
    with pytest.raises(DatasetError, match="would be black everywhere"):
        make_mask(cats, plain, "inverted", readers)
    assert cats.entry(plain).edit.mask is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a readable PNG"),
        (b"<html>", "is not a readable PNG"),
        ("cut", "is not a readable PNG"),
        ("small", "make them the same size"),
    ],
)
def test_a_mask_that_does_not_fit_changes_nothing(content: Any, said: str, cats: ImageSet, readers: Readers) -> None:
    written = io.BytesIO()
    grey(0, *((8, 8) if content == "small" else (WIDTH, HEIGHT))).save(written, "PNG")
    kinds = {"cut": written.getvalue()[:-4000], "small": written.getvalue()}
    before = edits_in(cats.folder)
    with MaskUpload(cats) as upload:
        upload.write(kinds[content] if isinstance(content, str) else content)
        with pytest.raises(DatasetError, match=said) as told:
            upload.finish(cats, ids(cats)[0], readers)
    assert len(told.value.problems) == 1 and edits_in(cats.folder) == before
    assert not (cats.folder / MASKS).exists() and list((cats.folder.parent / "arriving").iterdir()) == []


def test_a_mask_is_bounded_while_it_arrives(cats: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib_lora.datasets.masks.MAX_BYTES", 2**20)
    with MaskUpload(cats) as upload, pytest.raises(DatasetError, match="larger than 1 MB; it was not saved"):
        for _ in range(2**8):
            upload.write(bytes(2**13))
    assert list((cats.folder.parent / "arriving").iterdir()) == []


def test_a_lost_or_foreign_mask_is_one_sentence(cats: ImageSet, readers: Readers, tmp_path: Path) -> None:
    paint(cats, 0, grey(), readers)
    masks_in(cats)[0].write_bytes(b"x")
    assert find_images(config(cats.folder)).problems == ("The mask of 'cats-0.png' cannot be read; paint it again.",)
    masks_in(cats)[0].unlink()
    problems = find_images(config(cats.folder)).problems
    assert len(problems) == 1 and "The mask of 'cats-0.png' cannot be read (No such file" in problems[0]
    file = cats.folder / "train-lora-dataset.json"
    plain = json.loads(file.read_text())
    for illegal in (["../../x.pn_", 1], ["a" * 32 + ".pn_", 2], ["x"], 3):
        plain["images"]["cats-0.png"]["mask"] = illegal
        file.write_text(json.dumps(plain))
        with pytest.raises(DatasetError, match="is damaged"):
            edits_in(cats.folder)


def test_masks_of_a_folder_on_the_disk_lie_in_the_dataset(catalogue: Catalogue, tmp_path: Path, readers: Readers) -> None:
    photos = tmp_path / "photos"
    write_picture(photos / "3_cat" / "a.png", WIDTH, HEIGHT)
    dataset = catalogue.create("cats", str(photos))
    mask = grey()
    paint(dataset, 0, mask, readers)
    assert sorted(path.name for path in photos.rglob("*")) == ["3_cat", "a.png"]
    settings = config(dataset.folder)
    found = find_images(settings).samples[0].mask
    assert found is not None and np.array_equal(np.asarray(Image.open(found)), np.asarray(mask))
    copy = catalogue.duplicate(dataset.id, "again")
    catalogue.delete(dataset.id)
    found = find_images(config(copy.folder)).samples[0].mask
    assert found is not None and np.array_equal(np.asarray(Image.open(found)), np.asarray(mask))


def test_a_zip_carries_masks(cats: ImageSet, catalogue: Catalogue, readers: Readers, tmp_path: Path) -> None:
    """In a folder that also serves as Mask folder; with crops applied, those of the parts."""
    mask = grey()
    paint(cats, 1, mask, readers)
    cats.change_image(ids(cats)[1], {"crop": Crop(10, 0, 90, 70)})
    export_zip(cats, tmp_path / "out.zip", readers)
    with zipfile.ZipFile(tmp_path / "out.zip") as file:
        packed = Image.open(io.BytesIO(file.read("masks/1_cats/cats-1.png")))
        assert [name for name in file.namelist() if name.startswith("masks")] == ["masks/1_cats/cats-1.png"]
        assert np.array_equal(np.asarray(packed), np.asarray(mask))
    again = catalogue.create("again")
    imported = import_zip(tmp_path / "out.zip", "out.zip", again, readers)
    assert imported.told == () and len(imported.names) == 2
    assert [entry.edit for entry in again.entries()[0]] == [entry.edit for entry in cats.entries()[0]] and again.entries()[0][
        1
    ].edit.mask is not None
    settings = config(again.folder)
    assert np.array_equal(seen(find_images(settings), 1, settings).mask, seen(find_images(config(cats.folder)), 1, settings).mask)
    export_zip(cats, tmp_path / "cut.zip", readers, apply_crops=True)
    with zipfile.ZipFile(tmp_path / "cut.zip") as file:
        packed = Image.open(io.BytesIO(file.read("masks/1_cats/cats-1.png")))
        assert np.array_equal(np.asarray(packed), np.asarray(mask.crop((10, 0, 90, 70))))


def test_a_mask_of_a_zip_that_does_not_fit_is_told(catalogue: Catalogue, readers: Readers, tmp_path: Path) -> None:
    def png(picture: Image.Image) -> bytes:
        content = io.BytesIO()
        picture.save(content, "PNG")
        return content.getvalue()

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("a", "b"):
            file.writestr(f"x/5_cat/{name}.png", png(grey()))
        file.writestr("x/masks/5_cat/a.png", png(grey(0, 8, 8)))
        file.writestr("x/Masks/5_cat/b.jpg", png(grey(1)))
    into = catalogue.create("cats")
    told = import_zip(tmp_path / "a.zip", "a.zip", into, readers).told
    assert told == ("'a.png': its mask cannot be read, is black or of another size, so it is learned whole.",)
    assert [entry.edit.mask is not None for entry in into.entries()[0]] == [False, True]
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("masks/5_cat/a.png", png(grey()))
    assert len(import_zip(tmp_path / "b.zip", "b.zip", catalogue.create("x"), readers).names) == 1, (
        "images in a folder of this name"
    )


def test_regularisation_images_without_captions_have_the_datasets_name(
    catalogue: Catalogue, cats: ImageSet, tmp_path: Path
) -> None:
    dogs = filled(catalogue, tmp_path, "dog", 2)
    dogs.change_image(ids(dogs)[0], {"caption": "a sleeping dog"})
    dataset = find_images(config(cats.folder, reg_data=[str(dogs.folder)], masked_loss=False))
    assert dataset.problems == () and [s.caption for s in dataset.samples if s.is_reg] == ["a sleeping dog", "dog"]
    bare = build_config({"name": "x", "data": [str(cats.folder)]})
    (problem,) = find_images(bare).problems
    assert "2 images have no captions" in problem, "images to learn from still need a caption"
    same = find_images(config(cats.folder, reg_data=[str(cats.folder)], masked_loss=False))
    assert any("is also an Image folder (data)" in problem for problem in same.problems)
