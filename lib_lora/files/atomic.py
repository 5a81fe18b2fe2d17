"""Atomic writing: a file has its old content or the new, never a part.

Temporary files have names that no other program gives, so that the next run may remove them.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# suffixes of temporary names: a part of a file or state, a backup, a replaced state, a removed state
TEMPORARY, BACKUP, OLD, GONE = (f".train-lora.{what}" for what in ("tmp", "bak", "old", "gone"))
_PASSING = re.compile(r"\..{1,200}-[a-z0-9_]{8}(\.train-lora\.(?:tmp|bak|old|gone))")
_LONGEST_STEM = 40  # characters, of up to 4 bytes
PARTIAL, LONGEST_PARTIAL = ".part", 50  # suffix of an incomplete copy, and letters of its name


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a temporary file in the same folder, synced to disk before it is renamed.

    Raises:
        OSError: writing failed; `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_passing_start(path.stem), suffix=TEMPORARY, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):  # shares and memory cards without permissions
            temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error is raised; the next run removes the file
            temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the file is in place; some shares cannot sync or read a folder
        sync_folder(path.parent)


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Make `target` a hard link to `source`, or a copy if the disk has no hard links; complete or not at all.

    Raises:
        OSError: `target` was not written.
    """
    try:
        os.link(source, target)
    except OSError:
        copy_whole(source, target)


def copy_whole(source: Path | str, target: Path | str) -> None:
    """Copy `source` to `target`, completely or not at all.

    Raises:
        OSError: copying failed; `target` is unchanged.
    """
    partial = Path(target).with_name(f"{Path(target).name[:LONGEST_PARTIAL]}{PARTIAL}")
    try:
        shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def passing_name(stem: str, ending: str) -> str:
    """A new temporary name with the suffix `ending`."""
    return f"{_passing_start(stem)}{secrets.token_hex(4)}{ending}"


def passing_ending(name: str) -> str | None:
    """The suffix of a temporary name of this extension; None for any other name."""
    found = _PASSING.fullmatch(name)
    return found[1] if found else None


def free_path(path: Path, ending: str = "", is_taken: Callable[[Path], bool] = os.path.lexists) -> Path:
    """`path`, or `path` with the smallest of -2, -3, … before the `ending` of its name that is not taken."""
    start = path.name.removesuffix(ending)
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return next(free for number in numbers if not is_taken(free := path.with_name(f"{start}{number}{ending}")))


def _passing_start(stem: str) -> str:
    return f".{stem[:_LONGEST_STEM]}-"  # eight letters follow


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Sync added and removed names in `folder` to disk."""
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
