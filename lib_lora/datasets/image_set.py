"""One named dataset: its images in order, their captions and edits, and the changes that can be undone."""

from __future__ import annotations

import hashlib
import os
import threading
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_lora.data.dataset import MAX_IMAGES
from lib_lora.data.edits import FILE, MASKS, MAX_BYTES, NO_EDIT, NO_EDITS, FolderEdits, ImageEdit, edits_in
from lib_lora.data.folders import Folder, FolderSearch, named, place_of
from lib_lora.data.hidden_names import given_name
from lib_lora.datasets.caption_files import CaptionFiles
from lib_lora.datasets.history import Change, History, OvertakenError
from lib_lora.datasets.placing import (
    ARRIVING,
    NewImage,
    caption_place,
    folder_for,
    free_place,
    free_places,
    images_in,
    moved,
    numbered_folders,
    removed,
)
from lib_lora.errors import DatasetError, NoDatasetError
from lib_lora.files.atomic import write_atomically
from lib_lora.paths import path_problem

LONGEST_CAPTION = 20_000  # characters
CAPTION_SUFFIXES = {".txt", ".caption"}
LONGEST_FILE_NAME = 200  # bytes, so that a caption's ending and a temporary name fit


@dataclass(frozen=True)
class ImageEntry:
    """An image of a dataset. `id`: of its place in the dataset. `caption`: as it is trained, None if it has none."""

    id: str
    place: str
    path: Path
    folder: Folder
    edit: ImageEdit
    caption: str | None

    @property
    def name(self) -> str:
        return given_name(self.path)


class StaleError(OvertakenError):
    """A caption was changed by somebody else meanwhile. `now`: its text."""

    def __init__(self, name: str, now: str) -> None:
        super().__init__([f"The caption of {name!r} was changed on another page meanwhile; yours was not saved."])
        self.now = now


