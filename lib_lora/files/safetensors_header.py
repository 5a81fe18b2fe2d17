"""The start of a safetensors file. The library reads a header of up to 100 MB; those that are met here have a thousandth."""

from __future__ import annotations

import json
from pathlib import Path

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 8 * 2**20  # an SDXL checkpoint of 2,500 tensors has 0.3 MB
MAX_TENSORS = 32_768  # six for each of an SDXL checkpoint's would be 15,000


def header_problem(start: bytes) -> str | None:
    """Why the header is not read, from the first `LENGTH_BYTES` of a file, or None. A file that is too short passes here."""
    length = int.from_bytes(start, "little")
    return f"its header has {length} bytes, must have at most {MAX_HEADER_BYTES}" if length > MAX_HEADER_BYTES else None


def count_problem(tensors: int) -> str | None:
    """Why the tensors are not read, from their number, or None."""
    return f"it has {tensors} tensors, must have at most {MAX_TENSORS}" if tensors > MAX_TENSORS else None


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a file that the library has opened. Its own answer (0.4.2) looks through all tensors, for each of them."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(LENGTH_BYTES), "little")))
    return {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}
