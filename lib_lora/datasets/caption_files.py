"""The captions in the files beside images, read again only where a file has changed."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from lib_lora.data.captions import DEFAULT_EXTENSION, SECOND_EXTENSION, CaptionSource, caption_file
from lib_lora.data.hidden_names import given_name, given_stem
from lib_lora.errors import DatasetError

SETTLED_NS = 2 * 10**9  # disks count the time of changes in steps of up to 2 s
_CAPTIONS = CaptionSource(all_lines=True)


class Captioned(NamedTuple):
    """All lines of a caption, None if there is none, and sentences on a file that cannot be used."""

    text: str | None
    problems: tuple[str, ...] = ()


class _State(NamedTuple):
    """Tells a file from what it was before."""

    mtime_ns: int
    ctime_ns: int
    length: int
    inode: int
    device: int


class _Kept(NamedTuple):
    states: tuple[_State | None, ...]
    found: Captioned


class CaptionFiles:
    """Reads caption files, and keeps what they say until they change. Any thread may call its methods.

    What was changed within SETTLED_NS before it was read is read again: it could change once more without showing it. So are
    links, which may lead elsewhere at any time.
    """

    def __init__(self) -> None:
        self._kept: dict[Path, _Kept] = {}

    def of(self, image: Path, root: Path) -> Captioned:
        """The caption in the files beside `image`. Nothing outside the resolved folder `root` is read."""
        now = time.time_ns()
        states = _states(image)
        kept = self._kept.get(image)
        if kept is not None and kept.states == states:
            return kept.found
        found = _read(image, root)
        if states is not None and all(state is None or _is_settled(state, now) for state in states):
            self._kept[image] = _Kept(states, found)
        else:
            self._kept.pop(image, None)
        return found

    def forget_others(self, images: Collection[Path]) -> None:
        """Forget the captions of all but these images."""
        if len(self._kept) > len(images):
            kept = self._kept
            self._kept = {image: kept[image] for image in images if image in kept}


def _states(image: Path) -> tuple[_State | None, ...] | None:
    """The states of the caption files that an image may have, None for one that is not there; None if a state is not sure."""
    start = os.path.join(os.path.dirname(image), given_stem(image))  # noqa: PTH118, PTH120 - of thousands, at every listing
    found: list[_State | None] = []
    for extension in (DEFAULT_EXTENSION, SECOND_EXTENSION):
        try:
            of = os.lstat(start + extension)
        except FileNotFoundError:
            found.append(None)
            continue
        except OSError:
            return None
        if not stat.S_ISREG(of.st_mode):
            return None
        found.append(_State(of.st_mtime_ns, of.st_ctime_ns, of.st_size, of.st_ino, of.st_dev))
    return tuple(found)


def _is_settled(state: _State, now: int) -> bool:
    return max(state.mtime_ns, state.ctime_ns) < now - SETTLED_NS


def _read(image: Path, root: Path) -> Captioned:
    try:
        found = caption_file(image, _CAPTIONS, root)
    except DatasetError as error:
        return Captioned(None, tuple(error.problems))
    except OSError as error:
        return Captioned(None, (f"Image {given_name(image)!r} cannot be read ({error.strerror}); check its permissions.",))
    return Captioned(found.text(_CAPTIONS) if found else None)
