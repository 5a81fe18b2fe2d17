"""The held-out images, the batches of one epoch and repeats of regularisation images, as pure functions of the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_lora.data.sizes import Size
from lib_lora.randomness import permutation

Buckets = Mapping[Size, Sequence[int]]


def batches_per_epoch(buckets: Buckets, batch_size: int) -> int:
    """Number of batches in an epoch; each bucket is rounded up."""
    return sum(-(-len(members) // batch_size) for members in buckets.values())


def epoch_batches(buckets: Buckets, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Sample indices of every batch of `epoch`: samples are shuffled within buckets, then all batches; a batch has one size."""
    batches = []
    for size, members in sorted(buckets.items()):
        order = permutation(len(members), seed, "order", epoch, str(size))
        batches += [[members[i] for i in order[first : first + batch_size]] for first in range(0, len(order), batch_size)]
    return [batches[i] for i in permutation(len(batches), seed, "batches", epoch)]


def held_out(sizes: Sequence[int], share: float, seed: int) -> list[tuple[int, int]]:
    """(folder, image) of all images held out of folders with `sizes` images.

    Each folder gives `share` of its images, rounded (sd-scripts `split_train_val`), and keeps at least one. With two or more
    images in total, at least one is held out and one is trained on.
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


def matched_repeats(repeats: Sequence[int], wanted: int) -> list[int]:
    """How often each regularisation image is shown per epoch, `wanted` times in total (sd-scripts `DreamBoothDataset`).

    Images are taken in order, each with its own repeats, until there are `wanted`; the last one may exceed it, and the others
    are not used. If all are too few, they are shown once more each, from the first on.
    """
    shown = [0] * len(repeats)
    for index, own in enumerate(repeats):
        if sum(shown) >= wanted:
            return shown
        shown[index] = own
    missing = max(wanted - sum(shown), 0)
    return [count + missing // len(shown) + (index < missing % len(shown)) for index, count in enumerate(shown)]
