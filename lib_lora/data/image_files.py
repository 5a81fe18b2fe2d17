"""Opens image files and applies their EXIF rotation. Imports only Pillow, so that the decoder process starts fast."""

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
BYTES_OF_A_PIXEL, BYTES_BESIDE = 8, 2**20  # limit on a BMP's size: Pillow decodes its runs one by one
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6
_TURNED = {5, 6, 7, 8}  # EXIF orientations that swap height and width
_NOT_UPRIGHT = {2, 3, 4, *_TURNED}
_EXIF_ORIENTATION = 0x0112


class NotNowError(DatasetError):
    """A file could not be read, for a reason that may pass although the file stays the same."""


class Picture(NamedTuple):
    """Size of an image (EXIF rotation applied), and SHA-256 of the file's content."""

    size: Size
    sha256: str


def file_content(path: Path) -> bytes:
    """The content of the file.

    Raises:
        DatasetError: the file is larger than MAX_BYTES.
        NotNowError: the file is missing or cannot be read.
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


def image_size(path: Path) -> Size:
    """Size of the image (EXIF rotation applied), without decoding it if the format allows.

    Raises:
        DatasetError: the file is not an image of a supported format, too large, or damaged.
    """
    with reading(path) as image:
        return upright_size(image)


def upright_size(image: Image.Image) -> Size:
    """Size of an opened image with its EXIF rotation applied."""
    width, height = image.size
    turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
    return Size(width, height) if turned else Size(height, width)


@contextmanager
def reading(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """The opened image; Pillow's errors in the block become a DatasetError.

    `content`: the file's content, if already read.
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
    except Exception as error:  # noqa: BLE001 - a crafted header makes Pillow raise errors of any type
        raise DatasetError([f"Image {given_name(path)!r} is not a readable {KINDS} file; replace or remove it."]) from error
    problem = _size_problem(image, len(content))
    if problem:
        image.close()
        raise DatasetError([f"Image {given_name(path)!r} {problem}."])
    return image


def _shape_problem(content: bytes) -> str | None:
    """Why the file is refused before Pillow opens it: a crafted header could keep Pillow busy without limit."""
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


def is_turned(image: Image.Image) -> bool:
    """Whether EXIF says that the image must be rotated or mirrored. Asked before `upright`, which forgets it."""
    return image.getexif().get(_EXIF_ORIENTATION) in _NOT_UPRIGHT


def upright(image: Image.Image) -> Image.Image:
    """The decoded image with its EXIF rotation applied; without one it is no copy, which would take the memory once more."""
    turned = ImageOps.exif_transpose(image) if is_turned(image) else image
    assert turned is not None  # None only if done in place
    turned.load()
    if image.mode == "CMYK" and "adobe" not in image.info:  # Pillow assumes Adobe's CMYK, which is inverted
        return ImageChops.invert(turned)
    return turned


def is_deep(image: Image.Image) -> bool:
    """Whether the image has more than 8 bits per channel in a mode that Pillow would clip."""
    return image.mode.startswith(("I", "F"))


def on_white(image: Image.Image) -> Image.Image:
    """An image that is not deep as RGB, with transparency composited on white; one that is RGB already is no copy."""
    if has_alpha(image):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def has_alpha(image: Image.Image) -> bool:
    """Whether the image may be transparent."""
    return image.mode in {"RGBA", "LA", "PA"} or ("transparency" in image.info and not is_deep(image))