class ImageSet:
    """A named dataset. Any thread may call its methods; every change is on the disk when its method returns.

    Args:
        dataset_id: its id in the catalogue.
        folder: what training gets.
        looked: the folder for thumbnails.
    """

    def __init__(self, dataset_id: str, folder: Path, looked: Path) -> None:
        self.id, self.folder, self.looked = dataset_id, folder, looked
        self._lock = threading.RLock()
        self._history = History()
        self._caption_files = CaptionFiles()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from changing the dataset."""
        with self._lock:
            yield

    @property
    def edits(self) -> FolderEdits:
        """The edits on the disk.

        Raises:
            DatasetError: the file is damaged. NoDatasetError: the dataset was deleted.
        """
        self.require_there()
        return edits_in(self.folder) or NO_EDITS

    def require_there(self) -> None:
        """Check that the dataset was not deleted.

        Raises:
            NoDatasetError: it was.
        """
        if not self.folder.is_dir():
            raise NoDatasetError(["This dataset was deleted meanwhile, so nothing was changed; choose another."])

    @property
    def name(self) -> str:
        """Its name; its id if the file of edits is damaged or lost."""
        try:
            return self.edits.name or self.id
        except DatasetError:
            return self.id

    @property
    def undoable(self) -> str:
        """What Undo takes back, in words; empty if there is nothing."""
        last = self._history.last
        return last.what if last else ""

    @property
    def undo_number(self) -> int:
        """The number of the change that Undo takes back; 0 if there is none."""
        last = self._history.last
        return last.number if last else 0

    def rename(self, name: str) -> None:
        """Give it another name, which the catalogue has checked."""
        with self._lock:
            self._write(replace(self.edits, name=name))

    def is_empty(self) -> bool:
        """Whether it has no images yet; a folder on the disk counts as not empty."""
        edits = self.edits
        return edits.source is None and all(path.name in (FILE, MASKS) for path in self.folder.iterdir())

    def entries(self, names: Collection[str] | None = None) -> tuple[list[ImageEntry], list[str]]:
        """The images in order, those left out too, and sentences on what cannot be used.

        `names`: of the only images to give; for a few of many that takes much less time.

        Raises:
            DatasetError: the file of edits is damaged.
        """
        search = FolderSearch("Images", 1, [], [])
        found = [] if self.is_empty() else list(search.folders(str(self.folder)))
        entries, problems = [], list(search.problems)
        for folder in found:
            start = place_of(folder.path / "-", folder.root)[:-1]
            for path in search.look(folder.path, folder.root).images:
                name = given_name(path)
                if names is None or name in names:
                    entries.append(self._entry(folder, start + name, path, problems))
        if names is None:
            self._caption_files.forget_others([entry.path for entry in entries])
        return entries, [*problems, *search.notes]

    def entry(self, image_id: str) -> ImageEntry:
        """The image of an untrusted id.

        Raises:
            NoDatasetError: there is none.
        """
        found = next((entry for entry in self.entries()[0] if entry.id == image_id), None)
        if found is None:
            raise NoDatasetError(["This image does not exist any more; reload the page."])
        return found

    def add(self, name: str, content: Path, folder: str = "") -> str:
        """Move an uploaded file into the dataset: an image or a caption file. Returns its name there, which is new if taken.

        `folder`: its numbered folder; empty for the only one, or for none if the dataset has none.

        Raises:
            DatasetError: the name is not allowed, the dataset is a folder on the disk, or the folder is not clear.
            OSError: the disk refused.
        """
        with self._lock:
            self.check_open()
            inside = self.folder / folder_for(self.folder, folder)
            place = free_place(inside, legal_file_name(name))
            inside.mkdir(exist_ok=True)
            content.replace(place)
            return given_name(place)

    def check_open(self, folders: Iterable[str] = (), more: int = 0) -> None:
        """Check that images can be added to folders, as in `add`, and that `more` are not too many.

        Raises:
            DatasetError: they cannot.
        """
        if self.edits.source is not None:
            raise DatasetError(["This dataset is a folder on the disk; put the images there."])
        for folder in folders:
            folder_for(self.folder, folder)
        places = [self.folder, *(self.folder / name for name in numbered_folders(self.folder))] if more else []
        has = sum(1 for place in places for _ in images_in(place))
        if has + more > MAX_IMAGES:
            raise DatasetError([f"The dataset would have {has + more} images, must have at most {MAX_IMAGES}; add fewer."])

    def folders(self) -> list[str]:
        """The numbered folders that new images can go to; none in a dataset that is a folder on the disk."""
        return [] if self.edits.source is not None else numbered_folders(self.folder)

    def has_typed(self, folder: str, stem: str) -> bool:
        """Whether an image of that name has a caption that was typed, which hides its file."""
        start = f"{folder}/{stem}" if folder else stem
        return any(edit.caption is not None and place.rpartition(".")[0] == start for place, edit in self.edits.images.items())

    def add_all(self, batch: Sequence[NewImage]) -> list[Path]:
        """Move images with captions and edits into the dataset, all or none. Returns where the images are.

        Raises:
            DatasetError: as `add`, or there would be too many images.
            OSError: the disk refused; nothing was added.
        """
        with self._lock:
            self.check_open(more=len(batch))
            folders: dict[str, str] = {}  # some disks do not tell cases apart
            for image in batch:
                if image.folder.casefold() not in folders:
                    folders[image.folder.casefold()] = folder_for(self.folder, image.folder)
            inside = [replace(image, folder=folders[image.folder.casefold()]) for image in batch]
            moves = free_places(self.folder, inside)
            root = self.folder.resolve()
            edits = {place_of(root / path.relative_to(self.folder), root): image.edit for image, path in moves}
            with moved(moves):
                if any(edit != NO_EDIT for edit in edits.values()):
                    self._write(replace(self.edits, images={**self.edits.images, **edits}))
            return [path for _, path in moves]

    def remove(self, image_id: str) -> None:
        """Remove an image with its caption file. An image of a folder on the disk is left out instead.

        Raises:
            DatasetError: there is none.
            OSError: the disk refused.
        """
        with self._lock:
            entry = self.entry(image_id)
            if self.edits.source is not None:
                self.change({entry.place: replace(entry.edit, left_out=True)}, f"leave out {entry.name}")
                return
            captions = [caption_place(entry.path, suffix) for suffix in CAPTION_SUFFIXES]
            edits = self.edits
            with removed([entry.path, *(path for path in captions if os.path.lexists(path))], self.folder.parent / ARRIVING):
                if entry.place in edits.images:  # or else nothing is written, which a full disk refuses
                    self._write(replace(edits, images={p: edit for p, edit in edits.images.items() if p != entry.place}))
            self._history.forget(entry.place)
            if entry.path.parent != self.folder:
                with suppress(OSError):  # other files are in it
                    entry.path.parent.rmdir()

    def change_image(self, image_id: str, values: Mapping[str, Any], was: str | None = None) -> None:
        """Change fields of an image's edit, by their names, as one change that can be undone.

        `was`: the caption that the page started from.

        Raises:
            StaleError: the caption is neither `was` nor the new one.
            DatasetError: the caption is too long, or there is no such image.
            OSError: the disk refused; nothing is changed.
        """
        with self._lock:
            entry, changed = self.entry(image_id), dict(values)
            if "caption" in changed:
                text, now = changed["caption"], entry.caption or ""
                legal_caption(text, entry.name)
                if was is not None and now not in (was, text):
                    raise StaleError(entry.name, now)
                if now == text:
                    del changed["caption"]
            if changed:
                name, left_out = entry.name, "leave out" if changed.get("left_out") else "include"
                words = {"left_out": f"{left_out} {name}", "mask": f"mask of {name}", "caption": f"caption of {name}"}
                what = words.get(next(iter(changed)), f"crop of {name}")
                self.change({entry.place: replace(entry.edit, **changed)}, what)

    def change(self, edits: Mapping[str, ImageEdit], what: str, joins: Change | None = None) -> Change:
        """Replace the edits of images, by their places, as one change that can be undone, and return it.

        Args:
            edits: the new edits.
            what: the change in words.
            joins: an earlier change. This one is undone together with it, if no other change was made since.

        Raises:
            DatasetError: the captions are too long together; nothing is changed.
            OSError: the disk refused; nothing is changed.
        """
        with self._lock:
            now = self.edits
            before = {place: now.of(place) for place in edits}
            self._write(replace(now, images={**now.images, **edits}))
            return self._history.add(what, before, edits, joins)

    def mentioned(self) -> list[ImageEdit]:
        """Every edit that there is, or that Undo may bring back."""
        with self._lock:
            return [*self.edits.images.values(), *self._history.edits()]

    def undo(self, number: int | None = None) -> str:
        """Take the last change back; returns what it was, "" if there is none.

        `number`: the `undo_number` that the page has seen; None for whichever change is the last.

        Raises:
            OvertakenError: the last change is another one, or another program has changed the same since; nothing is changed.
            OSError: the disk refused; nothing is changed.
        """
        with self._lock:
            last, now = self._history.last, self.edits
            if number is not None and number != self.undo_number:
                raise OvertakenError(
                    ["Nothing was undone: another page changed something meanwhile. Undo shows what is the last."]
                )
            if last is None:
                return ""
            theirs = [place for place, edit in last.after.items() if now.of(place) != edit]
            if theirs:
                self._history.drop()
                raise OvertakenError([f"{last.what!r} was not undone: another program has changed {named(theirs)} since."])
            self._write(replace(now, images={**now.images, **last.before}))
            self._history.drop()
            return last.what

    def _entry(self, folder: Folder, place: str, path: Path, problems: list[str]) -> ImageEntry:
        edit = folder.edits.of(place)
        caption = edit.caption
        if caption is None:
            caption, told = self._caption_files.of(path, folder.root)
            problems += told
        return ImageEntry(image_id(place), place, path, folder, edit, caption)

    def _write(self, edits: FolderEdits) -> None:
        self.require_there()  # writing would make it again
        kept = {place: edit for place, edit in edits.images.items() if edit != NO_EDIT}
        content = replace(edits, images=kept).to_json().encode()
        if len(content) > MAX_BYTES:
            raise DatasetError([
                f"The captions and crops of the dataset would take more than {MAX_BYTES // 2**20} MB; shorten the captions. "
                "Nothing was changed."
            ])  # fmt: skip
        write_atomically(self.folder / FILE, content)


def image_id(place: str) -> str:
    """The id of an image from its place in the dataset."""
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]


def legal_file_name(name: str) -> str:
    """An untrusted file name as it is here: composed, shortened if it is long, and with `_` for what some disk does not allow.

    Raises:
        DatasetError: it cannot be a name here.
    """
    plain = unicodedata.normalize("NFC", Path(name.replace("\\", "/")).name.strip())
    if plain in {"", ".", ".."} or plain.startswith(".") or not is_text(plain):
        raise DatasetError([f"A file has the name {name[:80]!r}, which cannot be used; rename it."])
    plain = "".join("_" if c in '<>:"|?*' or unicodedata.category(c) == "Cc" else c for c in plain)
    problem = path_problem(plain, windows=True)
    if problem or plain != plain.rstrip(". "):
        raise DatasetError([f"The file {plain[:80]!r} {problem or 'ends in a dot; rename it.'}"])
    return plain if len(plain.encode()) <= LONGEST_FILE_NAME else _shortened(plain)


def _shortened(name: str) -> str:
    """A long name with a short stem, equal for an image and its caption."""
    stem, suffix = Path(name).stem, Path(name).suffix[:20]
    kept = stem.encode()[: LONGEST_FILE_NAME - 50].decode(errors="ignore")
    return f"{kept}~{hashlib.sha256(stem.encode()).hexdigest()[:8]}{suffix}"


def legal_caption(text: str, name: str) -> None:
    """Check an untrusted caption.

    Raises:
        DatasetError: it is too long, or no text.
    """
    if len(text) > LONGEST_CAPTION:
        raise DatasetError(
            [f"The caption of {name!r} has {len(text)} characters, must have at most {LONGEST_CAPTION}; it was not saved."]
        )
    if not is_text(text):
        raise DatasetError([f"The caption of {name!r} contains a character that is no text; it was not saved."])


def is_text(text: str) -> bool:
    """Whether `text` can be written as UTF-8, and read again as a caption."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
