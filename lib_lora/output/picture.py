"""PNG files that name this program as their maker; only such files are ever replaced or removed."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_lora.data.images import Pixels

MAKER = "sd-webui-train-lora"
_MARK = b"tEXtSoftware\0" + MAKER.encode()
_MARK_WITHIN_BYTES = 256  # the mark is between the size and the pixels


def png(pixels: Pixels) -> bytes:
    """`pixels`, `[height, width, 3]`, as a PNG file with the maker's mark."""
    content, told = io.BytesIO(), PngInfo()
    told.add_text("Software", MAKER)
    Image.fromarray(pixels).save(content, "PNG", pnginfo=told)
    return content.getvalue()


def drawn_by_us(path: Path) -> bool:
    """Whether a file has the maker's mark.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return _MARK in file.read(_MARK_WITHIN_BYTES)
