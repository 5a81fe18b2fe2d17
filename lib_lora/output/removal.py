"""What a run takes away again. Only what this program made goes; a disk that refuses is told, and ends nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lib_lora.files.safetensors_header import LENGTH_BYTES, header_problem
from lib_lora.output.card import nobody_wrote
from lib_lora.output.metadata_size import MADE_BY
from lib_lora.output.picture import drawn_by_us


def remove(path: Path) -> str | None:
    """Take a file away; the sentence that says why it is still there, or None."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return f"{str(path)!r} could not be removed ({error.strerror or error}); remove it by hand."
    return None


def remove_lora(lora: Path) -> Iterator[str]:
    """Take a LoRA of ours away with its card and picture; a sentence on each that stays."""
    if os.path.lexists(lora) and not _sure(made_by_us, lora):
        yield f"{str(lora)!r} was not written by a run of this name and was not removed."
        return
    told = [remove(lora)]
    for path, ours in ((lora.with_suffix(".json"), nobody_wrote), (lora.with_suffix(".png"), drawn_by_us)):
        if os.path.lexists(path):
            told.append(
                remove(path)
                if _sure(ours, path)
                else f"{str(path)!r} contains files that this run did not write and was not removed."
            )
    yield from filter(None, told)


def made_by_us(lora: Path) -> bool:
    """Whether a LoRA file says that this program wrote it, under the name that it has.

    Raises:
        OSError: it cannot be read.
    """
    if lora.is_symlink() or not lora.is_file():
        return False
    with lora.open("rb") as file:
        start = file.read(LENGTH_BYTES)
        if header_problem(start):
            return False
        content = file.read(int.from_bytes(start, "little"))
    try:
        told = json.loads(content)["__metadata__"]
        return str(told[MADE_BY[0]]).startswith(MADE_BY[1]) and told.get("ss_output_name", lora.stem) == lora.stem
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _sure(ours: Callable[[Path], bool], path: Path) -> bool:
    """What cannot be read is not known to be ours."""
    try:
        return ours(path)
    except OSError:
        return False
