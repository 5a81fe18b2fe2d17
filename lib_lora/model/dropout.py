"""What of the adapters is left out at random in a training step (kohya `networks/lora.py` LoRAModule.forward; DyLoRA).

Draws are functions of (seed, step, layer, place in the step): a forward that is computed again for backward, a resumed run, and
several batches in place of a large one all draw the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from lib_lora.config.adapter import AdapterConfig
from lib_lora.randomness import generator, uniform


@dataclass(frozen=True)
class _Moment:
    """The batch that goes through the model: `count` samples, the first of them at place `first` of `step`."""

    step: int
    first: int
    count: int


class Dropout:
    """Held by the forwards of the adapters; does nothing but within `during`, so that pictures and measurements are whole."""

    def __init__(self, adapter: AdapterConfig, seed: int) -> None:
        self._values, self._ranks, self._modules = adapter.network_dropout, adapter.rank_dropout, adapter.module_dropout
        self._unit = adapter.unit
        self._seed = seed
        self._moment: _Moment | None = None

    @contextmanager
    def during(self, step: int, first: int, count: int) -> Iterator[None]:
        """Forward and backward of a batch, in which parts are left out."""
        self._moment = _Moment(step, first, count)
        try:
            yield
        finally:
            self._moment = None

    @property
    def used(self) -> bool:
        """Whether anything is ever left out."""
        return max(self._values, self._ranks, self._modules, self._unit) > 0

    @property
    def active(self) -> bool:
        """Whether it is now."""
        return self._moment is not None and self.used

    def skips(self, name: str) -> bool:
        """Whether the whole adapter of the layer is left out for this batch."""
        if self._moment is None or self._modules == 0:
            return False
        return uniform(self._seed, "module dropout", self._moment.step, name, self._moment.first) < self._modules

    def applied(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        """Values and ranks of `hidden` left out, and what stays made stronger by as much.

        Of a DyLoRA (Valipour et al. 2022) the first b ranks stay and learn, scaled by alpha / b in place of alpha / rank, as they
        are when the file is cut down to b with the same alpha.

        Shapes:
            hidden: down(x), `[n · B, tokens, rank]` or `[B, rank, h, w]`; rows of one sample (its chunks of text) lie together.
        """
        if self._moment is None:
            return hidden
        if self._values > 0:
            kept = self._drawn(tuple(hidden.shape), "dropout", name) >= self._values
            hidden = hidden * (kept.to(hidden.device) / (1 - self._values)).to(hidden.dtype)
        if self._unit > 0:
            hidden = self._prefix(hidden)
        if self._ranks > 0:
            rank_axis = 1 if hidden.dim() == 4 else -1
            kept = self._drawn((len(hidden), hidden.shape[rank_axis]), "rank dropout", name) > self._ranks
            shape = [len(hidden)] + [1] * (hidden.dim() - 1)
            shape[rank_axis] = hidden.shape[rank_axis]
            hidden = hidden * (kept.to(hidden.device) / (1 - self._ranks)).to(hidden.dtype).reshape(shape)
        return hidden

    def _prefix(self, hidden: torch.Tensor) -> torch.Tensor:
        """What stays is a multiple of the unit, the same in every layer of a step, and at most the layer's rank."""
        assert self._moment is not None
        rank_axis = 1 if hidden.dim() == 4 else -1
        rank = hidden.shape[rank_axis]
        chance = uniform(self._seed, "dylora", self._moment.step)
        kept = min(rank, self._unit * (1 + int(chance * -(-rank // self._unit))))
        shape = [1] * hidden.dim()
        shape[rank_axis] = rank
        factors = (torch.arange(rank, device=hidden.device) < kept) * (rank / kept)
        return hidden * factors.to(hidden.dtype).reshape(shape)

    def _drawn(self, shape: tuple[int, ...], what: str, name: str) -> torch.Tensor:
        """Numbers from 0 to 1, drawn for every sample by itself."""
        assert self._moment is not None
        rows = (shape[0] // self._moment.count, *shape[1:])
        drawn = [torch.rand(rows, generator=generator(self._seed, what, self._moment.step, name, self._moment.first + place))
                 for place in range(self._moment.count)]  # fmt: skip
        return torch.cat(drawn)
