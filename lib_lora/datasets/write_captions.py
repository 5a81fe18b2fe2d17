"""*Write captions to the folder*: the edited captions of a dataset whose images lie in a folder on the disk, as caption files.

Nothing else writes into such a folder. Only files whose text differs are written; a file that others wrote is kept as `.bak`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lib_lora.data.captions import DEFAULT_EXTENSION, MAX_BYTES, caption_of
from lib_lora.data.folders import IMAGE_SUFFIXES, OTHER_SUFFIXES, leads_out, named
from lib_lora.data.hidden_names import given_stem
from lib_lora.datasets.image_set import ImageEntry, ImageSet
from lib_lora.errors import DatasetError, DiskError
from lib_lora.files.atomic import copy_whole, write_atomically

KEPT = ".bak"
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,16}")


@dataclass(frozen=True)
class CaptionWrite:
    """A caption file to write. `keeps`: the path for a copy of the file that it replaces, None if that is not needed."""

    path: Path
    text: str
    keeps: Path | None


@dataclass(frozen=True)
class CaptionPlan:
    """The caption files to write, and sentences on captions that are not written."""

    writes: tuple[CaptionWrite, ...]
    told: tuple[str, ...]


def caption_plan(dataset: ImageSet, extension: str = DEFAULT_EXTENSION) -> CaptionPlan:
    """What `write_captions` would write now; writes nothing. `extension`: of the caption files.

    Raises:
        DatasetError: the dataset is no folder on the disk, or the extension is none of a text.
    """
    if dataset.edits.source is None:
        raise DatasetError(["This dataset is no folder on the disk; export it as a zip to get its captions as files."])
    _check(extension)
    entries, problems = dataset.entries()
    edited: dict[Path, list[ImageEntry]] = defaultdict(list)
    for entry in entries:
        edited[entry.path.with_name(given_stem(entry.path) + extension)].append(entry)
    writes, told = [], [*problems]
    for path, of in edited.items():
        texts = {entry.caption for entry in of}
        if all(entry.edit.caption is None for entry in of):
            continue
        if len(texts) > 1:
            told.append(f"{named([entry.name for entry in of])} share {path.name!r} but not the caption; rename one of them.")
        elif path.is_symlink() and leads_out(path, of[0].folder.root):
            told.append(f"Caption file {path.name!r} is a link out of the folder, so it is not written; replace it by a file.")
        else:
            writes += _needed(path, of[0].caption or "")
    return CaptionPlan(tuple(writes), tuple(told))


def write_captions(dataset: ImageSet, extension: str = DEFAULT_EXTENSION) -> CaptionPlan:
    """Write the captions that differ from their files; returns what was written.

    Raises:
        DatasetError: as `caption_plan`; or the disk refused, then it says how many were written, each complete.
    """
    with dataset.held():
        plan = caption_plan(dataset, extension)
        for number, write in enumerate(plan.writes):
            try:
                if write.keeps is not None:
                    copy_whole(write.path, write.keeps)
                write_atomically(write.path, write.text.encode())
            except OSError as error:
                raise DiskError([
                    f"Caption file {write.path.name!r} cannot be written ({error.strerror or error}); {number} of "
                    f"{len(plan.writes)} were. Free space or check permissions, and write them again."
                ]) from error  # fmt: skip
    return plan


def _check(extension: str) -> None:
    """Check that a caption file cannot be an image, or a copy that is kept."""
    if not _EXTENSION.fullmatch(extension) or extension.lower() in {*IMAGE_SUFFIXES, *OTHER_SUFFIXES, KEPT, ".json"}:
        raise DatasetError([f"Caption extension: got {extension[:40]!r}, must be the ending of a text file, such as '.txt'."])


def _needed(path: Path, text: str) -> list[CaptionWrite]:
    """The write of a caption, if its file has another text."""
    if not os.path.lexists(path):
        return [CaptionWrite(path, text, None)] if caption_of(text, "").lines else []
    now = _text(path)
    if now is not None and caption_of(now, "").lines == caption_of(text, "").lines:
        return []
    kept = path.with_name(path.name + KEPT)
    return [CaptionWrite(path, text, None if os.path.lexists(kept) else kept)]


def _text(path: Path) -> str | None:
    """The text of a file; None if it is none, which is replaced."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
