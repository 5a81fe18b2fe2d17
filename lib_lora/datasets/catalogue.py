"""All named datasets: a private folder for each, below one that no route of a webui serves.

A folder of the catalogue holds `images/`, which is what training gets: the dropped images under hidden names, their caption
files, and the file of edits. A job that takes a dataset links all of it, so nothing can be pulled away from a job.
"""

from __future__ import annotations

import itertools
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_lora.data.edits import FILE, FolderEdits
from lib_lora.data.folders import FolderSearch
from lib_lora.data.hidden_names import given_name
from lib_lora.datasets.image_set import ImageSet
from lib_lora.errors import DatasetError, DiskError, NoDatasetError
from lib_lora.files.atomic import link_or_copy, write_atomically

IMAGES, LOOKED = "images", "looked"  # folders of a dataset: what training gets, and thumbnails
MOST, LONGEST_NAME = 1000, 80
_ID = re.compile(r"set-[0-9a-f]{16}")
_GONE = ".gone"


class Catalogue:
    """The datasets in `root`. Any thread may call its methods."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sets: dict[str, ImageSet] = {}
        self._lock = threading.RLock()

    def all(self) -> list[ImageSet]:
        """Every dataset, the newest first; a damaged one has no images."""
        with self._lock:
            try:
                found = [path for path in self._root.iterdir() if _ID.fullmatch(path.name) and (path / IMAGES).is_dir()]
            except FileNotFoundError:
                return []
            return [self._of(path) for path in sorted(found, key=_made, reverse=True)]

    def get(self, dataset_id: str) -> ImageSet:
        """The dataset of an untrusted id.

        Raises:
            NoDatasetError: there is none.
        """
        if not _ID.fullmatch(dataset_id) or not (self._root / dataset_id / IMAGES).is_dir():
            raise NoDatasetError(["This dataset does not exist any more; choose another."])
        with self._lock:
            return self._of(self._root / dataset_id)

    def folders(self, dataset_id: str) -> tuple[str, ...]:
        """The folder of an untrusted id's dataset as settings name it; none without an id, or without images.

        Raises:
            NoDatasetError: there is none.
        """
        found = self.get(dataset_id) if dataset_id else None
        return () if found is None or found.is_empty() else (str(found.folder),)

    def owns(self, folder: Path) -> bool:
        """Whether a folder holds the images of a dataset."""
        try:
            path = folder.resolve()
            return path.name == IMAGES and path.parent.parent == self._root.resolve() and path.is_dir()
        except (OSError, ValueError, RuntimeError):  # too long, invalid, or a loop of links
            return False

    def create(self, name: str, source: str | None = None) -> ImageSet:
        """A new dataset without images, or with those of the folder `source` on the disk.

        Raises:
            DatasetError: the name is taken or not allowed, there are too many datasets, or the folder is none.
            OSError: the disk refused.
        """
        if source is not None:
            search = FolderSearch("Folder", 1, [], [])
            if search.named_folder(source) is None:
                raise DatasetError(search.problems)
        with self._lock:
            given = self._free_name(name)
            folder = self._root / f"set-{uuid.uuid4().hex[:16]}"
            with _whole(folder):
                self._write(folder, FolderEdits(given, source))
            return self._of(folder)

    def free_name(self, wanted: str = "") -> str:
        """A name that no dataset has: the last part of `wanted`, or "Dataset", with a number if it is taken."""
        printable = "".join(letter for letter in " ".join(Path(wanted).name.split()) if letter.isprintable())
        stem = printable[: LONGEST_NAME - 5].strip() or "Dataset"
        taken = {dataset.name.casefold() for dataset in self.all()}
        names = (f"{stem} {number}" if number > 1 else stem for number in itertools.count(1))
        return next(name for name in names if name.casefold() not in taken)

    def rename(self, dataset_id: str, name: str) -> ImageSet:
        """Give a dataset another name.

        Raises:
            DatasetError, OSError: as `create`.
        """
        with self._lock:
            found = self.get(dataset_id)
            if found.name != name.strip():
                found.rename(self._free_name(name))
            return found

    def duplicate(self, dataset_id: str, name: str) -> ImageSet:
        """A copy of a dataset; images are linked where the disk can.

        Raises:
            DatasetError, OSError: as `create`.
        """
        with self._lock:
            found, given = self.get(dataset_id), self._free_name(name)
            folder = self._root / f"set-{uuid.uuid4().hex[:16]}"
            with found.held(), _whole(folder):
                edits = found.edits
                shutil.copytree(found.folder, folder / IMAGES, copy_function=_copied)
                self._write(folder, FolderEdits(given, edits.source, edits.images))
            return self._of(folder)

    def delete(self, dataset_id: str) -> None:
        """Remove a dataset with its images and captions. Files of a folder on the disk, and of jobs, stay.

        Raises:
            NoDatasetError: there is none.
            OSError: the disk refused; the dataset is still there.
        """
        with self._lock:
            found = self.get(dataset_id)
            gone = self._root / f".{uuid.uuid4().hex}{_GONE}"
            with found.held():  # nobody writes into it meanwhile, which would make its folder again
                found.folder.parent.replace(gone)
            self._sets.pop(dataset_id, None)
        shutil.rmtree(gone, ignore_errors=True)

    def _of(self, folder: Path) -> ImageSet:
        if folder.name not in self._sets:
            self._sets[folder.name] = ImageSet(folder.name, folder / IMAGES, folder / LOOKED)
        return self._sets[folder.name]

    def _free_name(self, name: str) -> str:
        text = " ".join(name.split())
        if not text or len(text) > LONGEST_NAME or not text.isprintable():
            raise DatasetError([f"Name of the dataset: got {text[:LONGEST_NAME]!r}, must have 1 to {LONGEST_NAME} characters."])
        datasets = self.all()
        if any(dataset.name.casefold() == text.casefold() for dataset in datasets):
            raise DatasetError([f"Name of the dataset: {text!r} is taken; choose another."])
        if len(datasets) >= MOST:
            raise DatasetError([f"There are {MOST} datasets; delete one first."])
        return text

    def _write(self, folder: Path, edits: FolderEdits) -> None:
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        write_atomically(folder / IMAGES / FILE, edits.to_json().encode())


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Remove the new dataset at `folder` if it is not made completely."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _copied(source: str, target: str) -> None:
    """As `link_or_copy`, with an error that `copytree` does not gather into one of all paths."""
    try:
        link_or_copy(source, target)
    except OSError as error:
        name = given_name(Path(source))
        raise DiskError([f"{name!r} cannot be copied ({error.strerror or error}); free space or check permissions."]) from error


def _made(folder: Path) -> tuple[float, str]:
    try:
        return (folder / IMAGES / FILE).stat().st_mtime, folder.name
    except OSError:
        return 0.0, folder.name
