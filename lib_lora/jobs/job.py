"""One run as others see it: state, progress, losses, result. Written by its thread, read by anybody."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from typing import Any, Literal

import torch

from lib_lora.config.groups import TrainConfig
from lib_lora.events import Chosen, Encoded, Event, Finished, HeldOut, Note, Phase, Planned, Saved, StepDone, Stop
from lib_lora.jobs.memory import memory_gb

State = Literal["running", "stopping", "done", "stopped", "failed"]
_SPEED_STEPS = 20  # speed is the mean over this many steps


class Job:
    """The record of a run. `apply` is called by the run's thread alone; `snapshot` by any."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.config = config
        self.stop = Stop()
        self._lock = threading.Lock()
        self._state: State = "running"
        self._phase = "checking images and settings"
        self._formula = ""
        self._step = self._total = self._epoch = 0
        self._losses: list[float] = []
        self._heldout: list[tuple[int, float]] = []
        self._times: deque[float] = deque(maxlen=_SPEED_STEPS + 1)
        self._problems: list[str] = []
        self._saved: str | None = None
        self._notes: list[str] = []
        self._choices: list[str] = []
        self._device = device
        self._memory: float | None = None
        self._started, self._ended = time.time(), 0.0

    @property
    def running(self) -> bool:
        return self._ended == 0.0

    def apply(self, event: Event) -> None:
        """Take note of what the run tells."""
        memory = memory_gb(self._device)
        with self._lock:
            self._memory = memory
            if isinstance(event, Planned):
                self._formula, self._total = event.plan.formula, event.plan.steps
            elif isinstance(event, Phase):
                self._phase = event.text
            elif isinstance(event, Chosen):
                self._choices.append(event.text)
            elif isinstance(event, Encoded):
                self._phase = f"encoding image {event.done} of {event.total}"
            elif isinstance(event, StepDone):
                self._phase, self._step, self._epoch = "training", event.step, event.epoch
                self._losses.append(event.loss)
                self._times.append(time.monotonic())
            elif isinstance(event, HeldOut):
                self._heldout.append((event.step, event.loss))
            elif isinstance(event, Saved):
                self._saved = event.path.stem
            elif isinstance(event, Note):
                self._notes.append(event.text)
            elif isinstance(event, Finished):
                self._end(
                    "done" if event.path else "stopped", f"saved as {event.path.name}" if event.path else "nothing was kept"
                )

    def fail(self, problems: list[str]) -> None:
        """The run ended with these sentences."""
        with self._lock:
            self._problems = problems
            self._end("failed", f"{self._saved}.safetensors is saved" if self._saved else "nothing was saved")

    def _end(self, state: State, phase: str) -> None:
        self._state, self._phase, self._ended = state, phase, time.time()

    def snapshot(self, since: int = 0) -> dict[str, Any]:
        """All that can be shown, ready for JSON; `losses` from step `since` on."""
        with self._lock:
            state: State = "stopping" if self.running and self.stop.requested else self._state
            speed = self._speed()
            return {
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
                "heldout": [[step, loss] for step, loss in self._heldout],
                "steps_per_s": speed,
                "eta_s": (self._total - self._step) / speed if speed and self.running else None,
                "seconds": (self._ended or time.time()) - self._started,
                "memory_gb": self._memory if self.running else None,
                "problems": self._problems,
                "notes": self._notes,
                "choices": self._choices,
                "saved": self._saved,
            }

    def _speed(self) -> float | None:
        if len(self._times) < 2:
            return None
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)
