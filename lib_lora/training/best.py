"""The adapters with the lowest validation loss, kept in memory until the end of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

State = dict[str, torch.Tensor]


class BestSoFar:
    """Keeps the best validation. Equal losses: the first wins. NaN and infinity are ignored."""

    def __init__(self) -> None:
        self.step, self.loss = 0, math.inf
        self.adapters: State = {}
        self._last_step = 0

    def measured(self, step: int, loss: float, adapters: Callable[[], State]) -> bool:
        """Record a validation loss after `step`; returns whether it is the best. `adapters`: makes CPU copies of the weights."""
        self._last_step = step
        if not loss < self.loss:
            return False
        self.step, self.loss, self.adapters = step, loss, adapters()
        return True

    def state(self) -> dict[str, Any]:
        """The values for a state on disk."""
        loss = self.loss if self.step else None
        return {"step": self.step, "loss": loss, "last_step": self._last_step, "adapters": self.adapters}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state()` returned."""
        self.step, self._last_step, self.adapters = int(state["step"]), int(state["last_step"]), dict(state["adapters"])
        self.loss = math.inf if state["loss"] is None else float(state["loss"])

    @property
    def worth_saving(self) -> bool:
        """Whether a later validation was not better than the best one."""
        return 0 < self.step < self._last_step
