"""Writing files so that a name holds the old content or the new, never a part.

What lies under another name meanwhile bears a name that nobody else gives, so that the next run may take it away.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

# endings of what passes: a part of a file or state, the old one, a state that goes
TEMPORARY, BACKUP, OLD, GONE = (f".train-lora.{what}" for what in ("tmp", "bak", "old", "gone"))
_PASSING = re.compile(r"\..{1,200}-[a-z0-9_]{8}(\.train-lora\.(?:tmp|bak|old|gone))")
_LONGEST_STEM = 40  # characters, of up to 4 bytes
PARTIAL, LONGEST_PARTIAL = ".part", 50  # ending of a copy that is not whole yet, and letters of its name


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` through a temporary file of the same folder, synced to disk before it gets the name.

    Raises:
        OSError: nothing was changed at `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_passing_start(path.stem), suffix=TEMPORARY, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):  # shares and memory cards that know no permissions
            temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error counts; the next run takes the part away
            temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the file has its name; some shares cannot sync a folder, or let nobody read it
        sync_folder(path.parent)


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """The same content at `target`, which takes no room where the disk knows hard links; whole, or not there.

    Raises:
        OSError: nothing is at `target`.
    """
    try:
        os.link(source, target)
    except OSError:
        copy_whole(source, target)


def copy_whole(source: Path | str, target: Path | str) -> None:
    """A copy at `target`; whole, or not there.

    Raises:
        OSError: what was at `target` before is still there.
    """
    partial = Path(target).with_name(f"{Path(target).name[:LONGEST_PARTIAL]}{PARTIAL}")
    try:
        shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def passing_name(stem: str, ending: str) -> str:
    """A name, not given before, for what is there for a moment."""
    return f"{_passing_start(stem)}{secrets.token_hex(4)}{ending}"


def passing_ending(name: str) -> str | None:
    """The ending of a name that this room, or a state on its way, was given for a moment; None of any other name."""
    found = _PASSING.fullmatch(name)
    return found[1] if found else None


def _passing_start(stem: str) -> str:
    return f".{stem[:_LONGEST_STEM]}-"  # eight letters follow


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Have names on disk that were given or taken in `folder`."""
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
