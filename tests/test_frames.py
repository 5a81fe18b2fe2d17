"""The frame drawn on an image is the part that training sees."""

from __future__ import annotations

import numpy as np
import pytest

from lib_lora.config.groups import build_config
from lib_lora.data.buckets import Placement
from lib_lora.data.edits import ImageEdit
from lib_lora.data.images import fit
from lib_lora.data.sizes import Crop, Size
from lib_lora.datasets.frames import Frame, frame_of, moved, placement_in
from lib_lora.errors import DatasetError

SIZES = [Size(300, 400), Size(900, 300), Size(257, 1031), Size(128, 128), Size(120, 90), Size(513, 512)]
CONFIGS = [
    {"resolution": 256, "min_bucket_reso": 128},
    {"resolution": 256, "min_bucket_reso": 128, "bucket_no_upscale": True},
    {"resolution": 256, "enable_bucket": False},
]
EDITS = [
    ImageEdit(),
    ImageEdit(cut=(0.0, 0.0)),
    ImageEdit(cut=(1.0, 1.0)),
    ImageEdit(cut=(0.3, 0.8)),
    ImageEdit(crop=Crop(3, 5, 90, 89), cut=(0.7, 0.1)),
    ImageEdit(crop=Crop(0, 20, 90, 86)),
]


def pixels_of(whole: Size, edit: ImageEdit, placement: Placement) -> tuple[float, float, float, float]:
    """Width, height, width, height of a pixel of the resized image, in pixels of the whole one."""
    part = edit.crop or Crop(0, 0, whole.width, whole.height)
    width = (part.right - part.left) / placement.resized.width
    height = (part.bottom - part.top) / placement.resized.height
    return width, height, width, height


def seen(whole: Size, edit: ImageEdit, placement: Placement) -> Frame:
    """The frame from the pixels that `fit` returns of an image whose pixels encode their places."""
    crop = edit.crop or Crop(0, 0, whole.width, whole.height)

    rows, columns = np.mgrid[: whole.height, : whole.width]

    # 8 bits do not hold a place: its two digits are fitted one after the other
    def places(values: np.ndarray) -> np.ndarray:
        part = [digit.astype(np.uint8)[crop.top : crop.bottom, crop.left : crop.right] for digit in divmod(values, 256)]
        high, low = (fit(digit, placement, "nearest", edit.cut).astype(int) for digit in part)
        return high * 256 + low

    down, right = places(rows), places(columns)
    return Frame(right[0, 0], down[0, 0], right[-1, -1] + 1, down[-1, -1] + 1)


@pytest.mark.parametrize("config", CONFIGS, ids=["buckets", "no upscale", "one size"])
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("whole", SIZES, ids=str)
def test_the_frame_is_what_fit_shows(config: dict[str, object], edit: ImageEdit, whole: Size) -> None:
    placement = placement_in(whole, edit, build_config(config))
    told, shown = frame_of(whole, edit, placement), seen(whole, edit, placement)
    for difference, pixel in zip(np.subtract(told, shown), pixels_of(whole, edit, placement)):
        assert abs(difference) <= max(1.0, pixel)


def test_the_frame_of_a_panorama_is_its_middle() -> None:
    """Worked out by hand: 900 x 300 scaled to 768 x 256, of which 512 are cut away."""
    placement = placement_in(Size(300, 900), ImageEdit(), build_config(CONFIGS[2]))
    assert placement.resized == Size(256, 768) and placement.bucket == Size(256, 256)
    assert frame_of(Size(300, 900), ImageEdit(), placement) == pytest.approx((300, 0, 600, 300))
    assert frame_of(Size(300, 900), ImageEdit(cut=(0, 1)), placement) == pytest.approx((600, 0, 900, 300))


def test_a_part_has_its_frame_inside_it() -> None:
    edit = ImageEdit(crop=Crop(100, 40, 300, 140))
    placement = placement_in(Size(300, 400), edit, build_config(CONFIGS[2]))
    assert frame_of(Size(300, 400), edit, placement) == pytest.approx((150, 40, 250, 140))


@pytest.mark.parametrize("config", CONFIGS, ids=["buckets", "no upscale", "one size"])
@pytest.mark.parametrize("crop", [None, Crop(3, 5, 90, 89)])
@pytest.mark.parametrize("whole", SIZES, ids=str)
def test_a_dragged_frame_is_what_fit_shows_then(config: dict[str, object], crop: Crop | None, whole: Size) -> None:
    edit = ImageEdit(crop=crop)
    placement = placement_in(whole, edit, build_config(config))
    start, pixel = frame_of(whole, edit, placement), pixels_of(whole, edit, placement)
    low, high = (frame_of(whole, ImageEdit(crop=crop, cut=end), placement) for end in ((0, 0), (1, 1)))
    for share in np.linspace(0, 1, 6):
        left, top = (one + (other - one) * share for one, other in zip(low[:2], high[:2]))
        wanted = Frame(left, top, left + start.right - start.left, top + start.bottom - start.top)
        found = moved(wanted, whole, edit, placement)
        assert found.crop == crop
        for difference, one in zip(np.subtract(wanted, frame_of(whole, found, placement)), pixel):
            assert abs(difference) <= one / 2 + 1e-6
        for difference, one in zip(np.subtract(wanted, seen(whole, found, placement)), pixel):
            assert abs(difference) <= max(1.0, one) + one / 2


def test_every_place_can_be_reached() -> None:
    """Each of the 513 places of a cut is one that a frame can be dragged to."""
    whole, config = Size(256, 768), build_config(CONFIGS[2])
    placement = placement_in(whole, ImageEdit(), config)
    for left in range(513):
        found = moved(Frame(left, 0, left + 256, 256), whole, ImageEdit(), placement)
        assert frame_of(whole, found, placement) == (left, 0, left + 256, 256)


def test_a_frame_beyond_the_image_stops_at_its_edge_and_the_middle_is_no_edit() -> None:
    whole = Size(300, 900)
    placement = placement_in(whole, ImageEdit(), build_config(CONFIGS[2]))
    edge = moved(Frame(5000, -50, 5300, 250), whole, ImageEdit(), placement)
    assert frame_of(whole, edge, placement) == pytest.approx((600, 0, 900, 300))
    assert moved(Frame(300, 0, 600, 300), whole, edge, placement) == ImageEdit()


def test_a_part_beyond_the_image_is_told() -> None:
    edit = ImageEdit(crop=Crop(0, 0, 500, 10))
    with pytest.raises(DatasetError, match="choose the part again"):
        placement_in(Size(300, 400), edit, build_config(CONFIGS[0]))
    placement = placement_in(Size(300, 400), ImageEdit(), build_config(CONFIGS[0]))
    with pytest.raises(DatasetError, match="400x300, smaller than the part"):
        frame_of(Size(300, 400), edit, placement)


def test_an_image_too_small_for_any_bucket_has_no_frame() -> None:
    placement = placement_in(Size(40, 50), ImageEdit(), build_config(CONFIGS[1]))
    frame = frame_of(Size(40, 50), ImageEdit(), placement)
    assert frame.left == frame.right and frame.top == frame.bottom
