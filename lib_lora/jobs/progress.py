"""The progress of a run as an immutable value, read by queue, runner and page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lib_lora.events import (
    BestSaved,
    Chosen,
    Encoded,
    Event,
    Finished,
    HeldOut,
    Left,
    Lent,
    Note,
    Phase,
    Planned,
    Sampled,
    Saved,
    SavedBetween,
    SaveFailed,
    StateSaved,
    StepDone,
)
from lib_lora.output.written_files import left_lines

State = Literal["running", "lent", "paused", "stopping", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Progress:
    """The progress of a run at one moment.

    Attributes:
        started, ended: seconds since 1970; `ended` is None while it runs.
        phase: what the run does now, or its result, for people.
        formula: how `steps` is computed, for people.
        step, steps: updates done, and updates of the whole run.
        epoch: from 1; 0 before the first step.
        steps_per_epoch, epochs: of the plan; 0 before there is one.
        losses: one for each step of this run; may hold NaN and infinity.
        first_step: updates of the state that it resumed from.
        steps_per_s: mean over the last steps; None before there are two.
        eta_s: seconds to the end, with samples, saves, validation and the card; None if unknown.
        memory_gb: GiB in use; None if unknown.
        saved: name of the final LoRA once it is on disk.
        between: names of the LoRAs saved in between, without those removed.
        best: the LoRA with the lowest held-out loss, if it is not the last one and not in use yet.
        state_folder, state_step: the newest saved state, and its step (0 if there is none).
        problems: why it failed.
        left: its files on disk at the end, as lines.
    """

    started: float
    ended: float | None = None
    state: State = "running"
    phase: str = "checking images and settings"
    formula: str = ""
    step: int = 0
    steps: int = 0
    epoch: int = 0
    steps_per_epoch: int = 0
    epochs: int = 0
    losses: tuple[float, ...] = ()
    first_step: int = 0
    steps_per_s: float | None = None
    eta_s: float | None = None
    memory_gb: float | None = None
    saved: str | None = None
    between: tuple[str, ...] = ()
    best: BestSaved | None = None
    state_folder: Path | None = None
    state_step: int = 0
    held_out: tuple[HeldOut, ...] = ()
    sampled: tuple[Sampled, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def after(self, event: Event, now: float) -> Progress:
        """The progress after an event at time `now`; losses, speed, remaining time and memory are left to the caller."""
        told = replace(_with_file(self, event), state="lent" if isinstance(event, Lent) else "running")
        if isinstance(event, Planned):
            plan = event.plan
            told = replace(told, steps_per_epoch=plan.steps_per_epoch, epochs=plan.epochs)
            return replace(told, formula=plan.formula, steps=plan.steps)
        if isinstance(event, StepDone):
            first = self.first_step if self.step else event.step - 1
            return replace(told, phase="training", step=event.step, epoch=event.epoch, first_step=first)
        if isinstance(event, Finished):
            kept = f"saved as {event.path.name}" if event.path else told.stays or "nothing was saved"
            return replace(told, state="done" if event.path else "stopped", phase=kept, ended=now)
        return replace(told, phase=_phase(event) or told.phase)

    def failed(self, problems: tuple[str, ...], now: float) -> Progress:
        """The progress of a run that failed with these problems."""
        kept = f"{self.saved}.safetensors is saved" if self.saved else self.stays or "nothing was saved"
        return replace(self, state="failed", phase=kept, ended=now, problems=problems)

    @property
    def stays(self) -> str:
        """The LoRAs that a run without a result leaves, for people."""
        return f"saved before the end: {', '.join(self.between)}" if self.between else ""


def _phase(event: Event) -> str | None:
    """The phase that an event states, or None."""
    if isinstance(event, (Phase, Lent)):
        return event.text
    if isinstance(event, Encoded):
        return f"encoding image {event.done} of {event.total}"
    if isinstance(event, SaveFailed):
        return f"waiting for space on the disk; press Unpause to save again. {event.text}"
    return None


def _with_file(told: Progress, event: Event) -> Progress:
    """The progress with what an event reports as measured, written, drawn or noted."""
    if isinstance(event, Saved):
        return replace(told, saved=event.path.stem)
    if isinstance(event, SavedBetween):
        stay = [name for name in told.between if name not in (event.removed, event.path.stem)]
        return replace(told, between=(*stay, event.path.stem))
    if isinstance(event, StateSaved):
        return replace(told, state_folder=event.folder, state_step=event.step)
    if isinstance(event, Sampled):
        return replace(told, sampled=(*told.sampled, event))
    if isinstance(event, HeldOut):
        return replace(told, held_out=(*told.held_out, event))
    if isinstance(event, BestSaved):
        return replace(told, best=event)
    if isinstance(event, Chosen):
        return replace(told, choices=(*told.choices, event.text))
    if isinstance(event, Note):
        return replace(told, notes=(*told.notes, event.text))
    if isinstance(event, Left):
        return replace(told, left=tuple(left_lines(event.paths, folders=False)))
    return told
