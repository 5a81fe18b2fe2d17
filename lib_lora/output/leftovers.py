"""What a run leaves that was killed while it saved: files and folders under temporary names. The next run takes them away."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from lib_lora.output.state_file import VALUES, read_values
from lib_lora.training.state_rules import step_of
from lib_lora.training.tree import StateError

OLD_ENOUGH_S = 60.0  # what another program is writing just now is younger


def remove_leftovers(loras: Path, states: Path) -> None:
    """Remove temporary files in `loras`, and in `states` (of one LoRA) temporary folders that no whole state is lost with.

    A state that was killed between its two renames lies under a temporary name alone: it stays until a newer one is there.
    """
    for path in [*_old(loras, ".*.tmp"), *_old(states, ".*.tmp")]:
        if path.is_file():
            path.unlink(missing_ok=True)
    newest = max((_steps(path.parent) for path in states.glob(f"*-state/{VALUES}")), default=-1)
    for folder in [*_old(states, ".*.tmp"), *_old(states, ".*.old"), *_old(states, ".*.gone")]:
        if folder.is_dir() and _steps(folder) <= newest:
            shutil.rmtree(folder, ignore_errors=True)


def _old(folder: Path, pattern: str) -> list[Path]:
    before = time.time() - OLD_ENOUGH_S
    found = list(folder.glob(pattern)) if folder.is_dir() else []
    return [path for path in found if path.exists() and path.stat().st_mtime < before]


def _steps(state: Path) -> int:
    """How far a state is; -1 where it is not whole."""
    try:
        return step_of(read_values(state))
    except StateError:
        return -1
