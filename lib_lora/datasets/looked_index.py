"""What was found out about the images of a dataset, on the disk: one index, and thumbnails under hidden names.

It is a cache: what is missing or damaged in it is found out again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lib_lora.data.folders import MAX_ENTRIES
from lib_lora.data.hidden_names import hidden_name
from lib_lora.data.image_facts import ImageFacts
from lib_lora.data.sizes import Size
from lib_lora.files.atomic import TEMPORARY, passing_name

INDEX, VERSION = "looked.json", 1
MAX_BYTES = 64 * 2**20  # MAX_ENTRIES images with long names
LONGEST_PROBLEM = 2000


class FileKey(NamedTuple):
    """Tells a file from what it was before: time of its last change, and length in bytes."""

    mtime_ns: int
    length: int


@dataclass(frozen=True)
class Looked:
    """What is known of an image file as it was at `key`.

    `size`: from its header, before it is decoded, None if that is damaged. `facts`: None before, or if it cannot be decoded.
    `problems`: why it cannot be used. `whole`: it was decoded to all of its pixels. `done`: a page has no more to wait for.
    """

    key: FileKey
    size: Size | None = None
    facts: ImageFacts | None = None
    problems: tuple[str, ...] = ()
    whole: bool = True

    @property
    def done(self) -> bool:
        return self.facts is not None or bool(self.problems)


def key_of(path: Path) -> FileKey:
    """The key of a file.

    Raises:
        OSError: it is missing.
    """
    found = path.stat()
    return FileKey(found.st_mtime_ns, found.st_size)


def thumbnail_name(place: str, key: FileKey) -> str:
    """The name of a thumbnail: another one when the file has changed, so that no page shows an old one."""
    text = f"{place}\0{key.mtime_ns}\0{key.length}"
    return hidden_name(hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32] + ".jpg")


def read(folder: Path) -> dict[str, Looked]:
    """The index in `folder`: place -> what is known. Empty if there is none, or it is damaged."""
    try:
        with (folder / INDEX).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        plain = json.loads(content) if len(content) <= MAX_BYTES else {}
        if plain["version"] != VERSION:
            return {}
        return {str(place): _looked(values) for place, values in plain["images"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return {}


def write(folder: Path, found: Mapping[str, Looked]) -> None:
    """Replace the index, in whole or not at all. `folder` is made if the one above it is there: a deleted dataset stays away.

    Raises:
        OSError: it was not written.
    """
    images = {place: _plain(looked) for place, looked in list(found.items())[-MAX_ENTRIES:] if looked.done}
    content = json.dumps({"version": VERSION, "images": images}).encode()
    make(folder)
    partial = folder / passing_name(INDEX, TEMPORARY)
    try:
        partial.write_bytes(content)
        partial.replace(folder / INDEX)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def make(folder: Path) -> None:
    """Make the folder of what was looked at, in that of the dataset.

    Raises:
        OSError: the dataset is gone, or the disk refused.
    """
    folder.mkdir(exist_ok=True)


def thumbnails(folder: Path) -> set[str]:
    """The names of the files in `folder`."""
    try:
        with os.scandir(folder) as files:
            return {file.name for file in files}
    except OSError:
        return set()


def remove_others(folder: Path, names: Collection[str]) -> None:
    """Remove the files of `folder` that are neither the index nor one of `names`."""
    for name in thumbnails(folder) - {INDEX, *names}:
        with suppress(OSError):
            (folder / name).unlink()


def _plain(looked: Looked) -> list[Any]:
    facts = looked.facts
    if facts is None:
        return [*looked.key, list(looked.problems)]
    values = [list(facts.size), facts.sha256, facts.turned, facts.transparent, f"{facts.hash:016x}", facts.sharpness]
    return [*looked.key, *values, *([] if looked.whole else [False])]


def _looked(values: list[Any]) -> Looked:
    """As `_plain` wrote it.

    Raises:
        ValueError, TypeError, IndexError: it is something else.
    """
    key = FileKey(int(values[0]), int(values[1]))
    if len(values) == 3:
        return Looked(key, problems=tuple(str(text)[:LONGEST_PROBLEM] for text in values[2]))
    size, sha256, turned, transparent, bits, sharpness, *whole = values[2:]
    height, width = size
    facts = ImageFacts(
        Size(int(height), int(width)), str(sha256), turned is True, transparent is True, int(bits, 16), float(sharpness)
    )
    return Looked(key, facts.size, facts, whole=not whole)
