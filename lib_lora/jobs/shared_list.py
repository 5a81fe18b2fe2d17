"""The list of jobs on a disk that several programs may share: it follows their changes and leaves their jobs alone."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lib_lora.jobs.history import after_restart, foreign_problem
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_store import QueueError, Store

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0  # how often changes by other programs are read while a page polls


class SharedList:
    """All jobs of a folder. Changes by other programs are read before each own change, and by `look`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._depth = 0  # of nested changes
        self._unwritten: dict[str, Entry] = {}  # entries that the disk refused
        self._elsewhere: frozenset[str] = frozenset()  # jobs of other programs
        self._entries: tuple[Entry, ...] = ()
        self._trainer, self._changes = uuid.uuid4().hex[:8], 0
        self._looked, self._looking = 0.0, threading.Lock()
        self.trouble = ""  # why the list cannot be read or written
        try:
            with store.owners.alone():
                self._take(store.load())
            self.trouble = store.put_aside
        except OSError as error:  # training works without a history
            self.trouble = f"The list of jobs could not be read ({error}); check its permissions."

    @property
    def revision(self) -> str:
        """A string that differs after every visible change of the list."""
        return f"{self._trainer}-{self._changes}"

    @property
    def told(self) -> str:
        """The problems of the list, for people."""
        return " ".join(text for text in (self.trouble, self._store.owners.trouble) if text)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All jobs: running, waiting in their order, then over with the newest first. Takes no lock."""
        entries = self._entries
        over = sorted((entry for entry in entries if entry.over), key=lambda entry: entry.ended or entry.queued, reverse=True)
        waiting = [entry for entry in entries if entry.state == "waiting"]
        return (*(entry for entry in entries if entry.state == "running"), *waiting, *over)

    def elsewhere(self, entry_id: str) -> bool:
        """Whether a job runs or waits in another program."""
        return entry_id in self._elsewhere

    def look_soon(self, *, at_once: bool = False) -> None:
        """Call `look` in a new thread unless that happened just now. Never blocks."""
        if (at_once or time.monotonic() - self._looked > LOOK_EVERY_S) and self._looking.acquire(blocking=False):
            try:
                threading.Thread(target=self._look_and_say, name="train-lora-looks", daemon=True).start()
            except RuntimeError:  # no more threads: a later call will do
                self._looking.release()

    def look(self) -> None:
        """Read the changes that other programs made to the list."""
        changes = self._changes
        try:
            found = self._store.read()
        except OSError:  # the list stays as it was; the next change reports the problem
            return
        with self._lock:
            if changes == self._changes and not self._depth:  # else `found` is outdated
                self._take(found)

    def _look_and_say(self) -> None:
        try:
            self.look()
        except Exception as error:  # noqa: BLE001 - the thread's last line
            log.warning("sd-webui-train-lora: the list of jobs could not be read (%s)", error)
        finally:
            self._looked = time.monotonic()
            self._looking.release()

    def entry(self, entry_id: str) -> Entry:
        """The job with this id.

        Raises:
            QueueError: there is no such job.
        """
        for entry in self._entries:
            if entry.id == entry_id:
                return entry
        raise QueueError("The job does not exist any more.")

    def _knows_better(self) -> str | None:
        """The id of the job of which this program knows more than the disk, or None."""
        return None

    def _all_waiting(self) -> list[Entry]:
        return [entry for entry in self._entries if entry.state == "waiting"]

    def _waiting(self) -> list[Entry]:
        """Waiting jobs of this program, and those without an owner."""
        return [entry for entry in self._all_waiting() if not self.elsewhere(entry.id)]

    def _owned(self) -> list[Entry]:
        """Waiting jobs that this program owns and will start."""
        return [entry for entry in self._waiting() if self._store.owners.owns(entry.id)]

    def _refuse_foreign(self, entry_id: str) -> None:
        if self.elsewhere(entry_id):
            raise QueueError(foreign_problem(self.entry(entry_id)))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep other threads and programs from changing the list until the exit, after reading their earlier changes."""
        with self._lock:
            if self._depth:
                yield
                return
            with self._store.owners.alone():
                with contextlib.suppress(OSError):  # the next write reports it
                    self._take(self._store.read())
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1

    def _take(self, found: Sequence[Entry]) -> None:
        """Replace the list with `found`, except for entries of which this program knows more."""
        own = {entry.id: entry for entry in self._entries}
        current = self._knows_better()
        known = {**self._unwritten, **({current: own[current]} if current in own else {})}
        elsewhere = frozenset(entry.id for entry in found if not entry.over and self._store.owners.elsewhere(entry.id))
        seen = [entry if entry.id in elsewhere else after_restart(entry) for entry in found]
        entries = [known.pop(entry.id, entry) for entry in seen]
        taken = (*entries, *known.values())
        if taken != self._entries or elsewhere != self._elsewhere:
            self._elsewhere = elsewhere
            self._set(taken)

    def _replace(self, entry: Entry) -> None:
        self._set(tuple(entry if other.id == entry.id else other for other in self._entries))

    def _set(self, entries: tuple[Entry, ...]) -> None:
        self._entries = entries
        self._changes += 1
