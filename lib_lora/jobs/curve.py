"""The curve of a run as a bounded number of buckets of steps, which keep every peak, however long the run is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

MOST = 300  # buckets; the page draws at most two points of each
KEPT = 0.95  # decay of the smoothed loss per step


class Bucket(NamedTuple):
    """Consecutive steps.

    Attributes:
        first: its first step, from 1.
        low_step, low, high_step, high: its lowest and its highest finite loss with their steps; None if no loss was finite.
        mean: the smoothed loss after its last step; None before the first finite loss.
        seconds: from the start of the run to its last step.
        low_rate, high_rate: the lowest and the highest learning rate of any group; None if there is none.
        norm: the highest norm of the gradients before clipping; None if none was measured.
    """

    first: int
    low_step: int
    low: float | None
    high_step: int
    high: float | None
    mean: float | None
    seconds: float
    low_rate: float | None
    high_rate: float | None
    norm: float | None


class Curve:
    """Grows by a step at a time. When it has too many buckets, each two become one of twice the `stride` (steps of a bucket)."""

    def __init__(self) -> None:
        self.stride = 1
        self.buckets: list[Bucket] = []
        self._count = 0  # of steps
        self._sum, self._weight = 0.0, 0.0

    def add(self, step: int, loss: float, seconds: float, rates: Sequence[float] = (), norm: float | None = None) -> None:
        """Add a step, from 1; a loss or norm that is not finite is left out."""
        value = loss if math.isfinite(loss) else None
        one = Bucket(step, step, value, step, value, self._smoothed(value), seconds, *_ends(rates), _finite(norm))
        if self._count % self.stride:
            self.buckets[-1] = _merged(self.buckets[-1], one)
        else:
            self._make_room()
            self.buckets.append(one)
        self._count += 1

    def since(self, stride: int, place: int) -> dict[str, Any]:
        """The buckets from `place` on for somebody who has those before it at this `stride`; all, if it has changed."""
        first = min(max(place, 0), len(self.buckets)) if stride == self.stride else 0
        return {"stride": self.stride, "first": first, "buckets": [list(bucket) for bucket in self.buckets[first:]]}

    def _smoothed(self, loss: float | None) -> float | None:
        """The exponential mean, corrected for its start (Kingma and Ba 2015, section 3)."""
        if loss is not None:
            self._sum, self._weight = KEPT * self._sum + (1 - KEPT) * loss, KEPT * self._weight + 1 - KEPT
        return self._sum / self._weight if self._weight else None

    def _make_room(self) -> None:
        if len(self.buckets) == MOST:
            self.buckets = [_merged(*self.buckets[place : place + 2]) for place in range(0, MOST, 2)]
            self.stride *= 2


def _merged(one: Bucket, other: Bucket) -> Bucket:
    """Two buckets as one; equal losses: the earlier counts."""
    low = min((one, other), key=lambda bucket: math.inf if bucket.low is None else bucket.low)
    high = max((one, other), key=lambda bucket: -math.inf if bucket.high is None else bucket.high)
    rates = [rate for rate in (one.low_rate, one.high_rate, other.low_rate, other.high_rate) if rate is not None]
    norms = [norm for norm in (one.norm, other.norm) if norm is not None]
    return Bucket(
        one.first, low.low_step, low.low, high.high_step, high.high, other.mean, other.seconds, *_ends(rates),
        max(norms, default=None),
    )  # fmt: skip


def _ends(values: Sequence[float]) -> tuple[float | None, float | None]:
    return min(values, default=None), max(values, default=None)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
