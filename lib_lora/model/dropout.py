"""Dropout of parts of the adapters in a training step (kohya `networks/lora.py` LoRAModule.forward; DyLoRA).

Draws are functions of (seed, step, layer, index in the step), so a forward recomputed for backward, a resumed run, and several
batches instead of a large one all draw the same.
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
    """The current batch: `count` samples of `step`, the first of them at index `first`."""

    step: int
    first: int
    count: int


class Dropout:
    """Used by the adapters' `forward`s; active only within `during`, so that samples and validation use the whole adapters."""

    def __init__(self, adapter: AdapterConfig, seed: int) -> None:
        self._values, self._ranks, self._modules = adapter.network_dropout, adapter.rank_dropout, adapter.module_dropout
        self._unit = adapter.unit
        self._seed = seed
        self._moment: _Moment | None = None

    @contextmanager
    def during(self, step: int, first: int, count: int) -> Iterator[None]:
        """Context manager for forward and backward of a batch with dropout."""
        self._moment = _Moment(step, first, count)
        try:
            yield
        finally:
            self._moment = None

    @property
    def used(self) -> bool:
        """Whether the settings use any dropout."""
        return max(self._values, self._ranks, self._modules, self._unit) > 0

    @property
    def active(self) -> bool:
        """Whether dropout applies now."""
        return self._moment is not None and self.used

    def skips(self, name: str) -> bool:
        """Whether the layer's whole adapter is dropped for this batch."""
        if self._moment is None or self._modules == 0:
            return False
        return uniform(self._seed, "module dropout", self._moment.step, name, self._moment.first) < self._modules

    def applied(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        """`hidden` with values and ranks dropped, and the rest scaled up to compensate.

        With DyLoRA (Valipour et al. 2022) the first b ranks stay and are trained, scaled by alpha / b instead of alpha / rank, as
        if the file were truncated to rank b with the same alpha.

        Shapes:
            hidden: down(x), `[n · B, tokens, rank]` or `[B, rank, h, w]`; rows of one sample (its chunks of text) are adjacent.
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
        """Keep the first ranks: a multiple of the unit, the same in every layer of a step, at most the layer's rank."""
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
        """Uniform numbers from 0 to 1, drawn for each sample separately."""
        assert self._moment is not None
        rows = (shape[0] // self._moment.count, *shape[1:])
        drawn = [torch.rand(rows, generator=generator(self._seed, what, self._moment.step, name, self._moment.first + place))
                 for place in range(self._moment.count)]  # fmt: skip
        return torch.cat(drawn)
