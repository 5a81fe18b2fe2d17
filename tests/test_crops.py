"""Crops of many images: edits that training uses, and the webui's own search for what matters."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_lora.data.captions import CaptionSource
from lib_lora.data.dataset import scan
from lib_lora.data.edits import ImageEdit
from lib_lora.data.sizes import Crop, Size
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.crops import MODES, Autocrop, around, crop_edits, square
from lib_lora.datasets.image_set import ImageSet
from lib_lora.errors import DatasetError
from lib_lora.hosts import webui_autocrop
from lib_lora.hosts.webui_autocrop import WebuiAutocrop
from tests.conftest import write_picture

TARGET = Size(512, 512)
AUTOCROP = "modules.textual_inversion.autocrop"


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """Wide, high, square; the high one lies on its side in its file."""
    dataset = Catalogue(tmp_path / "sets").create("cats")
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, width, height, save in (("a.png", 160, 100, {}), ("b.jpg", 150, 90, {"exif": exif}), ("c.png", 80, 80, {})):
        dataset.add(name, write_picture(tmp_path / name, width, height, **save))
    return dataset


SIZES = {"a.png": Size(100, 160), "b.jpg": Size(150, 90), "c.png": Size(80, 80)}


def found(crop: tuple[int, ...] | None) -> Autocrop:
    return lambda image, size: crop  # type: ignore[return-value]


def test_squares_are_the_largest_in_the_middle_and_training_uses_them(images: ImageSet) -> None:
    crops = crop_edits(images.entries()[0], SIZES, "square", target=TARGET)
    assert crops.edits == {"a.png": ImageEdit(crop=Crop(30, 0, 130, 100)), "b.jpg": ImageEdit(crop=Crop(0, 30, 90, 120))}
    assert crops.problems == [] and images.edits.images == {}  # a preview
    images.change(crops.edits, "crop")
    trained = scan([str(images.folder)], captions=CaptionSource(trigger="x"), repeats=1).samples
    assert [sample.size for sample in trained] == [Size(100, 100), Size(90, 90), Size(80, 80)]
    assert images.undo() == "crop" and images.edits.images == {}


def test_buckets_take_crops_back_and_keep_what_else_was_edited(images: ImageSet) -> None:
    images.change({"a.png": ImageEdit(crop=Crop(0, 0, 50, 50), cut=(0, 1), caption="mine")}, "by hand")
    images.change({"c.png": ImageEdit(cut=(0, 1))}, "by hand")
    crops = crop_edits(images.entries()[0], SIZES, "buckets", target=TARGET)
    assert crops.edits == {"a.png": ImageEdit(caption="mine")}


def test_a_host_is_asked_with_the_upright_image_and_the_target(images: ImageSet) -> None:
    asked: list[tuple[tuple[int, int], Size]] = []

    def autocrop(image: Image.Image, size: Size) -> Crop | None:
        asked.append((image.size, size))
        return Crop(1, 2, 41, 42)

    crops = crop_edits(images.entries()[0], SIZES, "focal", target=Size(3, 4), autocrop=autocrop)
    assert asked == [((160, 100), Size(3, 4)), ((90, 150), Size(3, 4)), ((80, 80), Size(3, 4))]
    assert {edit.crop for edit in crops.edits.values()} == {Crop(1, 2, 41, 42)} and len(crops.edits) == 3


@pytest.mark.parametrize(
    ("crop", "told"),
    [
        (None, "Image 'c.png': no face was found, so it stays as it is; move its frame by hand."),
        ((0, 0, 81, 10), "Image 'c.png': the part found lies outside it, so it stays as it is; move its frame by hand."),
        (
            (5, 5, 5, 9),
            "Image 'c.png': a crop has no area, or lies outside the image, so it stays as it is; move its frame by hand.",
        ),
        (
            (-1, 0, 5, 9),
            "Image 'c.png': a crop has no area, or lies outside the image, so it stays as it is; move its frame by hand.",
        ),
    ],
)
def test_an_image_without_a_usable_part_stays_and_is_told(images: ImageSet, crop: Any, told: str) -> None:
    crops = crop_edits(images.entries()[0][2:], SIZES, "face", target=TARGET, autocrop=found(crop))
    assert crops.edits == {} and crops.problems == [told]


def test_the_whole_image_is_no_crop(images: ImageSet) -> None:
    assert crop_edits(images.entries()[0][2:], SIZES, "focal", target=TARGET, autocrop=found((0, 0, 80, 80))).edits == {}


def test_what_fails_costs_one_image_alone(images: ImageSet) -> None:
    """A search that fails, an image that was never decoded, and one that has changed."""
    entries, _ = images.entries()

    def autocrop(image: Image.Image, size: Size) -> Crop | None:
        if image.width == 160:
            raise DatasetError(["It is too long; move its frame by hand."])
        return Crop(0, 0, 20, 20)

    sizes = {"a.png": SIZES["a.png"], "c.png": SIZES["c.png"]}
    crops = crop_edits(entries, sizes, "focal", target=TARGET, autocrop=autocrop)
    assert list(crops.edits) == ["c.png"]
    assert crops.problems == [
        "Image 'a.png': It is too long; move its frame by hand.",
        "Image 'b.jpg' was not read, so it is not cropped.",
    ]
    changed = crop_edits(entries[2:], {"c.png": Size(9, 9)}, "focal", target=TARGET, autocrop=autocrop)
    assert changed.edits == {} and "has changed" in changed.problems[0]


def test_it_tells_how_far_it_is_and_stops_with_what_is_done(images: ImageSet) -> None:
    steps: list[tuple[int, int]] = []

    def told(done: int, total: int) -> bool:
        steps.append((done, total))
        return done < 2

    crops = crop_edits(images.entries()[0], SIZES, "focal", target=TARGET, autocrop=found((0, 0, 9, 9)), told=told)
    assert steps == [(1, 3), (2, 3)] and list(crops.edits) == ["a.png", "b.jpg"]


def test_unknown_modes_and_hosts_that_find_nothing_are_told(images: ImageSet) -> None:
    with pytest.raises(DatasetError, match="must be one of buckets, square, focal, face"):
        crop_edits([], {}, "x" * 10**6, target=TARGET)
    for mode in ("focal", "face"):
        with pytest.raises(DatasetError, match=f"Crop: {mode} needs the webui"):
            crop_edits([], {}, mode, target=TARGET)
    assert MODES == ("buckets", "square", "focal", "face")


@pytest.mark.parametrize("size", [Size(100, 160), Size(31, 7), Size(5, 5), Size(1, 9)])
def test_squares_are_squares_inside_the_image(size: Size) -> None:
    crop = square(size)
    assert crop.right - crop.left == crop.bottom - crop.top == min(size)
    assert abs(crop.left - (size.width - crop.right)) <= 1 and abs(crop.top - (size.height - crop.bottom)) <= 1


@pytest.mark.parametrize("target", [Size(512, 512), Size(768, 512), Size(3, 4), Size(64, 1024)])
@pytest.mark.parametrize("point", [(0.0, 0.0), (50.0, 20.0), (159.0, 99.0), (-5.0, 1e6)])
def test_a_part_around_a_point_is_as_large_as_the_image_allows(target: Size, point: tuple[float, float]) -> None:
    crop = around(*point, Size(100, 160), target)
    width, height = crop.right - crop.left, crop.bottom - crop.top
    assert crop.left >= 0 and crop.right <= 160 and crop.top >= 0 and crop.bottom <= 100
    assert width == 160 or height == 100
    assert abs(width - height * target.width / target.height) <= max(1, target.width / target.height)
    for low, high, place, most in ((crop.left, crop.right, point[0], 160), (crop.top, crop.bottom, point[1], 100)):
        assert abs((low + high) / 2 - place) <= 1 or low == 0 or high == most


# --- the webui's search


def double(**changes: Any) -> SimpleNamespace:
    """The webui's module, with a focus at a quarter of the width and the middle of the height of what it is given."""
    names: dict[str, Any] = {
        "Settings": lambda **given: SimpleNamespace(**given),
        "image_face_points": lambda im, settings: ["a face"],
        "focal_point": lambda im, settings: SimpleNamespace(x=im.width / 4, y=im.height / 2),
        "model_file_path": "/no/such/models/opencv/face.onnx",
        "download_and_cache_models": lambda: pytest.fail("downloaded"),
        **changes,
    }
    return SimpleNamespace(**names)


