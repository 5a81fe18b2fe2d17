"""One run, as seen by other threads."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lib_lora.config.groups import TrainConfig
from lib_lora.events import Event, Lent, Planned, StepDone
from lib_lora.jobs.curve import Curve
from lib_lora.jobs.progress import Progress, State
from lib_lora.jobs.remaining import Timing
from lib_lora.run_control import RunControl
from lib_lora.training.memory import memory_gb

_SPEED_STEPS = 20  # speed is the mean over this many steps


def new_id() -> str:
    """A unique id that is valid as a folder name."""
    return uuid.uuid4().hex[:12]


class Job:
    """The record of a run. Only the run's thread calls `apply`; any thread may read `progress`.

    Args:
        config: the settings.
        device: the device whose memory use is reported.
        job_id: id in the queue; default: a new one.
    """

    def __init__(self, config: TrainConfig, device: torch.device, job_id: str | None = None) -> None:
        self.id = job_id or new_id()
        self.config = config
        self.control = RunControl(self._wait_for_room)
        self._device = device
        self._lock = threading.RLock()  # a signal handler may interrupt the thread that holds it
        self._told = Progress(time.time())
        self._losses: list[float] = []
        self._curve, self._timing = Curve(), Timing()
        self._times: deque[float] = deque(maxlen=_SPEED_STEPS + 1)

    @property
    def running(self) -> bool:
        return self._told.ended is None

    @property
    def progress(self) -> Progress:
        """The progress of the run now."""
        with self._lock:
            eta_s = self._timing.remaining_s(self.control.clock_s) if self.running else None
            told = replace(self._told, state=self._state(), losses=tuple(self._losses), steps_per_s=self._speed())
            return replace(told, eta_s=eta_s)

    def curve(self, stride: int, place: int) -> dict[str, Any]:
        """The curve's buckets from `place` on for somebody who has those before it at this `stride`; else all."""
        with self._lock:
            return self._curve.since(stride, place)

    def best_used(self, last: Path) -> None:
        """Record that the best LoRA has taken the name, and that the last one is now `last`."""
        with self._lock:
            assert self._told.best is not None
            phase = f"the best, of step {self._told.best.step}, is in use; the last one is {last.name}"
            self._told = replace(self._told, phase=phase, best=None)

    def pause(self) -> None:
        """Pause the run after its step until `unpause`."""
        self.control.pause()

    def unpause(self) -> None:
        """Unpause the run; its speed is measured anew."""
        with self._lock:
            self._times.clear()
        self.control.unpause()

    def _wait_for_room(self) -> bool:
        """Pause until the user unpauses, since the disk refused a LoRA; returns whether to retry (not if a stop is requested)."""
        if self.control.stop_requested:
            return False
        self.pause()
        self.control.stand()
        return True

    def sample(self, step: int, place: int) -> Path | None:
        """The sample of the prompt at `place` after `step`; None if there is none."""
        found = next((event for event in self._told.sampled if event.step == step), None)
        return found.paths[place] if found and 0 <= place < len(found.paths) else None

    def apply(self, event: Event) -> None:
        """Update the progress with an event."""
        memory, now = memory_gb(self._device), time.time()
        if isinstance(event, Planned):
            self._timing.follow(self.config, event.plan)
        with self._lock:
            self._told = replace(self._told.after(event, now), memory_gb=memory)
            self._timing.happened(event, self.control.clock_s)
            if isinstance(event, StepDone):
                self._losses.append(event.loss)
                seconds = now - self._told.started
                self._curve.add(event.step, event.loss, seconds, event.learning_rates, event.gradient_norm)
                self._times.append(time.monotonic())
            elif isinstance(event, Lent):
                self._times.clear()  # the speed is measured anew

    def fail(self, problems: list[str]) -> None:
        """Record that the run failed with these problems."""
        with self._lock:
            self._told = self._told.failed(tuple(problems), time.time())

    def _state(self) -> State:
        if not self.running:
            return self._told.state
        return "stopping" if self.control.stop_requested else "paused" if self.control.paused else self._told.state

    def _speed(self) -> float | None:
        if len(self._times) < 2:
            return None
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)
