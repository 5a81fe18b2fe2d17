"""Named datasets: made, renamed, duplicated, deleted; images and captions in them; changes and Undo; and what training gets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_lora.check import find_images
from lib_lora.config.groups import build_config
from lib_lora.data.augmentation import PLAIN
from lib_lora.data.edits import FILE, ImageEdit, edits_in
from lib_lora.data.example import load_example
from lib_lora.data.sizes import Crop, Size
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import LONGEST_CAPTION, ImageSet, StaleError
from lib_lora.errors import DatasetError, NoDatasetError
from lib_lora.plan import make_plan
from tests.conftest import write_picture

ODD = ["猫, 座っている 🐱", "(tag:1.2), \\(escaped\\)", "שלום, عربى", "a\n\nb"]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / ".private" / "datasets")


def filled(catalogue: Catalogue, tmp_path: Path, *names: str, name: str = "cats") -> ImageSet:
    dataset = catalogue.create(name)
    for number, file in enumerate(names):
        dataset.add(file, write_picture(tmp_path / "up" / f"{number}.png", 96, 64, seed=number))
    return dataset


def by_name(dataset: ImageSet) -> dict[str, str | None]:
    return {entry.name: entry.caption for entry in dataset.entries()[0]}


def test_it_is_made_found_renamed_and_deleted(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "a.png")
    again = Catalogue(tmp_path / ".private" / "datasets")
    assert [(found.id, found.name) for found in again.all()] == [(dataset.id, "cats")]
    for name in ("Cats", "", "a" * 81, "a\x07b"):
        with pytest.raises(DatasetError):
            catalogue.create(name)
    catalogue.rename(dataset.id, "dogs")
    assert [found.name for found in again.all()] == ["dogs"] and catalogue.free_name("dogs") == "dogs 2"
    catalogue.delete(dataset.id)
    assert again.all() == [] and not list((tmp_path / ".private" / "datasets").iterdir())
    for unknown in (dataset.id, "../x", "", "set-" + "0" * 16):
        with pytest.raises(NoDatasetError):
            catalogue.get(unknown)


def test_images_lie_under_names_that_no_webui_serves(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "猫.png", "b.JPG")
    stored = {path.name for path in dataset.folder.iterdir()}
    assert stored == {"猫.pn_", "b.JP-", FILE} and set(by_name(dataset)) == {"猫.png", "b.JPG"}


def test_a_name_that_is_taken_gets_a_number(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "a.png", "a.png", "A.jpg")
    assert len(by_name(dataset)) == 3, "and no two images share a caption file"
    assert len({Path(name).stem.casefold() for name in by_name(dataset)}) == 3


@pytest.mark.parametrize("name", ["", "..", ".png", "a/../../b", "con.png", "a\ud800.png", "a.png."])
def test_a_name_that_leads_elsewhere_is_refused(name: str, catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = catalogue.create("cats")
    before = {path for path in tmp_path.rglob("*")}
    upload = write_picture(tmp_path / "up.png")
    if name == "a/../../b":
        dataset.add(name, upload)
        assert {path.name for path in dataset.folder.iterdir()} == {"b", FILE}, "only the last part counts"
        return
    with pytest.raises(DatasetError):
        dataset.add(name, upload)
    assert {path for path in tmp_path.rglob("*")} == before | {upload}


def test_names_of_every_kind_are_taken(catalogue: Catalogue, tmp_path: Path) -> None:
    """Long ones are shortened alike for image and caption; what some disk does not allow becomes a line."""
    names = [
        "猫.png",
        "🐱.png",
        "été.png",
        "a\u202egpj.png",
        "x" * 251 + ".png",
        "é" * 120 + ".png",
        "two  spaces .png",
        "a?b\x07.png",
    ]
    dataset = catalogue.create("odd")
    for number, name in enumerate(names):
        dataset.add(name, write_picture(tmp_path / "up" / f"{number}.png", seed=number))
        dataset.add(Path(name).stem + ".txt", _text(tmp_path / "up" / f"{number}.txt", f"caption {number}"))
    found = by_name(dataset)
    assert set(found.values()) == {f"caption {number}" for number in range(len(names))}
    assert {"猫.png", "🐱.png", "été.png", "a\u202egpj.png", "two  spaces .png", "a_b_.png"} < set(found)
    assert max(len(name.encode()) for name in found) <= 200


@pytest.mark.parametrize("text", ODD)
def test_captions_come_back_as_they_were_written(text: str, catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "a.png", "b.png")
    dataset.add("b.txt", _text(tmp_path / "b", "of a file"))
    image = dataset.entries()[0][0]
    dataset.change_image(image.id, {"caption": text})
    again = Catalogue(tmp_path / ".private" / "datasets").get(dataset.id)
    assert by_name(again) == {"a.png": text, "b.png": "of a file"}


def test_a_caption_that_changed_meanwhile_is_not_lost(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "a.png")
    image = dataset.entries()[0][0].id
    dataset.change_image(image, {"caption": "first"}, was="")
    with pytest.raises(StaleError, match="another page") as told:
        dataset.change_image(image, {"caption": "second"}, was="")
    assert told.value.now == "first" and by_name(dataset) == {"a.png": "first"}
    dataset.change_image(image, {"caption": "first"}, was="")  # the same text is no conflict
    for illegal in ("x" * (LONGEST_CAPTION + 1), "a\0b"):
        with pytest.raises(DatasetError, match="not saved"):
            dataset.change_image(image, {"caption": illegal})


def test_changes_are_undone_one_by_one(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "a.png", "b.png")
    first, second = (entry.id for entry in dataset.entries()[0])
    dataset.change_image(first, {"caption": "one"})
    dataset.change({"a.png": ImageEdit(caption="two"), "b.png": ImageEdit(left_out=True)}, "both")
    assert dataset.undoable == "both" and dataset.undo() == "both"
    assert by_name(dataset) == {"a.png": "one", "b.png": None} and not any(e.edit.left_out for e in dataset.entries()[0])
    assert dataset.undo() == "caption of a.png" and by_name(dataset) == {"a.png": None, "b.png": None}
    assert dataset.undo() == "" and dataset.edits.images == {}
    dataset.remove(second)
    assert set(by_name(dataset)) == {"a.png"}


def test_a_duplicate_is_a_dataset_of_its_own(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "a.png")
    dataset.change_image(dataset.entries()[0][0].id, {"caption": "one"})
    copy = catalogue.duplicate(dataset.id, "copy")
    copy.change_image(copy.entries()[0][0].id, {"caption": "two"})
    assert by_name(dataset) == {"a.png": "one"} and by_name(copy) == {"a.png": "two"}
    catalogue.delete(dataset.id)
    assert by_name(copy) == {"a.png": "two"} and copy.entries()[0][0].path.is_file()


def test_a_folder_on_the_disk_is_never_written(catalogue: Catalogue, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for number in range(3):
        write_picture(folder / f"{number}.png", seed=number)
    (folder / "0.txt").write_text("of the file")
    before = _hashes(folder)
    dataset = catalogue.create("mine", str(folder))
    images = dataset.entries()[0]
    dataset.change_image(images[0].id, {"caption": "edited"})
    dataset.change_image(images[1].id, {"left_out": True})
    dataset.remove(images[2].id)
    found = find_images(build_config({"data": str(dataset.folder), "trigger": "ohwx"}))
    assert [(sample.path.name, sample.caption) for sample in found.samples] == [("0.png", "ohwx, edited")]
    with pytest.raises(DatasetError, match="put the images there"):
        dataset.add("x.png", write_picture(tmp_path / "x.png"))
    catalogue.delete(dataset.id)
    assert _hashes(folder) == before


def test_training_sees_the_part_and_the_cut_that_were_chosen(catalogue: Catalogue, tmp_path: Path) -> None:
    """Pillow cuts the part; without buckets its surplus is cut where the edit says."""
    dataset = filled(catalogue, tmp_path, "a.png")
    entry = dataset.entries()[0][0]
    whole = np.asarray(Image.open(entry.path).convert("RGB"))
    config = build_config({"data": str(dataset.folder), "trigger": "x", "resolution": 64, "enable_bucket": False})

    def seen(edit: ImageEdit) -> tuple[np.ndarray, Size]:
        dataset.change({"a.png": edit}, "edit")
        found = find_images(config)
        assert found.problems == ()
        plan = make_plan(config, found)
        return load_example(config.data, plan.samples[0], plan.placements[0], PLAIN).pixels, plan.samples[0].size

    height, width = whole.shape[:2]
    assert (height, width) == (64, 96) or (height, width) == (96, 64)
    part = Crop(0, 0, 64, 64) if width > height else Crop(0, 10, 64, 74)
    pixels, size = seen(ImageEdit(crop=part))
    assert size == (64, 64) and np.array_equal(pixels, whole[part.top : part.bottom, part.left : part.right])
    first, _ = seen(ImageEdit(cut=(0.0, 0.0)))
    last, _ = seen(ImageEdit(cut=(1.0, 1.0)))
    assert np.array_equal(first, whole[:64, :64]) and np.array_equal(last, whole[-64:, -64:])
    middle, _ = seen(ImageEdit())
    top, left = (height - 64) // 2, (width - 64) // 2
    assert np.array_equal(middle, whole[top : top + 64, left : left + 64])


def test_an_image_that_cannot_be_read_is_told_and_stops_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "a.png", "b.png")
    whole = dataset.entries()[0][0].path.read_bytes()
    dataset.add("c.png", _bytes(tmp_path / "c", whole[: len(whole) // 2]))
    config = build_config({"data": str(dataset.folder), "trigger": "x"})
    found = find_images(config)
    assert found.problems == () and [sample.caption for sample in found.samples] == ["x", "x"]
    (told,) = found.notes
    assert told.startswith("Image 'c.png' cannot be read") and told.endswith("It is not trained on.")
    for entry in dataset.entries()[0][:2]:
        dataset.remove(entry.id)
    assert "'c.png' cannot be read" in find_images(config).problems[0], "but it is not silent where nothing is left"


def test_a_part_beyond_the_image_is_told(catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "a.png")
    dataset.change({"a.png": ImageEdit(crop=Crop(0, 0, 500, 500))}, "crop")
    found = find_images(build_config({"data": str(dataset.folder), "trigger": "x"}))
    assert len(found.problems) == 1 and "'a.png'" in found.problems[0] and "choose the part again" in found.problems[0]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1, "source": null, "images": {}}', "[" * 5000,
                                     '{"name": "a", "source": null, "images": {"a.png": {"crop": [0, 0, 0, 0]}}}',
                                     '{"name": "a", "source": null, "images": {"a.png": {"cut": [0, 1e999]}}}'])  # fmt: skip
def test_a_damaged_file_of_edits_is_one_sentence(content: str, catalogue: Catalogue, tmp_path: Path) -> None:
    dataset = filled(catalogue, tmp_path, "a.png")
    (dataset.folder / FILE).write_text(content)
    with pytest.raises(DatasetError, match="is damaged"):
        edits_in(dataset.folder)
    found = find_images(build_config({"data": str(dataset.folder), "trigger": "x"}))
    assert len(found.problems) == 1 and "is damaged" in found.problems[0]
    assert [other.id for other in catalogue.all()] == [dataset.id], "and the others can be used"


def test_edits_are_written_as_they_are_read(tmp_path: Path) -> None:
    edit = ImageEdit(True, Crop(1, 2, 30, 40), (0.25, 1.0), "猫\n")
    (tmp_path / FILE).write_text(json.dumps({"name": "n", "source": None, "images": {"a.png": edit.plain()}}))
    found = edits_in(tmp_path)
    assert found is not None and found.images["a.png"] == edit
    (tmp_path / FILE).write_text(replace(found, name="m").to_json(), encoding="utf-8")
    again = edits_in(tmp_path)
    assert again is not None and (again.name, again.images) == ("m", found.images)


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
