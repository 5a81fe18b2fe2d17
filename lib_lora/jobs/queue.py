"""The queue of jobs and their history. One job runs, others wait in order; all are kept on disk."""

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
KEPT_ENDED = 100  # jobs that are over; older ones are removed with their images
SURVEY_EVERY_S = 60.0  # how often what jobs keep on disk is measured if the list did not change
_ENDS: dict[str, EntryState] = {"done": "finished", "stopped": "stopped", "failed": "failed"}


class Checkpoints(Protocol):
    """The checkpoint that a host would train on, and the one that it lends now; empty if the host has no choice."""

    def chosen(self) -> str: ...

    def lent(self) -> str: ...


@dataclass(frozen=True)
class Placed:
    """The result of a request: a running job, or its place among the waiting ones (1 is next)."""

    name: str
    job: Job | None = None
    place: int = 0


class Queue(SharedList):
    """Starts jobs on a runner, one after the other. Thread-safe."""

    def __init__(self, runner: Runner, store: Store, checkpoints: Checkpoints | None = None) -> None:
        self.runner, self._checkpoints = runner, checkpoints
        self._current: Job | None = None
        self._lent_checked = False
        super().__init__(store)
        self.keeper = Keeper(store, lambda: runner.host.work_folder(), lambda: self._entries, self._changing)
        self._surveyed: tuple[int, float] | None = None  # change of the list, and time, of the last survey
        self.held = bool(self._waiting())  # jobs that waited when the program ended need a release
        runner.watch(self)

    def look(self) -> None:
        """Read changes by other programs, and end a run whose thread died."""
        self.runner.reap()
        super().look()
        now = time.monotonic()
        if self._surveyed is None or self._surveyed[0] != self._changes or now - self._surveyed[1] > SURVEY_EVERY_S:
            self._changes += self.keeper.renew()
            self._surveyed = self._changes, now

    def owns(self, folder: str) -> bool:
        """Whether a folder of settings holds dropped images that belong to a job."""
        return self._store.owns(folder)

    def submit(self, config: TrainConfig) -> Placed:
        """Start a job, or queue it if one runs. A job that waits is checked now, so that its problems are reported now.

        Raises:
            ConfigError: with every problem of a job that would wait; or a job that runs or waits has its name.
            QueueError: it cannot be saved.
        """
        chosen = self._checkpoints.chosen() if self._checkpoints else ""
        entry = Entry(new_id(), json.loads(json.dumps(config.to_flat())), time.time(), checkpoint=chosen)
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
        """Resume a job that ended early from its newest state: now, or after those that wait.

        Raises:
            QueueError: there is no such job, another program owns it, it has no state, or it cannot be saved.
            ConfigError: a job that runs or waits has its name.
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
        """Move a waiting job by one place: -1 forward, 1 back. No-op at either end.

        Raises:
            QueueError: it does not wait here, or the order cannot be saved.
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
        """Remove a job and its dropped images. Its LoRA and its states stay.

        Raises:
            QueueError: it runs, another program owns it, or the disk refused.
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
        """Start no further job until `release`."""
        with self._lock:
            self.held = True
            self._changes += 1

    def leave(self, timeout_s: float) -> str | None:
        """Hold the queue and have the running job save its state, since the program ends. See `Runner.leave`."""
        self.hold()
        return self.runner.leave(timeout_s)

    def release(self) -> None:
        """Start the waiting jobs, one after the other; own those that nobody owns.

        Raises:
            QueueError: all waiting jobs belong to another program.
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
            ModelError: the lent model is not of the checkpoint that the job was queued for.
        """
        with self._lock:
            entry = self._running(job)
            if entry is None:
                return
            self._check_lent(entry, event)
            if not record_due(event, time.time() - (entry.seen or 0)):
                return
            try:
                entry = dataclasses.replace(with_progress(entry, job.progress, time.time()), direct=False)
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
        """See `Watcher`. Saves how the run ended, and starts the next job whatever fails."""
        with self._changing():
            entry = self._running(job)
            try:
                if entry is not None:
                    self._current = None
                    over = self._over(entry, job)
                    told = self.held or not self._owned()  # else the next job begins, and the page shows that one
                    self._keep(over, refused=entry.direct and over.state == "failed" and told)
            finally:
                self._begin_next()
        self.look_soon(at_once=True)

    def _over(self, entry: Entry, job: Job) -> Entry:
        """The entry of a run that ended; a failed one if its progress cannot be read."""
        try:
            seen = with_progress(entry, job.progress, time.time())
            over = dataclasses.replace(seen, state=_ENDS[job.progress.state], ended=time.time())
            return after_restart(seen) if job.control.leaves and over.state == "stopped" else over
        except BaseException as error:  # noqa: BLE001 - whatever a run left in its record
            log.warning("sd-webui-train-lora: the result of a job is not known (%s)", type(error).__name__)
            problem = f"The job ended, but its result is not known ({type(error).__name__})."
            return dataclasses.replace(entry, state="failed", ended=time.time(), problems=(*entry.problems, problem))

    def _keep(self, entry: Entry, *, refused: bool) -> None:
        """Save how a job ended; with `refused` (its settings were refused at once and the problems shown), remove it."""
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
        """Check the checkpoint of the lent model, once per run."""
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
        """Start a job that never waited."""
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
        """Start the next owned job that can begin; those that cannot have failed."""
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
            named = f"The run cannot start ({type(error).__name__}: {error})."
            told = error.problems if isinstance(error, TrainLoraError) else [named]
            self._keep(dataclasses.replace(running, state="failed", problems=tuple(told), ended=time.time()), refused=False)

    def _run(self, entry: Entry) -> None:
        self._lent_checked = False
        settings = settings_to_run(entry, self.runner.host.lora_folder())
        self._current = self.runner.start(build_config(settings), entry.id)

    def _placed(self, entry_id: str) -> Placed:
        """The `Placed` of a job that was just added."""
        entry = self.entry(entry_id)
        if self._current and self._current.id == entry_id:
            return Placed(entry.name, self._current)
        ids = [other.id for other in self._waiting()]
        return Placed(entry.name, place=ids.index(entry_id) + 1 if entry_id in ids else 0)

    def _free(self) -> bool:
        """Whether a new job can begin now: none runs, and none that waits would begin first."""
        return self._current is None and not self._runner_busy() and (self.held or not self._owned())

    def _runner_busy(self) -> bool:
        return self.runner.job is not None and self.runner.job.running

    def _refuse_name(self, entry: Entry) -> None:
        clash = name_clash(entry, self._entries, self.runner.host.lora_folder())
        if clash:
            raise ConfigError([clash])

    def _running(self, job: Job) -> Entry | None:
        """The entry of a job if that is the current run."""
        return self.entry(job.id) if self._current is job else None

    def _knows_better(self) -> str | None:
        return self._current.id if self._current else None


def _told(error: BaseException) -> str:
    """The message for a list that could not be written."""
    return (
        error.problems[0] if isinstance(error, QueueError) else f"The list of jobs could not be written ({named_error(error)})."
    )
