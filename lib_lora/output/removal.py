"""Removal of files that this program made, and of no others; failures are returned as notes."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from lib_lora.files.atomic import BACKUP, GONE, OLD, TEMPORARY, passing_ending
from lib_lora.files.plain_values import StateError
from lib_lora.files.safetensors_header import LENGTH_BYTES, header_problem
from lib_lora.files.state_file import VALUES, holds_state_alone, read_values
from lib_lora.output.card import nobody_wrote
from lib_lora.output.metadata_size import MADE_BY
from lib_lora.output.preview import drawn_by_us
from lib_lora.training.state_rules import step_of

OLD_ENOUGH_S = 60.0  # younger files may still be being written by another program


def remove(path: Path) -> str | None:
    """Remove a file; returns a note if that fails, else None."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return f"{str(path)!r} could not be removed ({error.strerror or error}); remove it by hand."
    return None


def remove_lora(lora: Path) -> Iterator[str]:
    """Remove a LoRA that this program made, with its card and preview; yields a note for each file that stays."""
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
    """Whether the metadata of a LoRA file say that this program wrote it under its present name.

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
    """`ours(path)`; False if the file cannot be read."""
    try:
        return ours(path)
    except OSError:
        return False


def clean_up(loras: Path, states: Path) -> list[str]:
    """Remove leftovers in `loras`, and in `states` (of one LoRA) with its samples; returns a note for each that stays.

    Only names that this program gives are removed. If a run was killed between the two renames of a state, the state has only
    its temporary name: it stays until a newer one exists.
    """
    told: list[str | None] = []
    for folder in (loras, states, states / "samples"):
        told += [remove(path) for path in _old(folder, TEMPORARY, BACKUP, folders=False)]
    with suppress(OSError):  # states that cannot be listed cannot be removed either
        newest = max((_steps(path.parent) for path in states.glob(f"*-state/{VALUES}")), default=-1)
        for folder in _old(states, TEMPORARY, OLD, GONE, folders=True):
            if holds_state_alone(folder) and _steps(folder) <= newest:
                shutil.rmtree(folder, ignore_errors=True)
                told.append(f"{str(folder)!r} could not be removed; remove it by hand." if folder.exists() else None)
    return [text for text in told if text]


def _old(folder: Path, *endings: str, folders: bool) -> Iterator[Path]:
    """Files (or folders) directly in `folder` that have an old temporary name."""
    before, found = time.time() - OLD_ENOUGH_S, list[Path]()
    with suppress(OSError):
        found = [path for path in folder.iterdir() if passing_ending(path.name) in endings] if folder.is_dir() else []
    for path in found:
        with suppress(OSError):  # gone meanwhile
            state = path.lstat()
            if state.st_mtime < before and (stat.S_ISDIR if folders else stat.S_ISREG)(state.st_mode):
                yield path


def _steps(state: Path) -> int:
    """The step of a state; -1 if it is not complete."""
    try:
        return step_of(read_values(state))
    except StateError:
        return -1
