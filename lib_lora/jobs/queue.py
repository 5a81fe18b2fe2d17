"""The queue of jobs and the history of what became of them. One runs, others wait in their order; all survive the program."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Protocol

from lib_lora.check import check
from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.errors import ConfigError, ModelError
from lib_lora.events import Event, Note, Phase, Planned, Saved, SavedBetween, StateSaved, StepDone
from lib_lora.jobs.history import after_restart, name_clash, settings_to_run, waiting_again
from lib_lora.jobs.job import Job
from lib_lora.jobs.queue_entry import Entry, EntryState, with_progress
from lib_lora.jobs.queue_store import QueueError, Store
from lib_lora.jobs.runner import Runner

log = logging.getLogger(__name__)

MAX_WAITING = 100
KEPT_ENDED = 100  # jobs that are over; older ones are forgotten with their images
WRITE_EVERY_S = 10.0  # while steps go on
_AT_ONCE = (Planned, StateSaved, Saved, SavedBetween)  # events that are written down at once
_ENDS: dict[str, EntryState] = {"done": "finished", "stopped": "stopped", "failed": "failed"}


class Checkpoints(Protocol):
    """Which checkpoint a host would train on, and which one it lends at the moment; empty for: no choice."""

    def chosen(self) -> str: ...

    def lent(self) -> str: ...


@dataclass(frozen=True)
class Placed:
    """What became of a request: a job that runs, or a place among those that wait (1 is next)."""

    name: str
    job: Job | None = None
    place: int = 0


class Queue:
    """Begins jobs on a runner, one after the other. Every method may be called by any thread."""

    def __init__(self, runner: Runner, store: Store, checkpoints: Checkpoints | None = None) -> None:
        self.runner, self._store, self._checkpoints = runner, store, checkpoints
        self._lock = threading.RLock()
        self._current: tuple[str, Job] | None = None
        self._lent_checked = False
        self.trouble = ""  # why the list cannot be read or written
        self._entries: tuple[Entry, ...] = ()
        try:
            self._entries = tuple(after_restart(entry) for entry in store.load())
            self.trouble = store.put_aside
        except OSError as error:  # training goes on without a history
            self.trouble = f"The list of jobs could not be read ({error}); check its permissions."
        self.held = bool(self._waiting())  # what waited when the program ended begins when somebody says so
        self._session, self._changes = uuid.uuid4().hex[:8], 0
        runner.watch(self)

    @property
    def revision(self) -> str:
        """Another text after every change that the list shows."""
        return f"{self._session}-{self._changes}"

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All jobs: the running one, those that wait in their order, those that are over with the newest first. Takes no lock."""
        entries = self._entries
        over = sorted((entry for entry in entries if entry.over), key=lambda entry: entry.ended or entry.queued, reverse=True)
        waiting = [entry for entry in entries if entry.state == "waiting"]
        return (*(entry for entry in entries if entry.state == "running"), *waiting, *over)

    def entry(self, entry_id: str) -> Entry:
        """One job.

        Raises:
            QueueError: there is no such job.
        """
        for entry in self._entries:
            if entry.id == entry_id:
                return entry
        raise QueueError("The job is not there any more.")

    def owns(self, folder: str) -> bool:
        """Whether a folder of settings holds images of a job, which were dropped and not named."""
        return self._store.owns(folder)

    def submit(self, config: TrainConfig) -> Placed:
        """Begin a job, or let it wait where one runs. One that waits is checked now, so that its problems are told now.

        Raises:
            ConfigError: with every problem of a job that would wait; or its name is that of a job that runs or waits.
            QueueError: it cannot be written down.
        """
        entry = Entry(uuid.uuid4().hex[:12], json.loads(json.dumps(config.to_flat())), time.time(), checkpoint=self._chosen())
        with self._lock:
            self._refuse_name(entry)
            if self._free():
                return self._begin_new(entry)
        check(config, self.runner.host)
        with self._lock:
            self._refuse_name(entry)
            if len(self._waiting()) >= MAX_WAITING:
                raise ConfigError([f"The queue is full: {MAX_WAITING} jobs wait; remove one, or come back later."])
            self._set((*self._entries, self._store.add(entry)))
            self._begin_next()  # the one that ran may have ended meanwhile
            return self._placed(entry.id)

    def go_on(self, entry_id: str) -> Placed:
        """Let a job that did not come to its end go on from its newest state: now, or behind those that wait.

        Raises:
            QueueError: there is no such job, it has no state, or it cannot be written down.
            ConfigError: its name is that of a job that runs or waits.
        """
        with self._lock:
            again = waiting_again(self.entry(entry_id), time.time())
            self._refuse_name(again)
            others = tuple(other for other in self._entries if other.id != entry_id)
            self._store.write_order([other.id for other in (*self._waiting(), again)])
            self._store.write(again)
            free = self._free()
            self._set((*others, again))
            if free:
                self._begin(again)
            return self._placed(entry_id)

    def move(self, entry_id: str, by: int) -> None:
        """Move a waiting job by one place: -1 forward, 1 back. At an end nothing happens.

        Raises:
            QueueError: it does not wait, or the order cannot be written.
        """
        with self._lock:
            waiting = self._waiting()
            ids = [entry.id for entry in waiting]
            if entry_id not in ids:
                raise QueueError(f"{self.entry(entry_id).name!r} does not wait any more.")
            place = ids.index(entry_id)
            if not 0 <= place + by < len(ids):
                return
            waiting[place], waiting[place + by] = waiting[place + by], waiting[place]
            self._store.write_order([entry.id for entry in waiting])
            self._set((*(entry for entry in self._entries if entry.state != "waiting"), *waiting))

    def remove(self, entry_id: str) -> None:
        """Forget a job and the images that were dropped for it. Its LoRA and its states stay.

        Raises:
            QueueError: it runs, or the disk refused.
        """
        with self._lock:
            entry = self.entry(entry_id)
            if entry.state == "running":
                raise QueueError(f"{entry.name!r} is running; stop it first.")
            self._store.remove(entry_id)
            self._set(tuple(other for other in self._entries if other.id != entry_id))

    def hold(self) -> None:
        """Begin no further job until `start`."""
        with self._lock:
            self.held = True
            self._changes += 1

    def leave(self, timeout_s: float) -> str | None:
        """The program ends: nothing begins any more, and what runs saves its state; as `Runner.leave`."""
        self.hold()
        return self.runner.leave(timeout_s)

    def start(self) -> None:
        """Begin what waits, one after the other."""
        with self._lock:
            self.held, self.trouble = False, ""
            self._changes += 1
            self._begin_next()

    def happened(self, job: Job, event: Event) -> None:
        """See `Watcher`.

        Raises:
            ModelError: the model that was lent is not of the checkpoint that the job was queued for.
        """
        with self._lock:
            entry = self._running(job)
            if entry is None:
                return
            self._check_lent(entry, event)
            steps_seen = isinstance(event, StepDone) and time.time() - (entry.seen or 0) >= WRITE_EVERY_S
            if not (steps_seen or isinstance(event, _AT_ONCE)):
                return
            seen = dataclasses.replace(self._seen(entry, job), direct=False)
            try:
                self._store.write(seen)
            except QueueError as error:
                if not self.trouble:
                    job.apply(Note(f"{error} The training goes on."))
                self.trouble = str(error)
            self._replace(seen)

    def ended(self, job: Job) -> None:
        """See `Watcher`."""
        with self._lock:
            entry = self._running(job)
            if entry is not None:
                self._current = None
                seen = self._seen(entry, job)
                over = dataclasses.replace(seen, state=_ENDS[job.snapshot()["state"]], ended=time.time())
                over = after_restart(seen) if job.stop.leaves and over.state == "stopped" else over
                told = self.held or not self._waiting()  # else the next one begins, and its page would show that
                self._keep(over, refused=entry.direct and over.state == "failed" and told)
            self._begin_next()

    def _keep(self, entry: Entry, *, refused: bool) -> None:
        """Write down how a job ended. One whose settings were refused at once was no job: its sentences were told."""
        try:
            if refused:
                self._store.remove(entry.id)
                self._set(tuple(other for other in self._entries if other.id != entry.id))
            else:
                self._store.write(entry)
                self._replace(entry)
                self.trouble = ""
            over = [other.id for other in self.entries if other.over]
            for old in over[KEPT_ENDED:]:
                self.remove(old)
        except QueueError as error:
            self.trouble = str(error)
            self._replace(entry)
            log.warning("sd-webui-train-lora: %s", error)

    def _check_lent(self, entry: Entry, event: Event) -> None:
        """Once, at the first event after the model was lent."""
        if self._lent_checked or isinstance(event, (Planned, Phase)):
            return
        self._lent_checked = True
        lent = self._checkpoints.lent() if self._checkpoints else ""
        if entry.checkpoint and lent and entry.checkpoint != lent:
            raise ModelError(
                f"The job was meant for the checkpoint {entry.checkpoint!r}, and {lent!r} is loaded; "
                "select that one, and repeat the job."
            )

    def _begin_new(self, entry: Entry) -> Placed:
        """A job that never waits."""
        written = self._store.add(dataclasses.replace(entry, state="running", direct=True, started=time.time(), seen=time.time()))
        self._set((*self._entries, written))
        try:
            self._run(written)
        except ConfigError:
            self._replace(dataclasses.replace(written, state="failed"))
            self.remove(written.id)
            raise
        return self._placed(entry.id)

    def _begin_next(self) -> None:
        """The next one that waits and can begin; what cannot is over, and the one behind it is next."""
        while not self.held and self._current is None and not self._runner_busy() and self._waiting():
            self._begin(self._waiting()[0])

    def _begin(self, entry: Entry) -> None:
        running = dataclasses.replace(entry, state="running", started=time.time(), seen=time.time())
        try:
            self._store.write(running)
        except QueueError as error:
            self.held, self.trouble = True, str(error)  # the list would not know what runs
            self._changes += 1
            return
        self._replace(running)
        try:
            self._run(running)
        except ConfigError as error:
            failed = dataclasses.replace(running, state="failed", problems=tuple(error.problems), ended=time.time())
            self._keep(failed, refused=False)

    def _run(self, entry: Entry) -> None:
        self._lent_checked = False
        settings = settings_to_run(entry, self.runner.host.lora_folder())
        self._current = (entry.id, self.runner.start(build_config(settings)))

    def _placed(self, entry_id: str) -> Placed:
        """Where a job stands that was just added."""
        entry = self.entry(entry_id)
        if self._current and self._current[0] == entry_id:
            return Placed(entry.name, self._current[1])
        ids = [other.id for other in self._waiting()]
        return Placed(entry.name, place=ids.index(entry_id) + 1 if entry_id in ids else 0)

    def _free(self) -> bool:
        """Whether a job that somebody asks for now can begin: none runs, and none that waits would begin first."""
        return self._current is None and not self._runner_busy() and (self.held or not self._waiting())

    def _runner_busy(self) -> bool:
        return self.runner.job is not None and self.runner.job.running

    def _refuse_name(self, entry: Entry) -> None:
        clash = name_clash(entry, self._entries, self.runner.host.lora_folder())
        if clash:
            raise ConfigError([clash])

    def _chosen(self) -> str:
        return self._checkpoints.chosen() if self._checkpoints else ""

    def _running(self, job: Job) -> Entry | None:
        """The entry that a job is the run of."""
        return self.entry(self._current[0]) if self._current and self._current[1] is job else None

    def _seen(self, entry: Entry, job: Job) -> Entry:
        return with_progress(entry, job.snapshot(), str(job.state_folder) if job.state_folder else None, time.time())

    def _waiting(self) -> list[Entry]:
        return [entry for entry in self._entries if entry.state == "waiting"]

    def _replace(self, entry: Entry) -> None:
        self._set(tuple(entry if other.id == entry.id else other for other in self._entries))

    def _set(self, entries: tuple[Entry, ...]) -> None:
        self._entries = entries
        self._changes += 1
