"""The queue of jobs and the history of what became of them. One runs, others wait in their order; all survive the program."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from dataclasses import dataclass
from typing import Protocol

from lib_lora.check import check
from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.errors import ConfigError, ModelError, TrainLoraError
from lib_lora.events import Event, Note, Phase, Planned
from lib_lora.jobs.history import after_restart, foreign_problem, name_clash, settings_to_run, waiting_again
from lib_lora.jobs.job import Job, new_id
from lib_lora.jobs.keeper import Keeper
from lib_lora.jobs.queue_entry import Entry, EntryState, with_progress
from lib_lora.jobs.queue_store import QueueError, Store
from lib_lora.jobs.runner import Runner, named_error
from lib_lora.jobs.shared_list import SharedList
from lib_lora.training.cadence import record_due

log = logging.getLogger(__name__)

MAX_WAITING = 100
KEPT_ENDED = 100  # jobs that are over; older ones are forgotten with their images
SURVEY_EVERY_S = 60.0  # of what jobs keep on the disk, where the list did not change
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


class Queue(SharedList):
    """Begins jobs on a runner, one after the other. Every method may be called by any thread."""

    def __init__(self, runner: Runner, store: Store, checkpoints: Checkpoints | None = None) -> None:
        self.runner, self._checkpoints = runner, checkpoints
        self._current: Job | None = None
        self._lent_checked = False
        super().__init__(store)
        self.keeper = Keeper(
            store, lambda: runner.host.work_folder(), lambda: self._entries, self._changing
        )  # what jobs leave on the disk
        self._surveyed: tuple[int, float] | None = None  # at which change of the list, and when
        self.held = bool(self._waiting())  # what waited when the program ended begins when somebody says so
        runner.watch(self)

    def look(self) -> None:
        """See what other programs did to the list, and whether a run died without a word."""
        self.runner.reap()
        super().look()
        now = time.monotonic()
        if self._surveyed is None or self._surveyed[0] != self._changes or now - self._surveyed[1] > SURVEY_EVERY_S:
            self._changes += self.keeper.renew()
            self._surveyed = self._changes, now

    def owns(self, folder: str) -> bool:
        """Whether a folder of settings holds images of a job, which were dropped and not named."""
        return self._store.owns(folder)

    def submit(self, config: TrainConfig) -> Placed:
        """Begin a job, or let it wait where one runs. One that waits is checked now, so that its problems are told now.

        Raises:
            ConfigError: with every problem of a job that would wait; or its name is that of a job that runs or waits.
            QueueError: it cannot be written down.
        """
        entry = Entry(new_id(), json.loads(json.dumps(config.to_flat())), time.time(), checkpoint=self._chosen())
        with self._changing():
            self._refuse_name(entry)
            if self._free():
                return self._begin_new(entry)
        check(config, self.runner.host)
        with self._changing():
            self._refuse_name(entry)
            if len(self._waiting()) >= MAX_WAITING:
                raise ConfigError([f"The queue is full: {MAX_WAITING} jobs are waiting; remove one, or try again later."])
            self._set((*self._entries, self._store.add(entry)))
            self._store.owners.claim(entry.id)
            self._begin_next()  # the one that ran may have ended meanwhile
            return self._placed(entry.id)

    def resume(self, entry_id: str) -> Placed:
        """Resume a job that did not come to its end from its newest state: now, or behind those that wait.

        Raises:
            QueueError: there is no such job, it is another program's, it has no state, or it cannot be written down.
            ConfigError: its name is that of a job that runs or waits.
        """
        with self._changing():
            self._refuse_foreign(entry_id)
            again = waiting_again(self.entry(entry_id), time.time())
            self._refuse_name(again)
            if not self._store.owners.claim(entry_id):
                raise QueueError(foreign_problem(again))
            others = tuple(other for other in self._entries if other.id != entry_id)
            try:
                self._store.write_order([other.id for other in (*self._all_waiting(), again)])
                self._store.write(again)
            except QueueError:
                self._store.owners.release(entry_id)
                raise
            free = self._free()
            self._set((*others, again))
            if free:
                self._begin(again)
            return self._placed(entry_id)

    def move(self, entry_id: str, by: int) -> None:
        """Move a waiting job by one place: -1 forward, 1 back. At an end nothing happens.

        Raises:
            QueueError: it does not wait here, or the order cannot be written.
        """
        with self._changing():
            self._refuse_foreign(entry_id)
            ids = [entry.id for entry in self._waiting()]
            if entry_id not in ids:
                raise QueueError(f"{self.entry(entry_id).name!r} is not waiting any more.")
            place = ids.index(entry_id)
            if not 0 <= place + by < len(ids):
                return
            waiting = self._all_waiting()
            one, two = ([entry.id for entry in waiting].index(ids[at]) for at in (place, place + by))
            waiting[one], waiting[two] = waiting[two], waiting[one]
            self._store.write_order([entry.id for entry in waiting])
            self._set((*(entry for entry in self._entries if entry.state != "waiting"), *waiting))

    def remove(self, entry_id: str) -> None:
        """Forget a job and the images that were dropped for it. Its LoRA and its states stay.

        Raises:
            QueueError: it runs, is another program's, or the disk refused.
        """
        with self._changing():
            self._refuse_foreign(entry_id)
            entry = self.entry(entry_id)
            if entry.state == "running":
                raise QueueError(f"{entry.name!r} is running; stop it first.")
            owned = self._store.owners.owns(entry_id)
            self._store.owners.release(entry_id)  # Windows renames no folder with an open file
            try:
                self._store.remove(entry_id)
            except QueueError:
                if owned:
                    self._store.owners.claim(entry_id)
                raise
            self._unwritten.pop(entry_id, None)
            self._set(tuple(other for other in self._entries if other.id != entry_id))

    def hold(self) -> None:
        """Begin no further job until `release`."""
        with self._lock:
            self.held = True
            self._changes += 1

    def leave(self, timeout_s: float) -> str | None:
        """The program ends: nothing begins any more, and what runs saves its state; as `Runner.leave`."""
        self.hold()
        return self.runner.leave(timeout_s)

    def release(self) -> None:
        """Begin what waits, one after the other; what waits and is nobody's becomes this program's.

        Raises:
            QueueError: all that waits does so in another program.
        """
        with self._changing():
            waiting = self._waiting()
            others = [entry for entry in self._all_waiting() if self.elsewhere(entry.id)]
            if others and not waiting:
                raise QueueError(foreign_problem(others[0]))
            for entry in waiting:
                self._store.owners.claim(entry.id)
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
            if not record_due(event, time.time() - (entry.seen or 0)):
                return
            try:
                entry = dataclasses.replace(self._seen(entry, job), direct=False)
                self._store.write(entry)
            except Exception as error:  # noqa: BLE001 - a list that is not renewed is no reason to end a run
                told = (
                    error.problems[0] if isinstance(error, QueueError) else f"The list of jobs could not be written ({error!r})."
                )
                if not self.trouble:
                    job.apply(Note(f"{told} The run continues."))
                self.trouble = told
            finally:
                self._replace(entry)

    def ended(self, job: Job) -> None:
        """See `Watcher`. However the run ended, it is nobody's obstacle any more: it is written down, and the next one begins."""
        with self._changing():
            entry = self._running(job)
            try:
                if entry is not None:
                    self._current = None
                    over = self._over(entry, job)
                    told = self.held or not self._owned()  # else the next one begins, and its page would show that
                    self._keep(over, refused=entry.direct and over.state == "failed" and told)
            finally:
                self._begin_next()
        self.look_soon(at_once=True)

    def _over(self, entry: Entry, job: Job) -> Entry:
        """What is kept of a run that ended; where that cannot be told in full, that it failed."""
        try:
            seen = self._seen(entry, job)
            over = dataclasses.replace(seen, state=_ENDS[job.progress.state], ended=time.time())
            return after_restart(seen) if job.control.leaves and over.state == "stopped" else over
        except BaseException as error:  # noqa: BLE001 - whatever a run left in its record
            log.warning("sd-webui-train-lora: the result of a job is not known (%s)", type(error).__name__)
            problem = f"The job ended, but its result is not known ({type(error).__name__})."
            return dataclasses.replace(entry, state="failed", ended=time.time(), problems=(*entry.problems, problem))

    def _keep(self, entry: Entry, *, refused: bool) -> None:
        """Write down how a job ended. One whose settings were refused at once was no job: its sentences were told."""
        try:
            if refused:
                self._replace(entry)
                self.remove(entry.id)
            else:
                self._store.write(entry)
                self._replace(entry)
                self._unwritten.pop(entry.id, None)
                self.trouble = ""
            over = [other.id for other in self.entries if other.over]
            for old in over[KEPT_ENDED:]:
                self.remove(old)
        except BaseException as error:  # noqa: BLE001 - a job that ended may not stand in the way of the next
            self.trouble = _told(error)
            self._unwritten[entry.id] = entry
            self._replace(entry)
            log.warning("sd-webui-train-lora: %s", self.trouble)
        finally:
            self._store.owners.release(entry.id)

    def _check_lent(self, entry: Entry, event: Event) -> None:
        """Once, at the first event after the model was lent."""
        if self._lent_checked or isinstance(event, (Planned, Phase)):
            return
        self._lent_checked = True
        lent = self._checkpoints.lent() if self._checkpoints else ""
        if entry.checkpoint and lent and entry.checkpoint != lent:
            raise ModelError(
                f"The job is for the checkpoint {entry.checkpoint!r}, but {lent!r} is loaded; select the first one, and repeat "
                "the job."
            )

    def _begin_new(self, entry: Entry) -> Placed:
        """A job that never waits."""
        written = self._store.add(dataclasses.replace(entry, state="running", direct=True, started=time.time(), seen=time.time()))
        self._store.owners.claim(entry.id)
        self._set((*self._entries, written))
        try:
            self._run(written)
        except BaseException as error:
            self._replace(dataclasses.replace(written, state="failed"))
            self.remove(written.id)
            if isinstance(error, TrainLoraError) or not isinstance(error, Exception):
                raise
            raise ConfigError([f"The run cannot start ({named_error(error)})."]) from error
        return self._placed(entry.id)

    def _begin_next(self) -> None:
        """The next one that waits here and can begin; what cannot is over, and the one behind it is next."""
        for entry in self._owned():
            if self.held or self._current is not None or self._runner_busy():
                return
            self._begin(entry)

    def _begin(self, entry: Entry) -> None:
        running = dataclasses.replace(entry, state="running", started=time.time(), seen=time.time())
        try:
            self._store.write(running)
        except BaseException as error:  # noqa: BLE001 - the list would not know what runs
            self.held, self.trouble = True, _told(error)
            self._changes += 1
            return
        self._replace(running)
        try:
            self._run(running)
        except BaseException as error:  # noqa: BLE001 - whatever it is: the next one begins
            self._current = None
            told = (
                error.problems
                if isinstance(error, TrainLoraError)
                else [f"The run cannot start ({type(error).__name__}: {error})."]
            )
            self._keep(dataclasses.replace(running, state="failed", problems=tuple(told), ended=time.time()), refused=False)

    def _run(self, entry: Entry) -> None:
        self._lent_checked = False
        settings = settings_to_run(entry, self.runner.host.lora_folder())
        self._current = self.runner.start(build_config(settings), entry.id)

    def _placed(self, entry_id: str) -> Placed:
        """Where a job stands that was just added."""
        entry = self.entry(entry_id)
        if self._current and self._current.id == entry_id:
            return Placed(entry.name, self._current)
        ids = [other.id for other in self._waiting()]
        return Placed(entry.name, place=ids.index(entry_id) + 1 if entry_id in ids else 0)

    def _free(self) -> bool:
        """Whether a job that somebody asks for now can begin: none runs, and none that waits would begin first."""
        return self._current is None and not self._runner_busy() and (self.held or not self._owned())

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
        return self.entry(job.id) if self._current is job else None

    def _seen(self, entry: Entry, job: Job) -> Entry:
        return with_progress(entry, job.progress, time.time())

    def _knows_better(self) -> str | None:
        return self._current.id if self._current else None


def _told(error: BaseException) -> str:
    """What is said of a list that could not be written."""
    return (
        error.problems[0] if isinstance(error, QueueError) else f"The list of jobs could not be written ({named_error(error)})."
    )
