"""Paths as given -> folders that hold images directly, each with its number of repeats."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib_lora.config.options import shown
from lib_lora.data.edits import MASKS, NO_EDITS, FolderEdits, ImageEdit, edits_in
from lib_lora.data.hidden_names import given, given_name, suffix_of
from lib_lora.errors import DatasetError
from lib_lora.paths import WINDOWS, existing_folder, is_device, missing_problem, path_problem, split_repeats

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
OTHER_SUFFIXES = {".heic", ".heif", ".avif", ".gif", ".tif", ".tiff", ".psd", ".svg", ".ico", ".jxl", ".raw", ".cr2", ".nef"}
KINDS = "PNG, JPEG, WEBP or BMP"
MAX_REPEATS = 10000
MAX_ENTRIES = 50_000  # files and folders listed at most: ten per image of the largest dataset
_REPEATS_NAME = re.compile(r"(\d+)_(.*)", re.DOTALL)
NAMED = 5  # files named in a message


@dataclass(frozen=True)
class Folder:
    """A folder that holds images directly. `concept`: the text after N_ in its name. `is_reg`: for regularisation.

    Nothing outside `root`, the folder that was given, is read. `edits`: of the images, made in the tab.
    """

    path: Path
    repeats: int
    concept: str | None
    root: Path
    is_reg: bool = False
    edits: FolderEdits = NO_EDITS

    def edit(self, image: Path) -> ImageEdit:
        """The edit of an image of this folder."""
        return self.edits.of(place_of(image, self.root))

    def mask(self, image: Path) -> Path | None:
        """The mask painted for an image of this folder; None if there is none."""
        painted = self.edit(image).mask
        return None if painted is None or self.edits.folder is None else self.edits.folder / MASKS / painted.file


@dataclass
class Listing:
    """The entries of a folder. `links`, `linked_folders` lead out of the root; `unused`: images whose names are not accepted."""

    images: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)

    def in_order(self) -> Listing:
        """Sort the listing in place and return it."""
        self.images.sort(key=lambda path: Path(given_name(path)))
        self.folders.sort()
        for names in (self.links, self.linked_folders, self.unused):
            names.sort()
        return self


@dataclass
class FolderSearch:
    """Finds image folders, and collects problems and notes. `title`: the option's label and name."""

    title: str
    repeats: int
    problems: list[str]
    notes: list[str]
    is_reg: bool = False
    _seen: dict[tuple[Path, Path], Listing] = field(default_factory=dict)
    _room: int = field(default_factory=lambda: MAX_ENTRIES)

    def folders(self, entry: str) -> Iterator[Folder]:
        """The image folders of `entry`: itself, or those directly below it (only N_name folders, if there are any).

        `entry`: PATH or PATH|N; N overrides the repeats in folder names. A link is followed if it is the given folder itself
        or stays inside it.
        """
        text, repeats = self._split(entry)
        given = self.named_folder(text)
        if given is None:
            return
        try:
            edits = edits_in(given)
        except DatasetError as error:
            self.problems += [f"{self.title}: {problem}" for problem in error.problems]
            return
        if edits is not None and edits.source is not None:
            given = self.named_folder(edits.source)
            if given is None:
                return
        yield from self._below(given, repeats, edits or NO_EDITS)

    def _below(self, given: Path, repeats: int | None, edits: FolderEdits) -> Iterator[Folder]:
        root, told = given.resolve(), len(self.problems)
        inside = self.look(given, root)
        below = [path for path in inside.folders if self.look(path, root).images or self.look(path, root).links]
        if self._room < 0:  # reported
            return
        numbered = [path for path in below if _REPEATS_NAME.fullmatch(path.name)]
        numbered_links = [name for name in inside.linked_folders if _REPEATS_NAME.fullmatch(name)]
        if numbered or numbered_links:
            self._refuse(numbered_links, root)
            if len(below) > len(numbered) or inside.images:
                self.notes.append(f"{given.name}: folders without a number and images next to the numbered folders are not used.")
            yield from (self._folder(path, root, repeats, edits) for path in numbered)
        elif inside.images or inside.links:
            yield self._folder(given, root, repeats, edits)
            if below:
                self.notes.append(f"{given.name}: its subfolders are not used, since it contains images itself.")
        elif below or inside.linked_folders:
            self._refuse(inside.linked_folders, root)
            yield from (self._folder(path, root, repeats, edits) for path in below)
        elif len(self.problems) == told:
            self.problems.append(f"{self.title}: {str(given)!r} contains no {KINDS} images.")

    def named_folder(self, text: str) -> Path | None:
        """The folder at a pasted path; None, with a problem, if there is none."""
        found = existing_folder(text)
        if found is None:
            self.problems.append(f"{self.title}: {shown(text)} {path_problem(text) or missing_problem(text)}")
        return found

    def look(self, folder: Path, root: Path) -> Listing:
        """The listing of `folder`, cached. A folder that cannot be listed or holds too much is a problem and counts as empty."""
        if (folder, root) not in self._seen:
            listing = Listing()
            try:
                with os.scandir(folder) as entries:
                    for entry in itertools.islice(entries, max(self._room + 1, 0)):
                        self._room -= 1
                        _sort_in(entry, folder, root, listing)
            except OSError as error:
                self.problems.append(f"{self.title}: {str(folder)!r} cannot be listed ({error.strerror}); check its permissions.")
            if self._room == -1:  # report once
                self._room = -2
                self.problems.append(
                    f"{self.title}: {root.name or str(root)!r} contains more than {MAX_ENTRIES} files and folders; choose a "
                    "folder that contains only the images."
                )
            self._seen[folder, root] = Listing() if self._room < 0 else listing.in_order()
        return self._seen[folder, root]

    def _split(self, entry: str) -> tuple[str, int | None]:
        """Path and repeats of PATH|N."""
        path, number = split_repeats(entry)
        repeats = None if number is None else repeats_in(number)
        if number is None or repeats is not None:
            return path, repeats
        self.problems.append(
            f"{self.title}: got {shown(entry)}, must have the number of repeats after the bar, from 1 to {MAX_REPEATS}."
        )
        return path, 1

    def _folder(self, path: Path, root: Path, repeats: int | None, edits: FolderEdits) -> Folder:
        inside = self.look(path, root)
        if inside.others:
            kinds = " ".join(sorted(inside.others))
            self.notes.append(f"{path.name}: files of the types {kinds} are not used; save them as {KINDS}.")
        if inside.unused:
            why = "names that start with a dot, or are reserved by Windows, are not used; rename them"
            self.notes.append(f"{path.name}: {named(inside.unused)}: {why}.")
        self._refuse(inside.links, root)
        match = _REPEATS_NAME.fullmatch(path.name)
        if not match:  # the name of a dataset is that of its class
            return Folder(
                path, repeats or self.repeats, edits.name.strip() or None if self.is_reg else None, root, self.is_reg, edits
            )
        named_repeats = repeats_in(match[1])
        if named_repeats is None and not repeats:
            self.problems.append(
                f"{self.title}: {path.name!r} has {match[1][:9]} repeats, must have from 1 to {MAX_REPEATS}; rename it."
            )
        return Folder(path, repeats or named_repeats or 1, match[2].strip() or None, root, self.is_reg, edits)

    def _refuse(self, links: list[str], root: Path) -> None:
        if links:
            self.problems.append(f"{self.title}: {link_problem(links, root)}")


