"""The adapters at their lowest held-out loss, kept in memory until the end of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

State = dict[str, torch.Tensor]


class BestSoFar:
    """Remembers the best measurement. Of equal losses the first counts; what is no number counts never."""

    def __init__(self) -> None:
        self.step, self.loss = 0, math.inf
        self.adapters: State = {}
        self._last_step = 0

    def measured(self, step: int, loss: float, adapters: Callable[[], State]) -> bool:
        """Take note of a held-out loss after `step`; `adapters` gives CPU copies of the weights to be kept."""
        self._last_step = step
        if not loss < self.loss:
            return False
        self.step, self.loss, self.adapters = step, loss, adapters()
        return True

    def state(self) -> dict[str, Any]:
        """For a state on disk."""
        loss = self.loss if self.step else None
        return {"step": self.step, "loss": loss, "last_step": self._last_step, "adapters": self.adapters}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """As it was when `state()` was called."""
        self.step, self._last_step, self.adapters = int(state["step"]), int(state["last_step"]), dict(state["adapters"])
        self.loss = math.inf if state["loss"] is None else float(state["loss"])

    @property
    def worth_saving(self) -> bool:
        """Whether a later measurement was worse than the best one."""
        return 0 < self.step < self._last_step
