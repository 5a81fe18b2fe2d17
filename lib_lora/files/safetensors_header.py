"""Limits on the header of a safetensors file. The library accepts up to 100 MB; real headers have a thousandth of that."""

from __future__ import annotations

import json
from pathlib import Path

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 8 * 2**20  # an SDXL checkpoint of 2,500 tensors has 0.3 MB
MAX_TENSORS = 32_768  # six for each tensor of an SDXL checkpoint are 15,000


def header_problem(start: bytes) -> str | None:
    """Why the header is refused, from the first `LENGTH_BYTES` of a file, or None. A file that is too short passes here."""
    length = int.from_bytes(start, "little")
    return f"its header has {length} bytes, must have at most {MAX_HEADER_BYTES}" if length > MAX_HEADER_BYTES else None


def count_problem(tensors: int) -> str | None:
    """Why a file with so many tensors is refused, or None."""
    return f"it has {tensors} tensors, must have at most {MAX_TENSORS}" if tensors > MAX_TENSORS else None


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Key -> shape, for a file that the library has opened. The library's own query (0.4.2) scans all tensors for each key."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(LENGTH_BYTES), "little")))
    return {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}
