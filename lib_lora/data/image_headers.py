"""What an image file asks of its reader, told from its markers and chunks alone."""

from __future__ import annotations

import re
from typing import BinaryIO

MAX_SCANS = 100  # a picture has about ten; each makes the reader go over all of it once more, for a dozen bytes
MAX_SEGMENTS = 10_000  # of 64 KB at most each; the largest picture, with a profile and notes of every kind, has some hundred
MAX_FILL = 2**20  # bytes between two segments in front of the picture, which Pillow goes over one by one
# the last of any fill bytes, and the kind behind it, but for those kinds that stand in the picture's data and have no length:
# from each place two bytes are looked at
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_END, _SCAN = 0xD9, 0xDA
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_NOTES = 1_000  # chunks beside the picture; a picture has about ten
MAX_DATA = 100_000  # chunks of the picture: 64 MB in pieces of 1 KB are fewer
_LENGTH, _FRAME = 4, 8  # bytes: of a length; of the length and the kind
_CHECKSUM = 4


def jpeg_problem(content: bytes) -> str | None:
    """Why the first picture in `content` is not read, as the end of a sentence; None where it is."""
    found, segments, fill = _counted(content, MAX_SCANS)
    if found > MAX_SCANS:
        return f"is a JPEG with more than {MAX_SCANS} scans"
    if segments > MAX_SEGMENTS or fill > MAX_FILL:
        return f"is a JPEG with more than {MAX_SEGMENTS} segments, or much data outside of them"
    return None


def _counted(content: bytes, most: int) -> tuple[int, int, int]:
    """Scans up to `most` + 1, segments up to one more than are read, and bytes before the first scan that are in none."""
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
    """Why the picture is not read, as the end of a sentence; None where it is. One look at each chunk's first 8 bytes."""
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
