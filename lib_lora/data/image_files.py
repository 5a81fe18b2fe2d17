"""Image files, opened whatever their kind, and turned as the camera meant. Pillow alone: the process apart starts at once."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageChops, ImageOps

from lib_lora.data.folders import KINDS
from lib_lora.data.hidden_names import given_name
from lib_lora.data.image_headers import SIGNATURE, jpeg_problem, png_problem
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
BYTES_OF_A_PIXEL, BYTES_BESIDE = 8, 2**20  # what a BMP may hold at most: Pillow goes through its runs one by one
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6
_TURNED = {5, 6, 7, 8}  # EXIF orientations that swap height and width
_EXIF_ORIENTATION = 0x0112


class NotNowError(DatasetError):
    """A file that could not be read, for a reason that may pass without a change of the file."""


class Picture(NamedTuple):
    """What was found of an image file: the size as it is seen, and the SHA-256 of its content."""

    size: Size
    sha256: str


def file_content(path: Path) -> bytes:
    """The whole file.

    Raises:
        DatasetError: it is larger than is read.
        NotNowError: it is gone, or may not be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise NotNowError([f"Image {given_name(path)!r} cannot be read ({why}); restore it or check permissions."]) from error
    if len(content) > MAX_BYTES:
        raise DatasetError([f"Image {given_name(path)!r} is larger than {MAX_BYTES // 2**20} MB; shrink or remove it."])
    return content


def image_size(path: Path, content: bytes | None = None) -> Size:
    """Size as the picture is seen (EXIF rotation honoured), without decoding it where the format allows.

    `content`: of the file, where it was read before.

    Raises:
        DatasetError: the file is no image of a known format, too large, or damaged.
    """
    with reading(path, content) as image:
        width, height = image.size
        turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
    return Size(width, height) if turned else Size(height, width)


@contextmanager
def reading(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """The opened file; whatever Pillow says of damage while it is read becomes one sentence.

    `content`: of the file, where it was read before.
    """
    with _open(path, file_content(path) if content is None else content) as image:
        try:
            yield image
        except (OSError, SyntaxError, ValueError, LookupError, ArithmeticError, EOFError, struct.error) as error:
            raise DatasetError([f"Image {given_name(path)!r} cannot be read ({error}); replace or remove it."]) from error


def _open(path: Path, content: bytes) -> Image.Image:
    problem = _shape_problem(content)
    if problem:
        raise DatasetError([f"Image {given_name(path)!r} {problem}; save it again or remove it."])
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a header that was made for it brings Pillow to errors of any kind
        raise DatasetError([f"Image {given_name(path)!r} is not a readable {KINDS} file; replace or remove it."]) from error
    problem = _size_problem(image, len(content))
    if problem:
        image.close()
        raise DatasetError([f"Image {given_name(path)!r} {problem}."])
    return image


def _shape_problem(content: bytes) -> str | None:
    """What is said of a file before Pillow looks at it: its own look at a header takes as long as the file likes."""
    if content.startswith(SIGNATURE):
        return png_problem(io.BytesIO(content))
    return jpeg_problem(content) if content.startswith(b"\xff\xd8") else None


def _size_problem(image: Image.Image, length: int) -> str | None:
    if image.format in {"PNG", "WEBP"} and getattr(image, "is_animated", False):
        return "is animated; save the frame you want as a single image"
    if image.width * image.height > MAX_PIXELS:
        return f"has more than {MAX_PIXELS // 10**6} million pixels; shrink or remove it"
    if image.format == "BMP" and length > image.width * image.height * BYTES_OF_A_PIXEL + BYTES_BESIDE:
        return "is a BMP with far more data than pixels; save it again or remove it"
    return None


def upright(image: Image.Image) -> Image.Image:
    """The picture as it is seen, decoded."""
    turned = ImageOps.exif_transpose(image)
    assert turned is not None  # it is only when told to work in place
    turned.load()
    if image.mode == "CMYK" and "adobe" not in image.info:  # Pillow takes all inks for Adobe's, which are upside down
        return ImageChops.invert(turned)
    return turned


def is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits per channel in a mode that Pillow would clip."""
    return image.mode.startswith(("I", "F"))


def on_white(image: Image.Image) -> Image.Image:
    """A picture that is not deep, in RGB: transparency composited on white."""
    if has_alpha(image):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def has_alpha(image: Image.Image) -> bool:
    """Whether anything may show through."""
    return image.mode in {"RGBA", "LA", "PA"} or ("transparency" in image.info and not is_deep(image))
