"""Limits on the work that an image file causes, checked by its markers and chunks alone."""

from __future__ import annotations

import re
from typing import BinaryIO

MAX_SCANS = 100  # an image has about ten; each, of a dozen bytes, makes the decoder process the whole image again
MAX_SEGMENTS = 10_000  # of at most 64 KB; the largest image, with a profile and all metadata, has a few hundred
MAX_FILL = 2**20  # bytes outside segments before the image data, which Pillow reads one by one
# the last fill byte and the marker type after it, except types that occur in image data and have no length; at each position,
# two bytes are examined
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_END, _SCAN = 0xD9, 0xDA
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_NOTES = 1_000  # chunks other than image data; an image has about ten
MAX_DATA = 100_000  # chunks of image data: 64 MB in pieces of 1 KB are fewer
_LENGTH, _FRAME = 4, 8  # bytes of the length; of the length and the type
_CHECKSUM = 4


def jpeg_problem(content: bytes) -> str | None:
    """Why the first image in `content` is refused, as the end of a sentence, or None."""
    found, segments, fill = _counted(content, MAX_SCANS)
    if found > MAX_SCANS:
        return f"is a JPEG with more than {MAX_SCANS} scans"
    if segments > MAX_SEGMENTS or fill > MAX_FILL:
        return f"is a JPEG with more than {MAX_SEGMENTS} segments, or much data outside of them"
    return None


def _counted(content: bytes, most: int) -> tuple[int, int, int]:
    """Number of scans (up to `most` + 1), segments (up to MAX_SEGMENTS + 1), and bytes outside segments before the first scan."""
    found = segments = fill = 0
    position = 2
    while found <= most and segments <= MAX_SEGMENTS and (marker := _MARKER.search(content, position)):
        fill += marker.start() - position if not found else 0
        kind, position = marker[1][0], marker.end()
        if kind == _END:
            break
        segments += 1
        found += kind == _SCAN
        position += int.from_bytes(content[position : position + 2], "big")
    else:
        fill += len(content) - position if not found and segments <= MAX_SEGMENTS else 0
    return found, segments, fill


def png_problem(file: BinaryIO) -> str | None:
    """Why the image is refused, as the end of a sentence, or None. Reads only the first 8 bytes of each chunk."""
    file.seek(len(SIGNATURE))
    notes = data = 0
    while notes <= MAX_NOTES and data <= MAX_DATA:
        frame = file.read(_FRAME)
        if len(frame) < _FRAME or frame[_LENGTH:] == b"IEND":
            return None
        is_data = frame[_LENGTH:] in (b"IDAT", b"fdAT")
        data, notes = data + is_data, notes + (not is_data)
        file.seek(int.from_bytes(frame[:_LENGTH], "big") + _CHECKSUM, 1)
    return f"is a PNG with more than {MAX_DATA} data chunks or {MAX_NOTES} text chunks"
