"""Files -> pixels: open an image whatever its kind, turn it as the camera meant, scale and cut it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lib_lora.data.buckets import Placement
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError

FORMATS = ("PNG", "JPEG", "WEBP")
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
        return np.asarray(_rgb(upright), dtype=np.uint8)


def fit(pixels: Pixels, placement: Placement) -> Pixels:
    """`pixels` scaled to `placement.resized` and cut to the centre, `[bucket height, bucket width, 3]`.

    As sd-scripts `trim_and_resize_if_required`: OpenCV's area filter when shrinking, Pillow's Lanczos when enlarging.
    """
    height, width = pixels.shape[:2]
    resized, bucket = placement.resized, placement.bucket
    if (height, width) != resized:
        size = (resized.width, resized.height)
        if width >= resized.width and height >= resized.height:
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        else:
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)
    top = max(resized.height - bucket.height, 0) // 2
    left = max(resized.width - bucket.width, 0) // 2
    return pixels[top : top + bucket.height, left : left + bucket.width]


@contextmanager
def _reading(path: Path) -> Iterator[Image.Image]:
    """The opened file; whatever Pillow says of damage while it is read becomes one sentence."""
    with _open(path) as image:
        try:
            yield image
        except (OSError, SyntaxError, ValueError) as error:
            raise DatasetError([f"Image {path.name!r} cannot be read ({error}); replace or remove it."]) from error


def _open(path: Path) -> Image.Image:
    if path.stat().st_size > MAX_BYTES:
        raise DatasetError([f"Image {path.name!r} is larger than {MAX_BYTES // 2**20} MB; shrink or remove it."])
    try:
        image = Image.open(path, formats=FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise DatasetError([f"Image {path.name!r} is not a readable PNG, JPEG or WEBP picture; replace or remove it."]) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DatasetError([f"Image {path.name!r} has more than {MAX_PIXELS // 10**6} million pixels; shrink or remove it."])
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16 bits per pixel: scaled, since Pillow would clip
        return Image.fromarray((np.asarray(image, dtype=np.float32) / 257).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