def place_of(image: Path, root: Path) -> str:
    """The relative path of an image in the resolved folder `root`, with its given name and slashes."""
    folder = image.parent.resolve()
    inside = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else "."
    return given_name(image) if inside == "." else f"{inside}/{given_name(image)}"


def repeats_in(text: str) -> int | None:
    """`text` as a number of repeats; None if it is not one."""
    digits = text.strip()
    legal = digits.isdecimal() and len(digits.lstrip("0")) <= len(str(MAX_REPEATS))  # int() refuses 5000 digits
    number = int(digits[-len(str(MAX_REPEATS)) :]) if legal else 0
    return number if 1 <= number <= MAX_REPEATS else None


def _sort_in(entry: os.DirEntry[str], folder: Path, root: Path, listing: Listing) -> None:
    suffix = suffix_of(given(entry.name)).lower()
    if suffix in OTHER_SUFFIXES:
        listing.others.add(suffix)
    if suffix in IMAGE_SUFFIXES:
        path = folder / entry.name
        if entry.is_symlink() and leads_out(path, root):
            listing.links.append(given_name(path))
        elif _is(entry.is_file):
            if not entry.name.startswith(".") and not (WINDOWS and is_device(entry.name)):
                listing.images.append(path)
            elif not entry.name.startswith("._"):  # macOS' AppleDouble files are no images
                listing.unused.append(given_name(path))
    if not entry.name.startswith(".") and _is(entry.is_dir):
        path = folder / entry.name
        if leads_out(path, root):
            listing.linked_folders.append(entry.name)
        else:
            listing.folders.append(path)


def _is(look: Callable[[], bool]) -> bool:
    """The result of `look`; False on OSError, such as a loop of links or a missing permission."""
    try:
        return look()
    except OSError:
        return False


def leads_out(path: Path, root: Path) -> bool:
    """Whether `path` resolves to a place outside `root` (a resolved path), or is a loop of links."""
    try:
        return not path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return True


def link_problem(links: Sequence[str], root: Path) -> str:
    """The problem of links (by name) that lead out of `root`, to follow the option's label."""
    are, target, them = ("are links", "their targets", "them") if len(links) > 1 else ("is a link", "its target", "it")
    return (
        f"{named(links)} {are} out of {root.name or str(root)!r} and will not be followed; copy {target} there, or remove {them}."
    )


def named(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more
