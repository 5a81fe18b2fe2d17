"""Mask images: white is learned, black is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lib_lora.data.dataset import Dataset, Sample, checked_size
from lib_lora.data.folders import images_in
from lib_lora.data.reader import Readers
from lib_lora.errors import DatasetError

NAMED = 5  # so many files are named in a sentence


def with_masks(dataset: Dataset, folder: str) -> Dataset:
    """Every image but regularisation images with its mask: the image of the same stem in `folder`.

    Where `folder` holds a folder of the image folder's own name, masks are looked for there.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        told = f"Mask folder (mask_data): {folder!r} does not exist or is no folder."
        return replace(dataset, problems=(*dataset.problems, told))
    masks = {parent: _masks_for(parent, root) for parent in {sample.path.parent for sample in dataset.samples}}
    samples = tuple(
        sample if sample.is_reg else replace(sample, mask=masks[sample.path.parent].get(sample.path.stem))
        for sample in dataset.samples
    )
    missing = [sample.path.name for sample in samples if not sample.is_reg and sample.mask is None]
    problems = [f"Mask folder (mask_data): no mask image for {_named(missing)}; add one of the same name."] if missing else []
    with Readers() as readers:
        problems += [problem for sample in samples for problem in _mask_problems(sample, readers)]
    return replace(dataset, samples=samples, problems=(*dataset.problems, *problems))


def _masks_for(images: Path, root: Path) -> dict[str, Path]:
    own = root / images.name
    return {path.stem: path for path in images_in(own if own.is_dir() else root)}


def _mask_problems(sample: Sample, readers: Readers) -> list[str]:
    if sample.mask is None:
        return []
    try:
        size = checked_size(sample.mask, readers)
    except DatasetError as error:
        return [f"Mask folder (mask_data): {problem}" for problem in error.problems]
    except OSError as error:
        return [f"Mask folder (mask_data): {sample.mask.name!r} cannot be read ({error.strerror}); check its permissions."]
    if size == sample.size:
        return []
    return [f"Mask folder (mask_data): {sample.mask.name!r} is {size}, but its image {sample.size}; make them equal."]


def _named(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(repr(name) for name in listed[:NAMED]) + more
