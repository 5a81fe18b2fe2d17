"""Which images are held out: never trained on, so that the loss on them shows when to stop."""

from __future__ import annotations

from collections.abc import Sequence

from lib_lora.randomness import permutation


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
