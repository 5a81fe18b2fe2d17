"""Buckets -> batches of one epoch: a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_lora.data.sizes import Size
from lib_lora.randomness import permutation

Buckets = Mapping[Size, Sequence[int]]


def batches_per_epoch(buckets: Buckets, batch_size: int) -> int:
    """How many batches an epoch has: every bucket rounds up for itself."""
    return sum(-(-len(members) // batch_size) for members in buckets.values())


def epoch_batches(buckets: Buckets, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Sample indices of every batch of `epoch`, shuffled within buckets and then among them; a batch has one size."""
    batches = []
    for size, members in sorted(buckets.items()):
        order = permutation(len(members), seed, "order", epoch, str(size))
        batches += [[members[i] for i in order[first : first + batch_size]] for first in range(0, len(order), batch_size)]
    return [batches[i] for i in permutation(len(batches), seed, "batches", epoch)]
