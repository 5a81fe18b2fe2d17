"""Ownership of jobs: the program that queued or resumed a job holds the lock in its folder until the job is over.

Several webuis may share one data folder. A lock ends with its program, which tells jobs without an owner from those of others.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_lora.files.locks import HeldElsewhereError, Lock, held_elsewhere, hold

LOCK = "lock"  # in the folder of a job
LIST_LOCK = ".lock"  # in the folder of all jobs: held while several files are changed
LIST_S = 5.0  # a program that hangs must not block the others for ever
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class Owners:
    """The locks of the jobs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, Lock] = {}
        self.trouble = ""  # why jobs of other programs cannot be recognised

    def claim(self, entry_id: str) -> bool:
        """Try to own a job; returns whether that succeeded. On a disk without locks it always does, and `trouble` says so."""
        if entry_id in self._held:
            return True
        try:
            self._held[entry_id] = hold(self._folder / entry_id / LOCK)
        except HeldElsewhereError:
            return False
        except OSError as error:
            self._tell(error)
        return True

    def release(self, entry_id: str) -> None:
        """Give up a job that is over or removed."""
        lock = self._held.pop(entry_id, None)
        if lock is not None:
            lock.release()

    def owns(self, entry_id: str) -> bool:
        """Whether this program owns a job."""
        return entry_id in self._held

    def elsewhere(self, entry_id: str) -> bool:
        """Whether another program owns a job."""
        return entry_id not in self._held and held_elsewhere(self._folder / entry_id / LOCK)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other programs from changing the list until the exit; not guaranteed if one hangs or the disk has no locks.

        This lock guards the files of all jobs; those of one job have that job's own lock.
        """
        lock = None
        try:
            if self._folder.is_dir():
                lock = hold(self._folder / LIST_LOCK, LIST_S)
        except (HeldElsewhereError, OSError) as error:
            if isinstance(error, OSError):
                self._tell(error)
        try:
            yield
        finally:
            if lock is not None:
                lock.release(remove=True)

    def _tell(self, error: OSError) -> None:
        if error.errno in _NO_LOCKS:
            why = os.strerror(error.errno or 0)
            self.trouble = f"The disk of the data folder does not support locks ({why}); use the folder with one webui only."
