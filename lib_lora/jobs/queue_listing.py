"""Running job, queue and history for the page, as plain values for JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lib_lora.config.groups import all_options
from lib_lora.config.options import Option
from lib_lora.errors import bounded
from lib_lora.jobs.history import can_resume, has_state
from lib_lora.jobs.job import Job
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_entry import Entry, strict

LONGEST_NAME, LONGEST = 200, 2000  # characters of a name and of a sentence that the list shows


def listing(queue: Queue) -> dict[str, Any]:
    """All jobs in the order in which the page shows them; `place` numbers those that wait."""
    revision, entries = queue.revision, queue.entries
    waiting = [entry.id for entry in entries if entry.state == "waiting" and not queue.elsewhere(entry.id)]
    places = {entry_id: place for place, entry_id in enumerate(waiting, 1)}
    rows = [{**_row(entry), "place": places.get(entry.id), "elsewhere": queue.elsewhere(entry.id)} for entry in entries]
    told = " ".join(text for text in (queue.told, queue.keeper.trouble) if text)
    found = {"revision": revision, "held": queue.held, "trouble": told, "jobs": rows, "kept": queue.keeper.shown()}
    return {key: strict(value) for key, value in found.items()}


def details(entry: Entry) -> dict[str, Any]:
    """All that is known of one job; `settings` are those that differ from their defaults, as [label, name, value]."""
    changed = [
        [opt.declaration.label, opt.name, _named(opt, entry.settings[opt.name])]
        for opt in all_options()
        if opt.name in entry.settings and _text(entry.settings[opt.name]) != _text(opt.default)
    ]
    found = {
        **_row(entry),
        "started": entry.started,
        "first_step": entry.first_step,
        "curve": list(entry.curve),
        "notes": bounded(entry.notes),
        "between": list(entry.between),
        "newest_state": Path(entry.state_folder).name if entry.state_folder else None,
        "settings": changed,
    }
    return {key: strict(value) for key, value in found.items()}


def job_json(job: Job, since: int = 0) -> dict[str, Any]:
    """A run and its progress; `losses` begin with its step `since`."""
    progress = job.progress
    best, running = progress.best, progress.ended is None
    found = {
        "id": job.id,
        "started": progress.started,  # the same job may run again
        "name": job.config.run.name,
        "trigger": job.config.text.trigger,
        "state": progress.state,
        "asked": job.control.asked if running else [],
        "phase": progress.phase,
        "formula": progress.formula,
        "step": progress.step,
        "total": progress.steps,
        "epoch": progress.epoch,
        "steps_per_epoch": progress.steps_per_epoch,
        "epochs": progress.epochs,
        "losses": progress.losses[max(since, 0) :],
        "loss_count": len(progress.losses),
        "first_step": progress.first_step,
        "held_out": [[event.step, event.loss] for event in progress.held_out],
        "between": progress.between,
        "prompts": progress.sampled[-1].prompts if progress.sampled else [],
        "sampled": [[event.step, len(event.paths)] for event in progress.sampled],
        "best": {"step": best.step, "loss": best.loss} if best else None,
        "steps_per_s": progress.steps_per_s,
        "eta_s": progress.eta_s,
        "seconds": (progress.ended or time.time()) - progress.started,
        "memory_gb": progress.memory_gb if running else None,
        "problems": bounded(progress.problems),
        "notes": bounded(progress.notes),
        "choices": bounded(progress.choices),
        "left": bounded(progress.left),
        "saved": progress.saved,
    }
    return {key: strict(value) for key, value in found.items()}


def page_json(job: Job, stride: int, place: int) -> dict[str, Any]:
    """As `job_json`, with the curve in place of the losses: its buckets from `place` on for a page that has the others."""
    found = job_json(job, len(job.progress.losses))
    del found["losses"]
    return {**found, "curve": {**strict(job.curve(stride, place))}}


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "name": entry.name[:LONGEST_NAME],
        "state": entry.state,
        "when": entry.ended or entry.started or entry.queued,
        "step": entry.step,
        "total": entry.total,
        "loss": entry.loss,
        "checkpoint": entry.checkpoint,
        "problems": bounded([problem[:LONGEST] for problem in entry.problems]),
        "saved": entry.saved,
        "can_resume": can_resume(entry),
        "has_state": entry.over and has_state(entry),
    }


def _named(opt: Option, value: Any) -> str:
    """The value as text; paths without their folders, since not everybody who may look may know them."""
    if not opt.names_path(value):
        return _text(value)
    return _text([Path(str(part)).name for part in value] if isinstance(value, (list, tuple)) else Path(str(value)).name)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
