"""What can be done with a job of the past: go on from its state, or take its settings again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib_lora.config.names import next_free, taken_problem
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_store import QueueError, is_folder


def has_state(entry: Entry) -> bool:
    """Whether the newest state of a job is still there."""
    return entry.state_folder is not None and is_folder(entry.state_folder)


def can_resume(entry: Entry) -> bool:
    """Whether a job ended before its end, with a state to go on from."""
    return entry.state in {"stopped", "failed", "interrupted"} and has_state(entry)


def after_restart(entry: Entry) -> Entry:
    """What was running when the program ended was interrupted. Its file is left as it is until something new is to be said."""
    if entry.state != "running":
        return entry
    told = "The program ended while this job was running."
    return dataclasses.replace(entry, state="interrupted", direct=False, ended=entry.seen, problems=(told,))


def foreign_problem(entry: Entry) -> str:
    """The sentence that says a job is another program's."""
    does = "is running" if entry.state == "running" else "waits"
    return f"{entry.name!r} {does} in another webui that uses this data folder; change it there."


def waiting_again(entry: Entry, now: float) -> Entry:
    """The same job, to go on from its state.

    Raises:
        QueueError: it has none, or came to its end.
    """
    if not can_resume(entry):
        raise QueueError(f"{entry.name!r} has no saved state to resume from; repeat it instead.")
    return dataclasses.replace(
        entry, goes_on_from=entry.state_folder, state="waiting", queued=now, problems=(), notes=(), ended=None
    )


def settings_to_run(entry: Entry, loras: Path) -> dict[str, Any]:
    """The settings of a job when its turn comes.

    One that goes on may replace files in between that are newer than its state: it wrote them before it was interrupted. But
    not a LoRA that has its name by now.
    """
    if entry.goes_on_from is None:
        return entry.settings
    own = taken_problem(entry.name, loras, overwrite=False) is None
    return {**entry.settings, "resume": entry.goes_on_from, "overwrite": own or entry.settings.get("overwrite", False)}


def settings_to_repeat(entry: Entry, loras: Path, *, from_state: bool = False) -> dict[str, Any]:
    """The settings of a job under a name that is free in the folder of LoRAs; with `from_state` to go on from its state.

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
    """The sentence that says another job that runs or waits has this name, which would be taken when the turn comes; or None."""
    active = {other.name.casefold() for other in others if not other.over and other.id != entry.id}
    if not entry.name or entry.settings.get("overwrite") or entry.name.casefold() not in active:
        return None
    number = 2
    while f"{entry.name}-{number}".casefold() in active or taken_problem(f"{entry.name}-{number}", loras, overwrite=False):
        number += 1
    return (
        f"Name (name): {entry.name!r} is the name of a job that runs or waits; use '{entry.name}-{number}', or turn on Overwrite "
        "(overwrite)."
    )
