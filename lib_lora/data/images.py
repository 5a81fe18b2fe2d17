"""Files -> pixels: open an image whatever its kind, turn it as the camera meant, scale and cut it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from lib_lora.config.data import Interpolation
from lib_lora.data.buckets import Placement
from lib_lora.data.folders import KINDS
from lib_lora.data.jpeg import MAX_SCANS, scans
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6
_TURNED = {5, 6, 7, 8}  # EXIF orientations that swap height and width
_EXIF_ORIENTATION = 0x0112

Pixels = NDArray[np.uint8]


def image_size(path: Path) -> Size:
    """Size as the picture is seen (EXIF rotation honoured), without decoding it where the format allows.

    Raises:
        DatasetError: the file is no image of a known format, too large, or damaged.
    """
    with _reading(path) as image:
        width, height = image.size
        turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
    return Size(width, height) if turned else Size(height, width)


def load_pixels(path: Path) -> Pixels:
    """The whole picture, `[height, width, 3]` RGB: rotation honoured, transparency composited on white.

    Raises:
        DatasetError: the file is no image of a known format, too large, or damaged.
    """
    with _reading(path) as image:
        upright = ImageOps.exif_transpose(image)
        assert upright is not None  # it is only when told to work in place
        if image.mode == "CMYK" and "adobe" not in image.info:  # Pillow takes all inks for Adobe's, which are upside down
            upright = ImageChops.invert(upright)
        return np.asarray(_rgb(upright), dtype=np.uint8)


def load_alpha(path: Path) -> Pixels:
    """How opaque the picture is, `[height, width]`, 0 to 255; rotation honoured, 255 everywhere where it says nothing.

    Raises:
        DatasetError: as `load_pixels`.
    """
    with _reading(path) as image:
        upright = ImageOps.exif_transpose(image)
        assert upright is not None
        if not _has_alpha(upright):
            return np.full((upright.height, upright.width), 255, dtype=np.uint8)
        return np.asarray(upright.convert("RGBA").getchannel("A"), dtype=np.uint8)


def fit(
    pixels: Pixels, placement: Placement, interpolation: Interpolation = "auto", cut: tuple[float, float] | None = None
) -> Pixels:
    """`pixels` scaled to `placement.resized` and cut to the bucket (sd-scripts `trim_and_resize_if_required`).

    Args:
        pixels: a picture, or one channel of it.
        placement: sizes.
        interpolation: the filter.
        cut: where the cut lies in what is too much, 0 to 1 from the top and from the left; None for the centre.

    Shapes:
        pixels: `[height, width, …]` -> `[bucket height, bucket width, …]`
    """
    resized, bucket = placement.resized, placement.bucket
    if pixels.shape[:2] != resized:
        pixels = _scaled(pixels, resized, interpolation)
    too_much = max(resized.height - bucket.height, 0), max(resized.width - bucket.width, 0)
    if cut is None:
        top, left = too_much[0] // 2, too_much[1] // 2
    else:
        top, left = (min(int(share * (surplus + 1)), surplus) for share, surplus in zip(cut, too_much))
    return pixels[top : top + bucket.height, left : left + bucket.width]


_OPENCV = {
    "area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST_EXACT,
}  # fmt: skip
_PILLOW = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}


def _scaled(pixels: Pixels, wanted: Size, interpolation: Interpolation) -> Pixels:
    """As sd-scripts `resize_image`: auto is area when both sides shrink, else Lanczos, and whose filter each name means."""
    height, width = pixels.shape[:2]
    if interpolation == "auto":
        interpolation = "area" if width >= wanted.width and height >= wanted.height else "lanczos"
    size = (wanted.width, wanted.height)
    if interpolation in _OPENCV:
        return np.asarray(cv2.resize(pixels, size, interpolation=_OPENCV[interpolation]), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize(size, _PILLOW[interpolation]), dtype=np.uint8)


@contextmanager
def _reading(path: Path) -> Iterator[Image.Image]:
    """The opened file; whatever Pillow says of damage while it is read becomes one sentence."""
    with _open(path) as image:
        try:
            yield image
        except (OSError, SyntaxError, ValueError) as error:
            raise DatasetError([f"Image {path.name!r} cannot be read ({error}); replace or remove it."]) from error


def _open(path: Path) -> Image.Image:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError([f"Image {path.name!r} is larger than {MAX_BYTES // 2**20} MB; shrink or remove it."])
        image = Image.open(path, formats=FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        errno = getattr(error, "errno", None)
        if errno:  # the system's own: gone, or not allowed
            why = os.strerror(errno)
            raise DatasetError([f"Image {path.name!r} cannot be read ({why}); put it back, or make it readable."]) from error
        raise DatasetError([f"Image {path.name!r} is not a readable {KINDS} picture; replace or remove it."]) from error
    if image.format in {"PNG", "WEBP"} and getattr(image, "is_animated", False):
        image.close()
        raise DatasetError([f"Image {path.name!r} is animated; save the frame to be learned as a picture of its own."])
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DatasetError([f"Image {path.name!r} has more than {MAX_PIXELS // 10**6} million pixels; shrink or remove it."])
    if image.format in {"JPEG", "MPO"} and scans(path.read_bytes()) > MAX_SCANS:
        image.close()
        raise DatasetError([f"Image {path.name!r} is a JPEG of more than {MAX_SCANS} scans; save it anew or remove it."])
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16 bits per pixel: scaled, since Pillow would clip
        return Image.fromarray((np.asarray(image, dtype=np.float32) / 257).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if _has_alpha(image):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in {"RGBA", "LA", "PA"} or ("transparency" in image.info and not image.mode.startswith(("I", "F")))
