"""Mask images: white is learned, black is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lib_lora.data.dataset import Dataset, Sample, checked_picture
from lib_lora.data.decoder_process import NoReaderError, Readers
from lib_lora.data.folders import FolderSearch, link_problem, named
from lib_lora.data.hidden_names import given_name, given_stem
from lib_lora.errors import DatasetError
from lib_lora.paths import pasted

MASKS = "Mask folder (mask_data)"


def with_masks(dataset: Dataset, folder: str) -> Dataset:
    """`dataset` with masks for all but regularisation images: the image of the same stem in `folder`.

    If `folder` has a subfolder with the image folder's name, masks are taken from there.
    """
    search = FolderSearch(MASKS, 1, [], [])
    given = search.named_folder(pasted(folder))
    parents = {sample.path.parent for sample in dataset.samples if not sample.is_reg}
    masks = {} if given is None else {parent: _masks_for(parent, given, search) for parent in parents}
    if search.problems:
        return replace(dataset, problems=(*dataset.problems, *search.problems))
    samples = tuple(
        sample if sample.is_reg else replace(sample, mask=masks[sample.path.parent].get(given_stem(sample.path)))
        for sample in dataset.samples
    )
    missing = [given_name(sample.path) for sample in samples if not sample.is_reg and sample.mask is None]
    problems = [f"{MASKS}: has no mask for {named(missing)}; add one with the same name."] if missing else []
    with Readers() as readers:
        read = [_with_hash(sample, readers) for sample in samples]
    problems += [problem for found in read if not isinstance(found, Sample) for problem in found]
    good = tuple(found for found in read if isinstance(found, Sample))
    return replace(dataset, samples=samples if problems else good, problems=(*dataset.problems, *problems))


def _masks_for(images: Path, given: Path, search: FolderSearch) -> dict[str, Path]:
    """Stem -> mask, for the images of a folder. A link out of the mask folder is a problem."""
    root = given.resolve()
    inside = search.look(given, root)
    if images.name in inside.linked_folders:
        search.problems.append(f"{MASKS}: {link_problem([images.name], root)}")
        return {}
    own = given / images.name
    found = search.look(own, root) if own in inside.folders else inside
    if found.links:
        search.problems.append(f"{MASKS}: {link_problem(found.links, root)}")
    return {given_stem(path): path for path in found.images}


def _with_hash(sample: Sample, readers: Readers) -> Sample | list[str]:
    """The sample with its mask's hash, or the problems of the mask."""
    if sample.mask is None:
        return sample
    try:
        mask = checked_picture(sample.mask, readers)
    except NoReaderError as error:
        return error.problems  # not the mask's fault
    except DatasetError as error:
        return [f"{MASKS}: {problem}" for problem in error.problems]
    except OSError as error:
        return [f"{MASKS}: {given_name(sample.mask)!r} cannot be read ({error.strerror}); check its permissions."]
    if mask.size == sample.file_size:
        return replace(sample, mask_sha256=mask.sha256)
    return [f"{MASKS}: {given_name(sample.mask)!r} is {mask.size}, but its image is {sample.file_size}; make them the same size."]
