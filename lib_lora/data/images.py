"""Files -> pixels: read, scale and crop an image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora.config.data import Interpolation
from lib_lora.data.buckets import Placement, cut_offset
from lib_lora.data.image_files import has_alpha, is_deep, on_white, reading, upright
from lib_lora.data.sizes import Size

Pixels = NDArray[np.uint8]


def load_pixels(path: Path, content: bytes | None = None) -> Pixels:
    """The whole image, `[height, width, 3]` RGB: EXIF rotation applied, transparency composited on white.

    `content`: the file's content, if already read.

    Raises:
        DatasetError: the file is not an image of a supported format, too large, or damaged.
    """
    with reading(path, content) as image:
        return np.asarray(_rgb(upright(image)), dtype=np.uint8)


def load_alpha(path: Path, content: bytes | None = None) -> Pixels:
    """The alpha channel, `[height, width]`, 0 to 255: EXIF rotation applied, 255 everywhere if the image has none.

    `content`: the file's content, if already read.

    Raises:
        DatasetError: as `load_pixels`.
    """
    with reading(path, content) as image:
        picture = upright(image)
        if not has_alpha(picture):
            return np.full((picture.height, picture.width), 255, dtype=np.uint8)
        return np.asarray(picture.convert("RGBA").getchannel("A"), dtype=np.uint8)


def fit(
    pixels: Pixels, placement: Placement, interpolation: Interpolation = "auto", cut: tuple[float, float] | None = None
) -> Pixels:
    """`pixels` scaled to `placement.resized` and cropped to the bucket (sd-scripts `trim_and_resize_if_required`).

    Args:
        pixels: an image, or one channel of it.
        placement: sizes.
        interpolation: the filter.
        cut: crop offset from top and left, as a share of the surplus, 0 to 1; None for the centre.

    Shapes:
        pixels: `[height, width, …]` -> `[bucket height, bucket width, …]`
    """
    resized, bucket = placement.resized, placement.bucket
    if pixels.shape[:2] != resized:
        pixels = _scaled(pixels, resized, interpolation)
    top, left = cut_offset(placement, cut)
    return pixels[top : top + bucket.height, left : left + bucket.width]


_OPENCV = {
    "area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST_EXACT,
}  # fmt: skip
_PILLOW = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}


def _scaled(pixels: Pixels, wanted: Size, interpolation: Interpolation) -> Pixels:
    """`pixels` resized with sd-scripts' filters (`resize_image`); auto is area if both sides shrink, else Lanczos."""
    height, width = pixels.shape[:2]
    if interpolation == "auto":
        interpolation = "area" if width >= wanted.width and height >= wanted.height else "lanczos"
    size = (wanted.width, wanted.height)
    if interpolation in _OPENCV:
        return np.asarray(cv2.resize(pixels, size, interpolation=_OPENCV[interpolation]), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize(size, _PILLOW[interpolation]), dtype=np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if is_deep(image):  # 16 bits per pixel: scaled, since Pillow would clip
        return Image.fromarray((np.asarray(image, dtype=np.float32) / 257).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    return on_white(image)
