"""Pictures that a run draws, as PNG files that say who made them: only such a one is ever replaced or removed."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_lora.data.images import Pixels

MAKER = "sd-webui-train-lora"
_MARK = b"tEXtSoftware\0" + MAKER.encode()
_MARK_WITHIN_BYTES = 256  # it stands before the pixels, behind the size


def png(pixels: Pixels) -> bytes:
    """The file of a picture. Shapes: `[height, width, 3]`."""
    content, told = io.BytesIO(), PngInfo()
    told.add_text("Software", MAKER)
    Image.fromarray(pixels).save(content, "PNG", pnginfo=told)
    return content.getvalue()


def drawn_by_us(path: Path) -> bool:
    """Whether the file says so itself.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return _MARK in file.read(_MARK_WITHIN_BYTES)
