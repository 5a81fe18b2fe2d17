"""File locks. The operating system releases a lock when its process ends, however it ends, so none is left behind.

Within one process a lock is shared: a second `hold` gets it too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lib_lora.errors import ConfigError, TrainLoraError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOOK_S = 0.01
CLAIM_S = 0.5  # a process that checks whether a lock is held takes it for a moment
_BUSY = {errno.EAGAIN, errno.EACCES, getattr(errno, "EDEADLOCK", errno.EDEADLK)}
_held: dict[tuple[int, int], tuple[IO[bytes], int]] = {}  # (device, inode) -> the open file, and its number of holders
_guard = threading.Lock()


class HeldElsewhereError(TrainLoraError):
    """Another process holds the lock."""


class Lock:
    """A lock that this process holds until `release`."""

    def __init__(self, path: Path, key: tuple[int, int]) -> None:
        self.path, self._key = path, key
        self._released = False

    def release(self, *, remove: bool = False) -> None:
        """Release the lock, unless others in this process share it; with `remove`, delete its file too."""
        with _guard:
            if self._released:
                return
            self._released = True
            file, count = _held.get(self._key, (None, 0))
            if file is None:  # held by the process that this one was forked from
                return
            if count > 1:
                _held[self._key] = (file, count - 1)
                return
            del _held[self._key]
            if remove and os.name != "nt":  # Windows cannot remove an open file
                with contextlib.suppress(OSError):  # the folder became read-only; the run's own error matters
                    self.path.unlink()
            with contextlib.suppress(OSError):  # closing the file releases the lock in any case
                _unlock(file)
            file.close()
            if remove and os.name == "nt":
                with contextlib.suppress(OSError):  # another process is checking it
                    self.path.unlink()


def hold(path: Path, wait_s: float = CLAIM_S) -> Lock:
    """Take the lock of the file at `path`, which is created if missing.

    Raises:
        HeldElsewhereError: another process holds the lock, and did not release it within `wait_s`.
        OSError: the file cannot be created, or its disk has no locks.
    """
    deadline = time.monotonic() + wait_s
    while True:
        lock = _try(path)
        if lock is not None:
            return lock
        if time.monotonic() >= deadline:
            raise HeldElsewhereError(f"{str(path)!r} is locked by another program.")
        time.sleep(LOOK_S)


def held_elsewhere(path: Path) -> bool:
    """Whether another process holds the lock of `path`; False if there are no locks, or no file."""
    for _ in range(3):  # another process may only be checking
        try:
            with path.open("r+b") as file:
                with _guard:
                    if _key(file) in _held:
                        return False
                if _locked(file, shared=True):
                    _unlock(file)
                    return False
        except OSError:
            return False
        time.sleep(LOOK_S)
    return True


@contextlib.contextmanager
def sole_writer(loras: Path, name: str) -> Iterator[list[str]]:
    """Until the exit, keep other programs that use this lock from training a LoRA of this name into this folder.

    Yields:
        Notes for the user: none, or that the folder has no locks.

    Raises:
        ConfigError: another program is training it.
    """
    made = not loras.exists()
    try:
        loras.mkdir(parents=True, exist_ok=True)
        _sweep(loras)
        lock = hold(loras / f".train-lora-{hashlib.sha256(name.casefold().encode()).hexdigest()[:16]}.lock")
    except HeldElsewhereError as error:
        raise ConfigError(
            [f"Name (name): {name!r} is being trained into this folder by another program; wait for it, or choose another name."]
        ) from error
    except OSError as error:
        reason = error.strerror or error
        yield [
            f"The LoRA folder does not support locks ({reason}); do not train {name!r} into it with another program at the "
            "same time."
        ]
        return
    try:
        yield []
    finally:
        lock.release(remove=True)
        if made:
            with contextlib.suppress(OSError):  # the folder is not empty
                loras.rmdir()


def _sweep(folder: Path) -> None:
    """Remove the lock files of programs that were killed while they trained here."""
    for path in folder.glob(".train-lora-*.lock"):
        with contextlib.suppress(HeldElsewhereError, OSError):
            hold(path, 0.0).release(remove=True)


def _try(path: Path) -> Lock | None:
    """The lock; None if another process holds it, or its file was just removed."""
    file = path.open("a+b")
    try:
        with _guard:
            key = _key(file)
            if key in _held:
                known, count = _held[key]
                _held[key] = (known, count + 1)
                return Lock(path, key)
            if _locked(file, shared=False) and _is_still(file, path):
                _held[key] = (file, 1)
                file = None  # type: ignore[assignment]  # kept open
                return Lock(path, key)
    finally:
        if file is not None:
            file.close()
    return None


def _is_still(file: IO[bytes], path: Path) -> bool:
    """Whether the open file is the one at `path`; its last holder may have removed it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == _key(file)


def _key(file: IO[bytes]) -> tuple[int, int]:
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino


def _locked(file: IO[bytes], *, shared: bool) -> bool:
    """Take the lock; returns whether that succeeded. `shared`: with others that only check.

    Raises:
        OSError: the disk has no locks.
    """
    try:
        if sys.platform == "win32":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def _unlock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def _forget() -> None:
    """In a forked process: drop the locks, which are the parent's and end with the parent."""
    for file, _ in _held.values():
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
