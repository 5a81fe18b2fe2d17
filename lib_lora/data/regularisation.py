"""Regularisation images: images of the class, so that the model does not forget it."""

from __future__ import annotations

from collections.abc import Sequence

from lib_lora.data.dataset import REG_DATA, Dataset


def with_regularisation(dataset: Dataset, regularising: Dataset) -> Dataset:
    """Both datasets as one, with the regularisation images last."""
    learned = {folder.path.resolve() for folder in dataset.folders}
    twice = [folder.path.name for folder in regularising.folders if folder.path.resolve() in learned]
    problems = [f"{REG_DATA}: {name!r} is also an Image folder (data); choose another." for name in twice]
    return Dataset(
        dataset.samples + regularising.samples,
        dataset.folders + regularising.folders,
        dataset.problems + regularising.problems + tuple(problems),
        dataset.notes + regularising.notes,
    )


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
