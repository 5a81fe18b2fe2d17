"""Removal of temporary files and folders that an earlier run left when it was killed while saving."""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lib_lora.files.atomic import BACKUP, GONE, OLD, TEMPORARY, passing_ending
from lib_lora.files.plain_values import StateError
from lib_lora.files.state_file import VALUES, holds_state_alone, read_values
from lib_lora.output.removal import remove
from lib_lora.training.state_rules import step_of

OLD_ENOUGH_S = 60.0  # younger files may still be being written by another program


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
