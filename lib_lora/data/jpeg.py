"""What a JPEG file asks of its reader, told from its markers alone."""

from __future__ import annotations

import re

MAX_SCANS = 100  # a picture has about ten; each makes the reader go over all of it once more, for a dozen bytes
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_END, _SCAN = 0xD9, 0xDA


def scans(content: bytes, most: int = MAX_SCANS) -> int:
    """How many scans the first picture in `content` has; counted up to `most` + 1."""
    found, position = 0, 2
    while found <= most and (marker := _MARKER.search(content, position)):
        kind, position = marker[1][0], marker.end()
        if kind == _END:
            break
        if kind in _WITHOUT_LENGTH:
            continue
        found += kind == _SCAN
        position += int.from_bytes(content[position : position + 2], "big")
    return found
