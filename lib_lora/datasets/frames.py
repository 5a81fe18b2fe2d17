"""The frame of an image that training sees, and where it lies after it was dragged."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from lib_lora.config.groups import TrainConfig
from lib_lora.data.buckets import Placement, cut_offset, surplus
from lib_lora.data.edits import ImageEdit, size_in
from lib_lora.data.sizes import Crop, Size
from lib_lora.errors import DatasetError
from lib_lora.plan import placement_of


class Frame(NamedTuple):
    """Edges in pixels of the whole upright image."""

    left: float
    top: float
    right: float
    bottom: float


def placement_in(whole: Size, edit: ImageEdit, config: TrainConfig) -> Placement:
    """The placement of the part of an image that is used.

    Raises:
        DatasetError: the part reaches beyond the image.
    """
    return placement_of(size_in(edit.crop, whole) or _beyond(whole), config)


def frame_of(whole: Size, edit: ImageEdit, placement: Placement) -> Frame:
    """What training sees of an image; with random crops, which move at each step, its size and the place set for it.

    Args:
        whole: size of the upright image.
        edit: its crop and cut.
        placement: of the part that is used.

    Raises:
        DatasetError: the part reaches beyond the image.
    """
    part = _part(whole, edit)
    down, right = _scale(part, placement)
    top, left = cut_offset(placement, edit.cut)
    height, width = _kept(placement)
    return Frame(
        part.left + left * right,
        part.top + top * down,
        part.left + (left + width) * right,
        part.top + (top + height) * down,
    )


def moved(frame: Frame, whole: Size, edit: ImageEdit, placement: Placement) -> ImageEdit:
    """The edit with which training sees `frame`, to within half a pixel of the resized image; its size stays as it is.

    A frame beyond the part that is used is moved to its edge. In the middle, the cut is None.

    Raises:
        DatasetError: the part reaches beyond the image.
    """
    part = _part(whole, edit)
    down, right = _scale(part, placement)
    most = surplus(placement)
    wanted = (frame.top - part.top) / down, (frame.left - part.left) / right
    offset = tuple(min(max(round(place), 0), limit) for place, limit in zip(wanted, most))
    if offset == cut_offset(placement, None):
        return replace(edit, cut=None)
    top, left = ((place + 0.5) / (limit + 1) for place, limit in zip(offset, most))
    return replace(edit, cut=(top, left))


def _part(whole: Size, edit: ImageEdit) -> Crop:
    if size_in(edit.crop, whole) is None:
        _beyond(whole)
    return edit.crop or Crop(0, 0, whole.width, whole.height)


def _scale(part: Crop, placement: Placement) -> tuple[float, float]:
    """Height and width of a pixel of the resized image, in pixels of the whole one."""
    resized = placement.resized
    return (part.bottom - part.top) / resized.height, (part.right - part.left) / resized.width


def _kept(placement: Placement) -> tuple[int, int]:
    """Height and width that remain of the resized image."""
    resized, bucket = placement.resized, placement.bucket
    return min(resized.height, bucket.height), min(resized.width, bucket.width)


def _beyond(whole: Size) -> Size:
    raise DatasetError([f"An image is {whole}, smaller than the part chosen of it; choose the part again."])
