"""What can be told of an image from its pixels, and its thumbnail. Imports only Pillow, since the decoder process does."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageFilter, ImageStat

from lib_lora.data.image_files import has_alpha
from lib_lora.data.sizes import Size
from lib_lora.files.atomic import TEMPORARY, passing_name

LOOKED_AT = 480  # longest side at which sharpness is measured: an eighth of a photo of 12 MP, which a JPEG decoder makes alone
HASH_SIDE = 8  # the hash has this number of rows, and of bits in each
_EDGES = (0, 1, 0, 1, -4, 1, 0, 1, 0)  # the discrete Laplacian
_QUALITY = 85
_GAP = 3.0  # times the wanted size to which an image is averaged before it is scaled


class ImageFacts(NamedTuple):
    """What is true of an image. All but `sha256` is of the upright image.

    Args:
        size: in pixels, EXIF rotation applied.
        sha256: of the file's content.
        turned: whether EXIF says that it must be rotated or mirrored.
        transparent: whether any pixel is not opaque.
        hash: 64 bits, of which similar images differ in few.
        sharpness: variance of the Laplacian of the grey image, scaled down to LOOKED_AT pixels.
    """

    size: Size
    sha256: str
    turned: bool
    transparent: bool
    hash: int
    sharpness: float


def deep_as_rgb(picture: Image.Image) -> Image.Image:
    """A deep image as RGB with 8 bits."""
    return picture.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L").convert("RGB")


def is_transparent(picture: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    if not has_alpha(picture):
        return False
    return any(picture.convert("RGBA").getchannel("A").histogram()[:255])


def reduced(rgb: Image.Image, side: int) -> Image.Image:
    """An image from which smaller ones of `side` pixels are made in less time, and hardly another way."""
    times = int(max(rgb.size) / side / _GAP)
    return rgb.reduce(times) if times > 1 else rgb


def small_grey(rgb: Image.Image) -> Image.Image:
    """The grey image with its longest side at most LOOKED_AT; it is never enlarged."""
    grey = rgb.convert("L")
    return grey.resize(size_within(grey.size, LOOKED_AT), Image.Resampling.BILINEAR, reducing_gap=_GAP)


def difference_hash(grey: Image.Image) -> int:
    """64 bits: whether each of 9x8 grey areas is lighter than the one on its right (dHash), row by row."""
    values = list(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX).getdata())
    bits = 0
    for row in range(HASH_SIDE):
        for column in range(HASH_SIDE):
            at = row * (HASH_SIDE + 1) + column
            bits = bits << 1 | (values[at] > values[at + 1])
    return bits


def sharpness(grey: Image.Image) -> float:
    """The variance of the Laplacian; 0 if the image has no inner pixels."""
    if min(grey.size) < 3:
        return 0.0
    edges = grey.filter(ImageFilter.Kernel((3, 3), _EDGES, scale=1, offset=128))
    inner = edges.crop((1, 1, grey.width - 1, grey.height - 1))  # the filter copies the border
    return round(float(ImageStat.Stat(inner).var[0]), 3)


def save_thumbnail(rgb: Image.Image, target: Path, side: int) -> None:
    """Write a JPEG with the longest side at most `side` pixels, completely or not at all; only pixels are saved.

    Raises:
        OSError: it was not written; its folder is never made.
    """
    small = rgb.resize(size_within(rgb.size, side), Image.Resampling.BICUBIC, reducing_gap=_GAP)
    small.info = {}  # a comment would be saved
    content = io.BytesIO()
    small.save(content, "JPEG", quality=_QUALITY)
    partial = target.with_name(passing_name(target.stem, TEMPORARY))
    try:
        partial.write_bytes(content.getvalue())
        partial.replace(target)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def size_within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height with the longest at most `side`, in the same ratio, at least 1."""
    longest = max(size)
    if longest <= side:
        return size
    width, height = (max(1, round(length * side / longest)) for length in size)
    return width, height
