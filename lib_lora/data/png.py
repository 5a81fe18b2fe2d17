"""What a PNG file asks of its reader, told from the lengths of its chunks alone."""

from __future__ import annotations

from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_NOTES = 1_000  # chunks beside the picture; a picture has about ten
MAX_DATA = 100_000  # chunks of the picture: 64 MB in pieces of 1 KB are fewer
_LENGTH, _FRAME = 4, 8  # bytes: of a length; of the length and the kind
_CHECKSUM = 4


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
    return f"is a PNG of more than {MAX_DATA} pieces, or {MAX_NOTES} notes"
