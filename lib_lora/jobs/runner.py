"""The runner: starts jobs, one at a time, each in a daemon thread."""

from __future__ import annotations

import contextlib
import logging
import threading
import traceback
from collections.abc import Generator
from contextlib import closing
from typing import Protocol, cast

from lib_lora import __version__
from lib_lora.config.groups import TrainConfig
from lib_lora.errors import ConfigError, TrainLoraError
from lib_lora.events import Event
from lib_lora.host import Host
from lib_lora.jobs.job import Job
from lib_lora.output.publish import use_best
from lib_lora.train import train
from lib_lora.training.memory import give_memory_back

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Callbacks for every job, called in the job's thread."""

    def happened(self, job: Job, event: Event) -> None:
        """Called after `Job.apply` with the same event. An error that is raised here ends the run with its text."""

    def ended(self, job: Job) -> None:
        """Called when the job is over and the model was given back."""


class Runner:
    """Runs jobs; holds the current one (running, or the last)."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._suspended = False  # applies to later jobs, too
        self._watcher: Watcher | None = None
        self._thread: threading.Thread | None = None

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` for every job from now on."""
        self._watcher = watcher

    @property
    def job(self) -> Job | None:
        return self._job

    def start(self, config: TrainConfig, job_id: str | None = None) -> Job:
        """Start a run and return at once. Its id is `job_id`; default: a new one.

        Raises:
            ConfigError: another run is active, or the thread cannot be started.
        """
        self.reap()
        with self._lock:
            before = self._job, self._thread
            if before[0] is not None and before[0].running:
                raise ConfigError([f"A run of {before[0].config.run.name!r} is active; wait for it, or stop it."])
            try:
                self._job = job = Job(config, self.host.device(), job_id)
                if self._suspended:
                    job.control.suspend()
                self._thread = threading.Thread(target=self._run, args=(job,), name=f"train-lora-{job.id}", daemon=True)
                self._thread.start()
            except Exception as error:  # noqa: BLE001 - no thread, no device: whatever it is, nothing runs
                self._job, self._thread = before
                raise ConfigError([f"The run cannot start ({named_error(error)}); try again, or restart the program."]) from error
        return job

    def reap(self) -> None:
        """End a job whose thread died, so that another one can begin."""
        with self._lock:
            job, thread = self._job, self._thread
            dead = job is not None and job.running and thread is not None and not thread.is_alive()
        if dead and job is not None:
            self._end(job, ["The run ended unexpectedly; files that it saved before are kept."])

    def stop(self, *, keep: bool) -> None:
        """Request that the running job, if any, ends after its step; `keep`: with its LoRA."""
        job = self._job
        if job is not None and job.running:
            job.control.request_stop(keep=keep)

    def pause(self) -> None:
        """Pause the running job after its step until `unpause`; one that lends its model gives it back meanwhile."""
        if self._job is not None and self._job.running:
            self._job.pause()

    def unpause(self) -> None:
        """Unpause the job."""
        if self._job is not None:
            self._job.unpause()

    def save_now(self) -> None:
        """Request that the running job saves a LoRA after its step; a paused one does it at once."""
        if self._job is not None and self._job.running:
            self._job.control.request_save()

    def sample_now(self) -> None:
        """Request that the running job draws samples after its step; a paused one does it at once."""
        if self._job is not None and self._job.running:
            self._job.control.request_sample()

    def leave(self, timeout_s: float) -> str | None:
        """Have the running job save its state, since the program ends. Returns when it has, or after `timeout_s`.

        Returns:
            A message on what is lost and why, if the state was not saved; else None.
        """
        job, thread = self._job, self._thread
        if job is None or thread is None or not job.running or not job.progress.step:
            return None
        self._suspended = False
        job.control.request_leave()
        thread.join(timeout_s)
        last = job.progress
        runs = last.ended is None
        if last.state_step == last.step or not (runs or last.problems):
            return None
        where = f"in step {last.step + 1}" if last.phase == "training" else f"at: {last.phase}"
        why = f"after {timeout_s:g} s the run was still {where}" if runs else " ".join(last.problems)
        older = f"the last saved one is from step {last.state_step}" if last.state_step else "and there is no older one"
        return f"The state of {job.config.run.name!r} after step {last.step} is not saved, {older} ({why.rstrip('.')})."

    def use_best(self) -> str:
        """Give the best LoRA of the last job its name; returns a message with the new name of the last one.

        Raises:
            ConfigError: there is no best LoRA besides the last one.
            LoraFileError: a file does not exist any more, or the disk refused.
        """
        with self._lock:
            job = self._job
            best = job.progress.best if job is not None else None
            if job is None or job.running or best is None:
                raise ConfigError(["There is no other LoRA with a lower validation loss."])
            saved = job.progress.saved
            last = use_best(str(saved), best.path, self.host)
            text = f"{saved} is now the LoRA of step {best.step}; the LoRA of the last step is {last.stem}."
            job.best_used(last)
            return text

    def suspend(self, timeout_s: float) -> None:
        """Suspend the running job and later ones; returns when it stands still, or after `timeout_s`. Undone by `unsuspend`."""
        with self._lock:
            self._suspended, job = True, self._job
        if job is not None and job.running:
            job.control.suspend()
            job.control.wait_until_still(timeout_s)

    def unsuspend(self) -> None:
        """Undo `suspend`."""
        with self._lock:
            self._suspended, job = False, self._job
        if job is not None:
            job.control.unsuspend()

    def _run(self, job: Job) -> None:
        told: list[str] | None = None
        try:
            self._follow(job)
        except BaseException as error:  # noqa: BLE001 - the thread's last line: the job must end with a sentence
            told = _sentences(error)
        self._end(job, told)

    def _end(self, job: Job, problems: list[str] | None) -> None:
        """Finish the job; every part runs even if others fail."""

        def failed() -> None:
            if problems is not None or job.running:
                job.fail(problems or ["The run ended without a result; files that it saved before are kept."])

        def told() -> None:
            if self._watcher is not None:
                self._watcher.ended(job)

        for part in (failed, job.control.finish, lambda: give_memory_back(self.host.device()), told):
            try:
                part()
            except BaseException as error:  # noqa: BLE001 - a device that is gone, a disk, another one's mistake
                _sentences(error)

    def _follow(self, job: Job) -> None:
        """Run the job event by event. Between two events it may stand still; a run that lends its model pauses by itself."""
        pauses_here = not job.config.run.generate_while_training
        run = cast("Generator[Event, None, None]", train(job.config, self.host, job.control))
        with closing(run) as events:  # the model is given back if the watcher ends the run
            for event in events:
                job.apply(event)
                if self._watcher is not None:
                    self._watcher.happened(job, event)
                if job.running:
                    job.control.stand(paused=pauses_here and not job.control.pauses_itself)


def _sentences(error: BaseException) -> list[str]:
    """The messages for an error that ended a run. Never raises."""
    if isinstance(error, TrainLoraError):
        return list(error.problems)
    with contextlib.suppress(BaseException):  # out of memory, or no console
        log.error("sd-webui-train-lora %s: training failed\n%s", __version__, "".join(traceback.format_exception(error)))
    with contextlib.suppress(BaseException):
        traceback.clear_frames(error.__traceback__)
    return [f"An unexpected error: {named_error(error)}. The console shows the details (sd-webui-train-lora {__version__})."]


def named_error(error: BaseException) -> str:
    """Type and text of an error, even if its `__str__` raises."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
