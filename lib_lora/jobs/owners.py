"""Whose a job is: the program that queued it, or goes on with it, holds the lock in its folder until it is over.

Several webuis may share one data folder. A lock ends with its program, so what is nobody's can be told from what runs elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_lora.files.locks import HeldElsewhereError, Lock, held_elsewhere, hold

LOCK = "lock"  # in the folder of a job
LIST_LOCK = ".lock"  # in the folder of all: held while several files are changed
LIST_S = 5.0  # a program that stands still must not stop the others for ever
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class Owners:
    """The locks of the jobs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, Lock] = {}
        self.trouble = ""  # why it cannot be told what another program does

    def claim(self, entry_id: str) -> bool:
        """Whether a job is this program's from now on. Where the disk has no locks every program gets it, which is told."""
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
        """The job is over, or removed: nobody's."""
        lock = self._held.pop(entry_id, None)
        if lock is not None:
            lock.release()

    def owns(self, entry_id: str) -> bool:
        """Whether a job is this program's."""
        return entry_id in self._held

    def elsewhere(self, entry_id: str) -> bool:
        """Whether a job is another program's."""
        return entry_id not in self._held and held_elsewhere(self._folder / entry_id / LOCK)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other program changes the list until the exit, or, where one stands still or there are no locks, hardly any.

        What belongs to a job is guarded by its own lock in any case; this one guards what belongs to all.
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
