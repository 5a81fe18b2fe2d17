"""Exponential moving average (EMA) of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """average ← d · average + (1 - d) · weights after every step, in fp32; d grows as (1 + n) / (10 + n) up to `decay`.

    The growth (as in timm and diffusers) limits the influence of the first steps on a short run.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = decay
        self.steps = 0
        self.averages = [parameter.detach().float().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after a step to the averages."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        for average, parameter in zip(self.averages, self._parameters):
            average.lerp_(parameter.detach().float(), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """The averages and their number of steps."""
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict()` of another run."""
        self.steps = int(state["steps"])
        for average, value in zip(self.averages, state["averages"]):
            average.copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """In the block, the parameters hold the averages."""
        trained = [parameter.detach().clone() for parameter in self._parameters]
        self._write(self.averages)
        try:
            yield
        finally:
            self._write(trained)

    @torch.no_grad()
    def _write(self, values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self._parameters, values):
            parameter.copy_(value)
