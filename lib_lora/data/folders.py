"""Paths as they are given -> folders that hold images directly, each with how often its images are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
OTHER_SUFFIXES = {".heic", ".heif", ".avif", ".gif", ".tif", ".tiff", ".psd", ".svg", ".ico", ".jxl", ".raw", ".cr2", ".nef"}
KINDS = "PNG, JPEG, WEBP or BMP"
MAX_REPEATS = 10000
_REPEATS_NAME = re.compile(r"(\d+)_(.*)", re.DOTALL)


@dataclass(frozen=True)
class Folder:
    """A folder that holds images directly. `concept` is the text behind N_ in its name; `is_reg` for regularisation."""

    path: Path
    repeats: int
    concept: str | None
    is_reg: bool = False


@dataclass
class FolderSearch:
    """How folders are looked for, and what has to be said about them. `title` is the option's label and name."""

    title: str
    repeats: int
    problems: list[str]
    notes: list[str]
    is_reg: bool = False

    def folders(self, entry: str) -> Iterator[Folder]:
        """The image folders that `entry` stands for: itself, or those directly below it (N_name folders before all others).

        `entry` is a path, or PATH|N; then N is the number of repeats whatever the names say.
        """
        text, repeats = self._split(entry)
        root = Path(text).expanduser()
        if not root.is_dir():
            self.problems.append(f"{self.title}: {text!r} does not exist or is no folder.")
            return
        below = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".") and images_in(path)]
        numbered = [path for path in below if _REPEATS_NAME.fullmatch(path.name)]
        if numbered:
            ignored = len(below) - len(numbered) + len(images_in(root))
            if ignored:
                self.notes.append(f"{root.name}: folders without a number and images beside the numbered folders are not used.")
            yield from (self._folder(path, repeats) for path in numbered)
        elif images_in(root):
            yield self._folder(root, repeats)
            if below:
                self.notes.append(f"{root.name}: folders below it are not used, since it holds images itself.")
        elif below:
            yield from (self._folder(path, repeats) for path in below)
        else:
            self.problems.append(f"{self.title}: {str(root)!r} holds no {KINDS} image.")

    def _split(self, entry: str) -> tuple[str, int | None]:
        """Path and repeats of PATH|N; a folder whose name has a bar in it is taken as it is."""
        path, bar, number = entry.rpartition("|")
        if not bar or Path(entry).expanduser().is_dir():
            return entry, None
        if not number.strip().isdecimal() or not 1 <= int(number) <= MAX_REPEATS:
            self.problems.append(
                f"{self.title}: got {entry!r}, behind the bar must stand how often each image is shown, from 1 to {MAX_REPEATS}."
            )
            return path.strip(), 1
        return path.strip(), int(number)

    def _folder(self, path: Path, repeats: int | None) -> Folder:
        others = sorted({p.suffix.lower() for p in path.iterdir() if p.suffix.lower() in OTHER_SUFFIXES})
        if others:
            self.notes.append(f"{path.name}: files of the kinds {' '.join(others)} are not used; save them as {KINDS}.")
        match = _REPEATS_NAME.fullmatch(path.name)
        if not match:
            return Folder(path, repeats or self.repeats, None, self.is_reg)
        if int(match[1]) < 1 and not repeats:
            self.problems.append(f"{self.title}: {path.name!r} asks for 0 repeats; rename it to 1_{match[2]} or more.")
        return Folder(path, repeats or int(match[1]), match[2].strip() or None, self.is_reg)


def images_in(folder: Path) -> list[Path]:
    """The image files directly in `folder`, by name; hidden ones are passed over."""
    return [
        p for p in sorted(folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
    ]
