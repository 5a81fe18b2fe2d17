"""Places for new files of a dataset: free names, numbered folders, and moving many files completely or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lib_lora.data.edits import FILE, NO_EDIT, ImageEdit
from lib_lora.data.folders import IMAGE_SUFFIXES, named, repeats_in
from lib_lora.data.hidden_names import given, given_name, given_stem, hidden_name, suffix_of
from lib_lora.errors import DatasetError
from lib_lora.files.atomic import TEMPORARY, passing_name

ARRIVING = "arriving"  # folder of a dataset beside its images, for what is not complete
MOST_OF_A_NAME = 10_000  # files that differ by their numbers
LONGEST_FOLDER_NAME = 200  # bytes
_ILLEGAL = set('/\\<>:"|?*')
_NUMBERED = re.compile(r"(\d+)_(.*)", re.DOTALL)


@dataclass(frozen=True)
class NewImage:
    """An image file to be moved into a dataset. `folder`: N_name, or empty. `caption`: its caption file and that one's suffix."""

    folder: str
    name: str
    file: Path
    caption: Path | None = None
    caption_suffix: str = ".txt"
    edit: ImageEdit = NO_EDIT


def is_numbered(folder: str) -> bool:
    """Whether a folder may have this name, which gives a legal number of repeats."""
    match = _NUMBERED.fullmatch(folder)
    return (
        match is not None
        and repeats_in(match[1]) is not None
        and folder.isprintable()
        and not _ILLEGAL & {*folder}
        and len(folder.encode(errors="replace")) <= LONGEST_FOLDER_NAME
        and folder == folder.rstrip(". ")
    )


def numbered_folders(root: Path) -> list[str]:
    """The numbered folders of a dataset, in order; the only ones that are used, if there are any."""
    return sorted(path.name for path in root.iterdir() if _NUMBERED.fullmatch(path.name) and path.is_dir())


def images_in(folder: Path) -> Iterator[Path]:
    """The image files directly in a folder, by their names; none if there is no such folder."""
    if folder.is_dir():
        with os.scandir(folder) as files:  # of thousands, at every upload
            for file in files:
                if file.name != FILE and suffix_of(given(file.name)).lower() in IMAGE_SUFFIXES:
                    yield folder / file.name


def folder_for(root: Path, wanted: str) -> str:
    """The numbered folder that new images go to, "" for the dataset's own: `wanted`, or else the only one.

    Raises:
        DatasetError: it is no numbered folder, or images would be passed over: next to numbered folders none are used.
    """
    numbered = numbered_folders(root)
    if not wanted:
        if len(numbered) > 1:
            raise DatasetError([f"This dataset has the folders {named(numbered)}; choose the one that the images belong to."])
        return numbered[0] if numbered else ""
    if not is_numbered(wanted):
        raise DatasetError([f"Folder {wanted[:80]!r} must have a name such as '10_cat', the repeats and what its images show."])
    if not numbered and any(images_in(root)):
        raise DatasetError([
            f"This dataset has images without folders, which would not be used next to {wanted!r}; add these to a new dataset."
        ])  # fmt: skip
    return next((name for name in numbered if name.casefold() == wanted.casefold()), wanted)


def free_place(folder: Path, name: str) -> Path:
    """The path for a new file in a folder: `name`, or with a number, so that it is no other image's, nor is its caption.

    Raises:
        DatasetError: too many files have the name.
    """
    path = Path(name)
    is_image = path.suffix.lower() in IMAGE_SUFFIXES
    stems = {given_stem(image).casefold() for image in images_in(folder)} if is_image else set()
    for stem in _numbered(path.stem):
        place = folder / hidden_name(stem + path.suffix)
        if not (stem.casefold() in stems or place.exists()):
            return place
    raise DatasetError([f"Too many files have the name {name!r}; rename it."])


def free_places(root: Path, batch: Sequence[NewImage]) -> list[tuple[NewImage, Path]]:
    """Images with their paths in the dataset; no two of a folder have the same stem, whatever its case.

    Raises:
        DatasetError: too many files have a name.
    """
    taken: dict[str, set[str]] = {}
    for folder in {image.folder for image in batch}:
        inside = root / folder
        files = inside.iterdir() if inside.is_dir() else ()
        taken[folder] = {Path(given_name(path)).stem.casefold() for path in files}  # of captions without images, too
    found = []
    stems: dict[tuple[str, str], Iterator[str]] = {}  # so that equal names take no quadratic time
    for image in batch:
        path = Path(image.name)
        free = stems.setdefault((image.folder, path.stem.casefold()), _numbered(path.stem))
        stem = next((stem for stem in free if stem.casefold() not in taken[image.folder]), None)
        if stem is None:
            raise DatasetError([f"Too many files have the name {image.name!r}; rename some."])
        taken[image.folder].add(stem.casefold())
        found.append((image, root / image.folder / hidden_name(stem + path.suffix)))
    return found


@contextmanager
def moved(moves: Sequence[tuple[NewImage, Path]]) -> Iterator[None]:
    """Move images and their captions to their places; if that or the block fails, everything is moved back.

    Raises:
        OSError: the disk refused.
    """
    done: list[tuple[Path, Path]] = []
    made: list[Path] = []
    try:
        for image, place in moves:
            if not place.parent.exists():
                place.parent.mkdir()
                made.append(place.parent)
            pairs = [(image.file, place)]
            if image.caption is not None:
                pairs.append((image.caption, caption_place(place, image.caption_suffix)))
            for source, target in pairs:
                source.replace(target)
                done.append((source, target))
        yield
    except BaseException:
        _put_back(done)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def removed(paths: Sequence[Path], aside: Path) -> Iterator[None]:
    """Remove files; if that or the block fails, all of them are where they were. `aside`: a folder of the same disk.

    Raises:
        OSError: the disk refused.
    """
    done: list[tuple[Path, Path]] = []
    try:
        aside.mkdir(exist_ok=True)
        for path in paths:
            away = aside / passing_name("removed", TEMPORARY)
            path.replace(away)
            done.append((path, away))
        yield
    except BaseException:
        _put_back(done)
        raise
    for _, away in done:
        with suppress(OSError):  # removed when it is old
            away.unlink()


def _put_back(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move files back: pairs of where they were and where they are."""
    for source, target in moves:
        with suppress(OSError):
            target.replace(source)


def caption_place(image: Path, suffix: str) -> Path:
    """The path of an image's caption file."""
    return image.with_name(Path(given_name(image)).stem + suffix)


def _numbered(stem: str) -> Iterator[str]:
    return (f"{stem}-{number}" if number > 1 else stem for number in range(1, MOST_OF_A_NAME))
