"""Image -> written caption: from the file beside it, its own or its folder's name, and the trigger word."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_lora.data.folders import leads_out, link_problem, named
from lib_lora.data.hidden_names import given_stem
from lib_lora.errors import DatasetError

MAX_BYTES = 2**20
SHOWN_CHARACTERS = 60  # of a caption in a message
DEFAULT_EXTENSION, SECOND_EXTENSION = ".txt", ".caption"


@dataclass(frozen=True)
class CaptionSource:
    """Where captions come from. With `all_lines`, every line of a file is an alternative."""

    trigger: str = ""
    extension: str = DEFAULT_EXTENSION
    all_lines: bool = False
    filenames: bool = False


@dataclass(frozen=True)
class CaptionFile:
    """A caption file: its non-blank lines, and the number of blank lines before the first."""

    name: str
    lines: tuple[str, ...]
    blank: int
    passed_over: str = ""  # the name of a second caption file of the image

    def text(self, source: CaptionSource) -> str | None:
        """The first line, or with `source.all_lines` all lines joined by newlines; None if the file is empty."""
        return ("\n".join(self.lines) if source.all_lines else self.lines[0]) if self.lines else None


def caption_file(image: Path, source: CaptionSource, root: Path) -> CaptionFile | None:
    """The caption file beside `image`; of two, the first that is not empty. None if there is none.

    Raises:
        DatasetError: the file is not UTF-8 text, cannot be read, is larger than MAX_BYTES, or is a link out of the resolved
            folder `root`.
    """
    extensions = [source.extension] + ([SECOND_EXTENSION] if source.extension == DEFAULT_EXTENSION else [])
    found: CaptionFile | None = None
    for extension in extensions:
        path = image.with_name(given_stem(image) + extension)
        if not _is_there(path, root):
            continue
        if found is not None and found.lines:
            return replace(found, passed_over=path.name)
        read = _caption_file(path)
        found = read if found is None or read.lines else found
    return found


def _is_there(path: Path, root: Path) -> bool:
    """Whether there is a caption file at `path`.

    Raises:
        DatasetError: the file is a link out of the resolved folder `root`.
        OSError: the folder cannot be accessed.
    """
    try:
        if path.is_symlink() and leads_out(path, root):
            raise DatasetError([f"Caption file {link_problem([path.name], root)}"])
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # the image's name is as long as the disk allows, the caption's suffix longer
            return False
        raise


def _caption_file(path: Path) -> CaptionFile:
    start = f"Caption file {path.name!r} "
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError([start + f"is larger than {MAX_BYTES // 2**20} MB; shorten or remove it."])
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError([start + f"cannot be read ({error.strerror}); check its permissions."]) from error
    except UnicodeDecodeError as error:
        raise DatasetError([start + "is not UTF-8 text; save it as UTF-8."]) from error
    if "\0" in text:  # UTF-16 without a byte order mark; no text has this character
        raise DatasetError([start + "is not UTF-8 text; save it as UTF-8."])
    return caption_of(text, path.name)


def caption_of(text: str, name: str) -> CaptionFile:
    """A caption file of the given name and text."""
    lines = [line.strip() for line in lines_of(text)]
    said = tuple(line for line in lines if line)
    return CaptionFile(name, said, lines.index(said[0]) if said else len(lines))


def written_caption(image: Path, written: str | None, concept: str | None, source: CaptionSource) -> str | None:
    """The caption to train on: `written`, else the image's name (with `source.filenames`), else the folder's concept.

    The trigger is put in front of each line. None if there is neither text nor trigger.
    """
    name = given_stem(image).replace("_", " ").strip() if source.filenames else None
    lines = (written or name or concept or "").split("\n")
    return "\n".join(with_trigger(line, source.trigger) for line in lines) or None


def caption_notes(files: Sequence[tuple[CaptionFile, str]], source: CaptionSource) -> list[str]:
    """Notes on what of a dataset's caption files is not used. `files`: each caption file with its image's caption."""
    notes = []
    if not source.all_lines:
        notes += _note([file.name for file, _ in files if len(file.lines) > 1], _FIRST_LINE)
        notes += _note([file.name for file, _ in files if file.lines and file.blank], _BLANK)
    empty: dict[str, list[str]] = {}
    for file, caption in files:
        if not file.lines:
            empty.setdefault("the image's name" if source.filenames else repr(_short(caption)), []).append(file.name)
    for learned, names in empty.items():
        notes += _note(names, f"empty, so {learned} is used as the caption.")
    return notes + _note([file.passed_over for file, _ in files if file.passed_over], _SECOND)


_FIRST_LINE = (
    "only the first line is used; put everything on one line, or turn on Wildcards (enable_wildcard), which uses one of the "
    "lines at random."
)
_BLANK = "blank lines before the caption are skipped; sd-scripts would use an empty caption."
_SECOND = f"not used, since the image also has a caption file with the extension {DEFAULT_EXTENSION}."


def _note(names: Sequence[str], told: str) -> list[str]:
    return [f"{'Caption files' if len(names) > 1 else 'Caption file'} {named(names)}: {told}"] if names else []


def _short(caption: str) -> str:
    return caption if len(caption) <= SHOWN_CHARACTERS else caption[: SHOWN_CHARACTERS - 1] + "…"


def with_trigger(caption: str, trigger: str) -> str:
    """`caption` with the trigger in front, unless the caption contains it."""
    if not caption or not trigger or has_trigger(caption, trigger):
        return caption or trigger
    return f"{trigger}, {caption}"


def has_trigger(text: str, trigger: str) -> bool:
    """Whether `text` contains the trigger as a whole word, ignoring case."""
    return re.search(rf"(?<!\w){re.escape(trigger.casefold())}(?!\w)", text.casefold()) is not None


def lines_of(text: str) -> list[str]:
    """The lines of `text` without line ends; an empty text has none."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]