@pytest.fixture
def webui(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a module in place of the webui's."""

    def put(module: Any) -> None:
        package, folder = ModuleType("modules"), ModuleType("modules.textual_inversion")
        folder.autocrop = module  # type: ignore[attr-defined]
        for name, value in (("modules", package), ("modules.textual_inversion", folder), (AUTOCROP, module)):
            monkeypatch.setitem(sys.modules, name, value)

    return put


def test_the_focus_lies_in_the_middle_of_the_part(webui: Any) -> None:
    webui(double())
    crop = webui_autocrop.focal()(Image.new("RGB", (1600, 400)), TARGET)
    assert crop == Crop(200, 0, 600, 400)


def test_a_missing_face_model_is_told_in_one_sentence_and_not_downloaded(webui: Any) -> None:
    webui(double())
    with pytest.raises(DatasetError) as told:
        webui_autocrop.face()
    assert told.value.problems == [
        "Crop: face needs OpenCV's face model; put 'face.onnx' from its model zoo into '/no/such/models/opencv', or choose focal or square."
    ]
    weights: list[float] = []
    webui(double(focal_point=lambda im, settings: weights.append(settings.face_points_weight) or SimpleNamespace(x=0, y=0)))
    webui_autocrop.focal()(Image.new("RGB", (64, 64)), TARGET)
    assert weights == [0]


def test_faces_alone_are_searched_with_the_model_that_is_there(webui: Any, tmp_path: Path) -> None:
    model = tmp_path / "face.onnx"
    model.write_bytes(b"model")
    given: list[Any] = []
    webui(
        double(model_file_path=str(model), focal_point=lambda im, settings: given.append(settings) or SimpleNamespace(x=0, y=0))
    )
    assert webui_autocrop.face()(Image.new("RGB", (300, 100)), TARGET) == Crop(0, 0, 100, 100)
    assert (given[0].dnn_model_path, given[0].face_points_weight) == (str(model), 0.5)
    assert given[0].corner_points_weight == given[0].entropy_points_weight == 0
    webui(double(model_file_path=str(model), image_face_points=lambda im, settings: []))
    assert webui_autocrop.face()(Image.new("RGB", (300, 100)), TARGET) is None


def test_a_webui_without_it_and_a_search_that_fails_are_told(webui: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(im: Image.Image, settings: Any) -> None:
        raise RuntimeError("no\nsuch " + "x" * 1000)

    with pytest.raises(DatasetError, match=r"The webui's own search fails \(no such x{190,195}\); move its frame by hand."):
        WebuiAutocrop(double(focal_point=fails), None, faces=False)(Image.new("RGB", (64, 64)), TARGET)
    with pytest.raises(DatasetError, match="too long and narrow"):
        WebuiAutocrop(double(), None, faces=False)(Image.new("RGB", (900, 100)), TARGET)
    monkeypatch.setitem(sys.modules, "modules", None)
    with pytest.raises(DatasetError, match="this webui cannot find what matters"):
        webui_autocrop.focal()


@pytest.mark.skipif(not os.environ.get("WEBUI_DIR"), reason="WEBUI_DIR names no webui")
@pytest.mark.parametrize(("width", "height"), [(1280, 512), (512, 1100), (700, 512)])
def test_the_part_is_the_one_that_the_webui_itself_crops(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `crop_image` at the size that is searched, against the same pixels cut from the image."""
    pytest.importorskip("requests")
    version = pytest.importorskip("packaging.version")
    monkeypatch.setitem(sys.modules, "pkg_resources", SimpleNamespace(parse_version=version.parse))
    paths = SimpleNamespace(models_path="/no/such/models")
    package = ModuleType("modules")
    package.paths_internal = paths  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules", package)
    spec = importlib.util.spec_from_file_location(
        "autocrop", Path(os.environ["WEBUI_DIR"], "modules/textual_inversion/autocrop.py")
    )
    assert spec is not None and spec.loader is not None
    real = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(real)
    pixels = np.full((height, width, 3), 30, np.uint8)
    rng = np.random.default_rng(0)
    pixels[height * 6 // 10 : height * 7 // 10, width * 7 // 10 : width * 8 // 10] = rng.integers(0, 255, 3)
    image = Image.fromarray(pixels)
    wanted = real.crop_image(image, real.Settings(512, 512, face_points_weight=0))[0]
    crop = WebuiAutocrop(real, None, faces=False)(image, TARGET)
    assert crop is not None and np.array_equal(np.asarray(image.crop(crop)), np.asarray(wanted))
    assert (crop.left, crop.top) != (square(Size(height, width)).left, square(Size(height, width)).top)
