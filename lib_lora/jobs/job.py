"""One run as others see it: state, progress, losses, result. Written by its thread, read by anybody."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from pathlib import Path
from typing import Any, Literal

import torch

from lib_lora.config.groups import TrainConfig
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
from lib_lora.jobs.memory import memory_gb
from lib_lora.jobs.strict import strict
from lib_lora.output.left import left_lines
from lib_lora.run_control import RunControl
from lib_lora.sentences import bounded

State = Literal["running", "lent", "paused", "stopping", "done", "stopped", "failed"]
_SPEED_STEPS = 20  # speed is the mean over this many steps


class Job:
    """The record of a run. `apply` is called by the run's thread alone; `snapshot` by any."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.config = config
        self.control = RunControl(self._wait_for_room)
        self._lock = threading.Lock()
        self._state: State = "running"
        self._phase = "checking images and settings"
        self._formula = ""
        self._step = self._total = self._epoch = 0
        self._losses: list[float] = []
        self._first_step = 0  # steps of the state that the run went on from
        self._held_out: list[HeldOut] = []
        self._between: list[str] = []
        self._sampled: list[Sampled] = []
        self._best: BestSaved | None = None
        self._times: deque[float] = deque(maxlen=_SPEED_STEPS + 1)
        self._problems: list[str] = []
        self._saved: str | None = None
        self._state_folder: Path | None = None
        self._state_step = 0
        self._notes: list[str] = []
        self._choices: list[str] = []
        self._left: list[str] = []
        self._device = device
        self._memory: float | None = None
        self._started, self._ended = time.time(), 0.0

    @property
    def running(self) -> bool:
        return self._ended == 0.0

    @property
    def best(self) -> BestSaved | None:
        """The best LoRA, while it stands beside the last one."""
        return self._best

    @property
    def state_folder(self) -> Path | None:
        """The newest state that this run saved."""
        return self._state_folder

    @property
    def state_step(self) -> int:
        """The step of that state; 0 where there is none."""
        return self._state_step

    def best_used(self, last: Path) -> None:
        """The best LoRA bears the name now; the last one is `last`."""
        with self._lock:
            assert self._best is not None
            self._phase = f"the best of step {self._best.step} is in use; the last one is {last.name}"
            self._best = None

    def pause(self) -> None:
        """Let the run stand after its step until `unpause`."""
        self.control.pause()

    def unpause(self) -> None:
        """Let a paused run go on; its speed is measured anew."""
        with self._lock:
            self._times.clear()
        self.control.unpause()

    def _wait_for_room(self) -> bool:
        """The disk refused a LoRA: the run stands until somebody made room. Whether to try again: not if the end is asked for."""
        if self.control.stop_requested:
            return False
        self.pause()
        self.control.stand()
        return True

    def sample(self, step: int, place: int) -> Path | None:
        """The picture of a prompt after a step of this run."""
        with self._lock:
            found = next((event for event in self._sampled if event.step == step), None)
        return found.paths[place] if found and 0 <= place < len(found.paths) else None

    def apply(self, event: Event) -> None:
        """Take note of what the run tells."""
        memory = memory_gb(self._device)
        with self._lock:
            self._memory = memory
            self._note_file(event)
            self._state = "lent" if isinstance(event, Lent) else "running"
            if isinstance(event, Planned):
                self._formula, self._total = event.plan.formula, event.plan.steps
            elif isinstance(event, Phase):
                self._phase = event.text
            elif isinstance(event, SaveFailed):
                self._phase = f"waiting for room on the disk; press Continue to save again. {event.text}"
            elif isinstance(event, Lent):
                self._phase = event.text
                self._times.clear()  # the speed is measured anew
            elif isinstance(event, Chosen):
                self._choices.append(event.text)
            elif isinstance(event, Encoded):
                self._phase = f"encoding image {event.done} of {event.total}"
            elif isinstance(event, StepDone):
                self._first_step = self._first_step if self._losses else event.step - 1
                self._phase, self._step, self._epoch = "training", event.step, event.epoch
                self._losses.append(event.loss)
                self._times.append(time.monotonic())
            elif isinstance(event, Finished):
                kept = f"saved as {event.path.name}" if event.path else self._stays() or "nothing was kept"
                self._end("done" if event.path else "stopped", kept)

    def _note_file(self, event: Event) -> None:
        """Events of what was measured, written or drawn."""
        if isinstance(event, Saved):
            self._saved = event.path.stem
        elif isinstance(event, SavedBetween):
            self._between = [name for name in self._between if name != event.removed] + [event.path.stem]
        elif isinstance(event, StateSaved):
            self._state_folder, self._state_step = event.folder, event.step
        elif isinstance(event, Sampled):
            self._sampled.append(event)
        elif isinstance(event, HeldOut):
            self._held_out.append(event)
        elif isinstance(event, BestSaved):
            self._best = event
        elif isinstance(event, Note):
            self._notes.append(event.text)
        elif isinstance(event, Left):
            self._left = left_lines(event.paths, folders=False)

    def fail(self, problems: list[str]) -> None:
        """The run ended with these sentences."""
        with self._lock:
            self._problems = problems
            self._end("failed", f"{self._saved}.safetensors is saved" if self._saved else self._stays() or "nothing was saved")

    def _stays(self) -> str:
        """What a run that ends early leaves."""
        return f"saved before the end: {', '.join(self._between)}" if self._between else ""

    def _end(self, state: State, phase: str) -> None:
        self._state, self._phase, self._ended = state, phase, time.time()

    def snapshot(self, since: int = 0) -> dict[str, Any]:
        """All that can be shown, ready for JSON: None for what is no number; `losses` from step `since` on."""
        with self._lock:
            state = self._state
            if self.running:
                state = "stopping" if self.control.stop_requested else "paused" if self.control.paused else state
            speed = self._speed()
            told = {
                "id": self.id,
                "name": self.config.run.name,
                "trigger": self.config.text.trigger,
                "state": state,
                "phase": self._phase,
                "formula": self._formula,
                "step": self._step,
                "total": self._total,
                "epoch": self._epoch,
                "losses": self._losses[max(since, 0) :],
                "loss_count": len(self._losses),
                "first_step": self._first_step,
                "held_out": [[event.step, event.loss] for event in self._held_out],
                "between": self._between,
                "prompts": list(self._sampled[-1].prompts) if self._sampled else [],
                "sampled": [[event.step, len(event.paths)] for event in self._sampled],
                "best": {"step": self._best.step, "loss": self._best.loss} if self._best else None,
                "steps_per_s": speed,
                "eta_s": (self._total - self._step) / speed if speed and self.running else None,
                "seconds": (self._ended or time.time()) - self._started,
                "memory_gb": self._memory if self.running else None,
                "problems": bounded(self._problems),
                "notes": bounded(self._notes),
                "choices": bounded(self._choices),
                "left": bounded(self._left),
                "saved": self._saved,
            }
        plain: dict[str, Any] = strict(told)
        return plain

    def _speed(self) -> float | None:
        if len(self._times) < 2:
            return None
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)
