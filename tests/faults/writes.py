"""Every file that this process opens for writing, creates, renames, links or removes, anywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EVENTS = {
    "open": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.truncate": 1,
    "os.chmod": 1, "os.utime": 1, "shutil.copyfile": 2, "shutil.move": 2, "shutil.rmtree": 1,
}  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_seen: list[list[Path]] = []  # where it is noted; a hook cannot be taken off again


@contextmanager
def writes() -> Iterator[list[Path]]:
    """All paths that are written while it lasts, by any thread."""
    if not _audit.installed:
        _audit.installed = True
        sys.addaudithook(_audit)
    seen: list[Path] = []
    _seen.append(seen)
    try:
        yield seen
    finally:
        _seen.remove(seen)


def outside(seen: list[Path], *folders: Path) -> list[Path]:
    """Those that lie in none of `folders`; what Python keeps of its own modules is not counted."""
    inside = [os.path.realpath(folder) for folder in folders]
    found = [path for path in seen if "__pycache__" not in path.parts and str(path) != os.devnull]
    return [path for path in found if not any(os.path.realpath(path).startswith((f"{folder}/", folder)) for folder in inside)]


class _Audit:
    installed = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not _seen or event not in EVENTS or (event == "open" and not _writes(args[0], args[2] or 0)):
            return
        paths = [_absolute(path, event, args) for path in args[: EVENTS[event]] if isinstance(path, (str, bytes, os.PathLike))]
        for seen in _seen:
            seen += paths


def _writes(path: Any, flags: int) -> bool:
    """A folder can be opened to be written only for a file that has no name in it, and is gone when it is closed."""
    return bool(flags & WRITES) and not isinstance(path, int) and not Path(os.fsdecode(path)).is_dir()


def _absolute(path: Any, event: str, args: tuple[Any, ...]) -> Path:
    """`shutil.rmtree` names what it removes from inside of the folder."""
    inside = event in {"os.remove", "os.rmdir"} and isinstance(args[1], int) and args[1] >= 0
    return (Path(f"/proc/self/fd/{args[1]}").readlink() if inside else Path.cwd()) / os.fsdecode(path)


_audit = _Audit()
