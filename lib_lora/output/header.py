"""The start of a safetensors file. The library reads a header of up to 100 MB; those that are met here have a thousandth."""

from __future__ import annotations

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 8 * 2**20  # an SDXL checkpoint of 2,500 tensors has 0.3 MB


def header_problem(start: bytes) -> str | None:
    """Why the header is not read, from the first `LENGTH_BYTES` of a file, or None. A file that is too short passes here."""
    length = int.from_bytes(start, "little")
    return f"its header would have {length} bytes, at most {MAX_HEADER_BYTES} are read" if length > MAX_HEADER_BYTES else None
