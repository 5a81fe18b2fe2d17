"""What can be done with a past job: resume from its state, or reuse its settings."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib_lora.config.names import next_free, taken_problem
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_store import QueueError, is_folder


def has_state(entry: Entry) -> bool:
    """Whether the newest state of a job still exists."""
    return entry.state_folder is not None and is_folder(entry.state_folder)


def can_resume(entry: Entry) -> bool:
    """Whether a job ended early and has a state to resume from."""
    return entry.state in {"stopped", "failed", "interrupted"} and has_state(entry)


def after_restart(entry: Entry) -> Entry:
    """`entry`, as interrupted if it was running when the program ended. Its file is not changed yet."""
    if entry.state != "running":
        return entry
    told = "The program ended while this job was running."
    return dataclasses.replace(entry, state="interrupted", direct=False, ended=entry.seen, problems=(told,))


def foreign_problem(entry: Entry) -> str:
    """The message that a job belongs to another program."""
    does = "is running" if entry.state == "running" else "waits"
    return f"{entry.name!r} {does} in another webui that uses this data folder; change it there."


def waiting_again(entry: Entry, now: float) -> Entry:
    """The entry, waiting to resume from its state.

    Raises:
        QueueError: it has no state, or is finished.
    """
    if not can_resume(entry):
        raise QueueError(f"{entry.name!r} has no saved state to resume from; repeat it instead.")
    return dataclasses.replace(
        entry, goes_on_from=entry.state_folder, state="waiting", queued=now, problems=(), notes=(), ended=None
    )


def settings_to_run(entry: Entry, loras: Path) -> dict[str, Any]:
    """The settings with which a job begins.

    A job that resumes may overwrite LoRAs in between that are newer than its state, since it wrote them itself before it was
    interrupted, but not a LoRA that has taken its name meanwhile.
    """
    if entry.goes_on_from is None:
        return entry.settings
    own = taken_problem(entry.name, loras, overwrite=False) is None
    return {**entry.settings, "resume": entry.goes_on_from, "overwrite": own or entry.settings.get("overwrite", False)}


def settings_to_repeat(entry: Entry, loras: Path, *, from_state: bool = False) -> dict[str, Any]:
    """The settings of a job under a name that is free in the LoRA folder; with `from_state` they resume from its state.

    Raises:
        QueueError: it has no settings, or no state.
    """
    if entry.state == "broken":
        raise QueueError(entry.problems[0])
    if from_state and not has_state(entry):
        raise QueueError(f"{entry.name!r} has no saved state to resume from; repeat it instead.")
    settings = dict(entry.settings)
    if from_state and entry.state_folder:
        settings["resume"] = Path(entry.state_folder).name  # states are found by their names
    if not settings.get("overwrite") and taken_problem(entry.name, loras, overwrite=False):
        settings["name"] = next_free(entry.name, loras)
    return settings


def name_clash(entry: Entry, others: Iterable[Entry], loras: Path) -> str | None:
    """The problem if another job that runs or waits has the entry's name, which would be taken at its turn; else None."""
    active = {other.name.casefold() for other in others if not other.over and other.id != entry.id}
    if not entry.name or entry.settings.get("overwrite") or entry.name.casefold() not in active:
        return None
    names = (f"{entry.name}-{number}" for number in itertools.count(2))
    free = next(name for name in names if name.casefold() not in active and not taken_problem(name, loras, overwrite=False))
    return f"Name (name): {entry.name!r} is the name of a job that runs or waits; use '{free}', or turn on Overwrite (overwrite)."
