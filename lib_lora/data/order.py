"""Which images are held out, and the batches of one epoch: pure functions of the seed."""

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


def held_out(sizes: Sequence[int], share: float, seed: int) -> list[tuple[int, int]]:
    """(folder, image) of everything held out of folders with `sizes` images: a pure function of the seed.

    Each folder gives its share, rounded (sd-scripts `split_train_val`), and keeps one image at least; with two images or more
    in all, at least one is held out and one is trained on.
    """
    if share <= 0 or sum(sizes) < 2:
        return []
    counts = [min(round(size * share), size - 1) if size else 0 for size in sizes]
    if not any(counts):
        largest = max(range(len(sizes)), key=lambda folder: (sizes[folder], folder))
        counts[largest] = 1
    return [
        (folder, image)
        for folder, (size, count) in enumerate(zip(sizes, counts))
        for image in sorted(permutation(size, seed, "held out", folder)[:count])
    ]
