"""Sizes -> buckets: the training size of each image, and how the image is scaled and cropped to it.

Equal to sd-scripts' `BucketManager` and `make_bucket_resolutions`, including float arithmetic.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from lib_lora.data.sizes import Crop, Size

Sizes = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class BucketRule:
    """How buckets are made. `max_size` gives the area; sides are multiples of `step` from `min_side` to `max_side`."""

    max_size: Size
    min_side: int = 256
    max_side: int = 1024
    step: int = 64
    no_upscale: bool = False


@dataclass(frozen=True)
class Placement:
    """The bucket of one image: scale to `resized`, then crop to `bucket`."""

    bucket: Size
    resized: Size


@functools.lru_cache(maxsize=32)
def bucket_sizes(rule: BucketRule) -> tuple[Size, ...]:
    """All bucket sizes, ordered by width, then height."""
    area = rule.max_size.area
    square = int(math.sqrt(area) // rule.step) * rule.step
    widths_heights = {(square, square)}
    for width in range(rule.min_side, rule.max_side + 1, rule.step):
        height = min(rule.max_side, area // width // rule.step * rule.step)
        if height >= rule.min_side:
            widths_heights |= {(width, height), (height, width)}
    return tuple(Size(height, width) for width, height in sorted(widths_heights))


def place(image: Size, rule: BucketRule) -> Placement:
    """The bucket of an image of size `image`, and the size it is scaled to first."""
    if rule.no_upscale:
        return _place_shrinking(image, rule)
    sizes, ratio = bucket_sizes(rule), image.width / image.height
    bucket = image if image in sizes else min(sizes, key=lambda size: abs(size.width / size.height - ratio))
    return Placement(bucket, _cover(image, bucket))


def place_fixed(image: Size, target: Size) -> Placement:
    """The placement without buckets: every image is scaled to cover `target` and cropped to it."""
    return Placement(target, _cover(image, target))


def cut_offset(placement: Placement, cut: tuple[float, float] | None) -> tuple[int, int]:
    """Where the bucket lies in the resized image: pixels from top and left.

    `cut`: as a share of the surplus, 0 to 1; None for the centre.
    """
    too_much = surplus(placement)
    if cut is None:
        return too_much[0] // 2, too_much[1] // 2
    top, left = (min(int(share * (most + 1)), most) for share, most in zip(cut, too_much))
    return top, left


def surplus(placement: Placement) -> tuple[int, int]:
    """How many pixels of the resized image's height and width the bucket does not hold."""
    resized, bucket = placement.resized, placement.bucket
    return max(resized.height - bucket.height, 0), max(resized.width - bucket.width, 0)


def crop_in_bucket(image: Size, bucket: Size) -> Crop:
    """Edges of `image` if it were fitted inside `bucket`: SDXL's crop conditioning (sd-scripts `get_crop_ltrb`)."""
    ratio = image.width / image.height
    if bucket.width / bucket.height > ratio:
        width, height = bucket.height * ratio, float(bucket.height)
    else:
        width, height = float(bucket.width), bucket.width / ratio
    left, top = (bucket.width - width) // 2, (bucket.height - height) // 2
    return Crop(int(left), int(top), int(left + width), int(top + height))


def _cover(image: Size, bucket: Size) -> Size:
    wider = image.width / image.height > bucket.width / bucket.height
    scale = bucket.height / image.height if wider else bucket.width / image.width
    return Size(int(image.height * scale + 0.5), int(image.width * scale + 0.5))


def _place_shrinking(image: Size, rule: BucketRule) -> Placement:
    resized = image
    if image.area > rule.max_size.area:
        ratio = image.width / image.height
        side = min(math.sqrt(rule.max_size.area * ratio), math.sqrt(rule.max_size.area / ratio))
        if _round(side, rule.step) == 0:  # narrower than one step: no bucket holds it
            return Placement(Size(0, 0), image)
        resized = _shrink(ratio, rule)
    bucket = Size(resized.height - resized.height % rule.step, resized.width - resized.width % rule.step)
    return Placement(bucket, resized)


def _shrink(ratio: float, rule: BucketRule) -> Size:
    """A size of the rule's area and about `ratio`; one side is a multiple of the step: the one that changes `ratio` less."""
    width = math.sqrt(rule.max_size.area * ratio)
    by_width = _round(width, rule.step)
    by_height = _round(rule.max_size.area / width, rule.step)
    width_error = abs(by_width / _round(by_width / ratio, rule.step) - ratio)
    height_error = abs(_round(by_height * ratio, rule.step) / by_height - ratio)
    if width_error < height_error:
        return Size(int(by_width / ratio + 0.5), by_width)
    return Size(by_height, int(by_height * ratio + 0.5))


def _round(value: float, step: int) -> int:
    whole = int(value + 0.5)
    return whole - whole % step


def told_sizes(image: Size, bucket: Size, *, mirrored: bool) -> Sizes:
    """SDXL's size conditioning: image height and width, crop top and left, bucket height and width (sd-scripts `__getitem__`).

    The crop is that of `crop_in_bucket`, whatever is really cropped.
    """
    crop = crop_in_bucket(image, bucket)
    left = bucket.width - crop.right if mirrored else crop.left
    return (image.height, image.width, crop.top, left, bucket.height, bucket.width)
