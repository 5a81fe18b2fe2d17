"""Masks painted for the images of a dataset: stored under the hash of their content, named by the images' edits."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from lib_lora.data.decoder_process import Readers
from lib_lora.data.edits import MASKS, PaintedMask
from lib_lora.data.hidden_names import hidden_name
from lib_lora.data.image_files import MAX_BYTES, file_content
from lib_lora.datasets.image_set import ImageEntry, ImageSet
from lib_lora.datasets.placing import ARRIVING
from lib_lora.errors import DatasetError, TooLargeError
from lib_lora.files.atomic import TEMPORARY, passing_name

MADE = ("inverted", "transparency", "filled")  # masks that need no painting
KEPT_S = 24 * 3600  # how long a mask is kept that nobody names: its image may be on its way


def make_mask(dataset: ImageSet, image_id: str, how: str, readers: Readers, painted: Path | None = None) -> None:
    """Give an image another mask, as a change that can be undone.

    Args:
        how: "painted", or one of MADE: the inverse of its mask, its transparency, or all of it.
        painted: an image file of the same size; white is learned, black is not.

    Raises:
        DatasetError: there is no such image or mask, or the mask does not fit; nothing is changed.
        OSError: the disk refused; nothing is changed.
    """
    entry = dataset.entry(image_id)
    source = mask_of(entry) if how == "inverted" else painted
    if how == "inverted" and source is None:
        raise DatasetError([f"Image {entry.name!r} has no mask; paint one first."])
    with temporary(dataset) as made:
        covered = readers.write_mask(entry.path, made, how, source)
        mask = stored(dataset, made, covered)
    _name(dataset, image_id, mask)


def mask_from_transparency(dataset: ImageSet, image_id: str, readers: Readers) -> bytes:
    """A PNG of the image's transparency, which is not stored.

    Raises:
        DatasetError, OSError: as `make_mask`.
    """
    entry = dataset.entry(image_id)
    with temporary(dataset) as made:
        readers.write_mask(entry.path, made, "transparency")
        return made.read_bytes()


def remove_mask(dataset: ImageSet, image_id: str) -> None:
    """Have an image learned whole again, as a change that can be undone."""
    _name(dataset, image_id, None)


def mask_of(entry: ImageEntry) -> Path | None:
    """The mask of an image; None if it has none, or its file is gone."""
    path = entry.folder.mask(entry.path)
    return path if path is not None and path.is_file() else None


def stored(dataset: ImageSet, made: Path, covered: float) -> PaintedMask:
    """Move a mask into the dataset; it stays for a while even if no edit names it.

    Raises:
        OSError: the disk refused.
    """
    name = hidden_name(hashlib.sha256(file_content(made)).hexdigest()[:32] + ".png")
    target = dataset.folder / MASKS / name
    target.parent.mkdir(exist_ok=True)
    made.replace(target)
    return PaintedMask(name, covered)


@contextmanager
def temporary(dataset: ImageSet) -> Iterator[Path]:
    """A path for a file of the dataset that is removed with the block, if it is still there.

    Raises:
        NoDatasetError: the dataset was deleted. OSError: the disk refused.
    """
    dataset.require_there()
    folder = dataset.folder.parent / ARRIVING
    folder.mkdir(exist_ok=True)
    path = folder / passing_name("mask", TEMPORARY)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class MaskUpload:
    """A mask that arrives in chunks. As a context it leaves no file behind."""

    def __init__(self, dataset: ImageSet) -> None:
        self._temporary = temporary(dataset)
        self.path = self._temporary.__enter__()
        self._file = self.path.open("xb")
        self._bytes = 0

    def write(self, chunk: bytes) -> None:
        """Add bytes.

        Raises:
            TooLargeError: it is too large. OSError: the disk refused.
        """
        self._bytes += len(chunk)
        if self._bytes > MAX_BYTES:
            raise TooLargeError([f"The mask is larger than {MAX_BYTES // 2**20} MB; it was not saved."])
        self._file.write(chunk)

    def finish(self, dataset: ImageSet, image_id: str, readers: Readers) -> None:
        """Give the image this mask.

        Raises:
            DatasetError, OSError: as `make_mask`.
        """
        self._file.close()
        make_mask(dataset, image_id, "painted", readers, self.path)

    def __enter__(self) -> MaskUpload:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # a full disk refuses the last bytes
            self._file.close()
        self._temporary.__exit__(None, None, None)


def _name(dataset: ImageSet, image_id: str, mask: PaintedMask | None) -> None:
    if dataset.entry(image_id).edit.mask != mask:
        dataset.change_image(image_id, {"mask": mask})
    remove_unnamed(dataset)


def take_back(dataset: ImageSet, masks: Iterable[PaintedMask]) -> None:
    """Remove masks that were stored in vain, but for those that an edit or Undo names."""
    with dataset.held():
        for file in {mask.file for mask in masks} - _named(dataset):
            (dataset.folder / MASKS / file).unlink(missing_ok=True)


def _named(dataset: ImageSet) -> set[str]:
    return {edit.mask.file for edit in dataset.mentioned() if edit.mask is not None}


def remove_unnamed(dataset: ImageSet) -> None:
    """Remove old masks that neither an edit nor Undo names."""
    with dataset.held():
        named = _named(dataset)
        for path in (dataset.folder / MASKS).iterdir() if (dataset.folder / MASKS).is_dir() else ():
            with suppress(OSError):  # in use, or gone meanwhile
                if path.name not in named and path.stat().st_mtime < time.time() - KEPT_S:
                    path.unlink()
