"""Mask images: white is learned, black is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lib_lora.data.dataset import MAX_IMAGES, Dataset, Sample
from lib_lora.data.decoder_process import Mask, NoReaderError, Readers
from lib_lora.data.folders import FolderSearch, link_problem, named
from lib_lora.data.hidden_names import given_name, given_stem
from lib_lora.data.image_files import NotNowError
from lib_lora.data.sizes import Crop
from lib_lora.errors import DatasetError
from lib_lora.paths import pasted

MASKS = "Mask folder (mask_data)"
_measured: dict[tuple[Path, int, int, Crop | None], Mask | DatasetError] = {}  # by path, mtime, length and part


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
    return _with_facts(dataset, samples, problems, MASKS)


def with_painted_masks(dataset: Dataset) -> Dataset:
    """`dataset` with the masks that were painted for its images; the others are learned whole."""
    painted = painted_masks(dataset)
    samples = tuple(replace(sample, mask=painted.get(index)) for index, sample in enumerate(dataset.samples))
    return _with_facts(dataset, samples, [], "")


def painted_masks(dataset: Dataset) -> dict[int, Path]:
    """Index of a sample -> the mask that was painted for it. Regularisation images have none."""
    folders = {folder.path: folder for folder in dataset.folders}
    found = {}
    for index, sample in enumerate(dataset.samples):
        folder = None if sample.is_reg else folders.get(sample.path.parent)
        mask = folder and folder.mask(sample.path)
        if mask:
            found[index] = mask
    return found


def masks_told(samples: Sequence[Sample]) -> str:
    """How many images have a mask and how much those cover, in words; empty if none has one."""
    learned = [sample for sample in samples if not sample.is_reg]
    covered = [sample.mask_covered for sample in learned if sample.mask is not None]
    if not covered:
        return ""
    mean = f"{100 * sum(covered) / len(covered):.0f}"
    if len(covered) == 1:
        return f"1 of {len(learned)} images has a mask; it covers {mean} %"
    return f"{len(covered)} of {len(learned)} images have a mask; they cover {mean} % on average"


def _with_facts(dataset: Dataset, samples: Sequence[Sample], problems: list[str], title: str) -> Dataset:
    """`dataset` with samples whose masks are decoded. `title`: of the option that names them; empty for painted ones."""
    with Readers() as readers:
        read = [_with_hash(sample, readers, title) for sample in samples]
    problems += [problem for found in read if not isinstance(found, Sample) for problem in found]
    good = tuple(found for found in read if isinstance(found, Sample))
    return replace(dataset, samples=tuple(samples) if problems else good, problems=(*dataset.problems, *problems))


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


def _with_hash(sample: Sample, readers: Readers, title: str) -> Sample | list[str]:
    """The sample with the facts of its mask, or the problems of the mask."""
    if sample.mask is None:
        return sample
    name = f"{title}: {given_name(sample.mask)!r}" if title else f"The mask of {given_name(sample.path)!r}"
    try:
        mask = _checked_mask(sample.mask, sample.crop, readers)
    except NoReaderError as error:
        return error.problems  # not the mask's fault
    except DatasetError as error:
        return [f"{title}: {problem}" for problem in error.problems] if title else [f"{name} cannot be read; paint it again."]
    except OSError as error:
        return [f"{name} cannot be read ({error.strerror}); {'check its permissions' if title else 'paint it again'}."]
    if mask.size == sample.file_size:
        return replace(sample, mask_sha256=mask.sha256, mask_covered=mask.covered)
    return [f"{name} is {mask.size}, but its image is {sample.file_size}; make them the same size."]


def _checked_mask(path: Path, crop: Crop | None, readers: Readers) -> Mask:
    """As `dataset.checked_picture`, of a mask."""
    stat = path.stat()
    key = path, stat.st_mtime_ns, stat.st_size, crop
    found = _measured.get(key)
    if found is None:
        try:
            found = readers.mask(path, crop)
        except NotNowError:
            raise
        except DatasetError as error:
            found = error
        if len(_measured) >= 4 * MAX_IMAGES:
            _measured.clear()
        _measured[key] = found
    if isinstance(found, DatasetError):
        raise DatasetError(found.problems)
    return found
