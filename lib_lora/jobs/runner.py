"""Starts jobs, one at a time, each in a daemon thread."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Generator
from contextlib import closing
from typing import Protocol, cast

from lib_lora import __version__
from lib_lora.config.groups import TrainConfig
from lib_lora.errors import ConfigError, TrainLoraError
from lib_lora.events import Event, Lent, SaveFailed
from lib_lora.jobs.job import Job
from lib_lora.jobs.memory import give_memory_back
from lib_lora.model.base import Host
from lib_lora.output.promote import use_best
from lib_lora.train import train

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Is told of every job, by the job's thread."""

    def happened(self, job: Job, event: Event) -> None:
        """The job has taken note of the event. An error that is raised here ends the run with its sentence."""
        ...

    def ended(self, job: Job) -> None:
        """The job is over, and the model was given back."""
        ...


class Runner:
    """Holds the current job (the running one, or the last)."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._go, self._stands = threading.Event(), threading.Event()
        self._go.set()
        self._watcher: Watcher | None = None
        self._thread: threading.Thread | None = None

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of every job from now on."""
        self._watcher = watcher

    @property
    def job(self) -> Job | None:
        return self._job

    def start(self, config: TrainConfig) -> Job:
        """Begin a run and return at once.

        Raises:
            ConfigError: a run is going on.
        """
        with self._lock:
            if self._job is not None and self._job.running:
                raise ConfigError([f"A training of {self._job.config.run.name!r} is running; wait for it, or stop it."])
            self._job = job = Job(config, self.host.device())
            self._thread = threading.Thread(target=self._run, args=(job,), name=f"train-lora-{job.id}", daemon=True)
            self._thread.start()
        return job

    def stop(self, *, keep: bool) -> None:
        """Ask the running job, if there is one, to end at its next step."""
        job = self._job
        if job is not None and job.running:
            job.stop.request(keep=keep)

    def hold(self) -> None:
        """Let the running job stand after its step until `go_on`; one that lends its model gives it back meanwhile."""
        if self._job is not None and self._job.running:
            self._job.hold()

    def go_on(self) -> None:
        """Let a held job go on."""
        if self._job is not None:
            self._job.go_on()

    def save_now(self) -> None:
        """Ask the running job for a file of the moment after its next step."""
        if self._job is not None and self._job.running:
            self._job.stop.request_save()

    def leave(self, timeout_s: float) -> str | None:
        """The program ends: a job that has learned something saves its state. Returns when it has, or after `timeout_s`.

        Returns:
            What is lost and why, where the state was not saved; else None.
        """
        job, thread = self._job, self._thread
        if job is None or thread is None or not job.running or not job.snapshot()["step"]:
            return None
        job.stop.request_leave()
        self._go.set()
        thread.join(timeout_s)
        runs, last = job.running, job.snapshot()
        if job.state_step == last["step"] or not (runs or last["problems"]):
            return None
        where = f"in step {last['step'] + 1}" if last["phase"] == "training" else f"at this: {last['phase']}"
        why = f"after {timeout_s:g} s the run was still {where}" if runs else " ".join(last["problems"])
        older = f"the last one is of step {job.state_step}" if job.state_step else "it has no older one"
        return f"The state of {job.config.run.name!r} after step {last['step']} is not saved, {older} ({why.rstrip('.')})."

    def use_best(self) -> str:
        """Give the best LoRA of the last job its name; the sentence that says what became of the last one.

        Raises:
            ConfigError: there is no best one that is not the last.
            LoraFileError: a file is gone, or the disk refused.
        """
        with self._lock:
            job = self._job
            if job is None or job.running or job.best is None:
                raise ConfigError(["There is no other LoRA with a lower held-out loss."])
            saved = job.snapshot()["saved"]
            last = use_best(str(saved), job.best.path, self.host)
            text = f"{saved} is the LoRA of step {job.best.step} now; that of the last step is {last.stem}."
            job.best_used(last)
            return text

    def pause(self, timeout_s: float) -> None:
        """Hold a running job at its next event; returns when it stands, or after `timeout_s`. `resume` lets it go on.

        For the program's own needs; a person's `hold` and this one do not undo each other.
        """
        self._go.clear()
        if self._job is not None and self._job.running:
            self._job.stop.shut_gate()
            self._stands.wait(timeout_s)

    def resume(self) -> None:
        """Let a paused job go on."""
        self._go.set()
        if self._job is not None:
            self._job.stop.open_gate()

    def _run(self, job: Job) -> None:
        try:
            self._follow(job)
        except TrainLoraError as error:
            job.fail(error.problems)
        except Exception as error:  # noqa: BLE001 - the thread's last line: the job must end with a sentence
            log.error("sd-webui-train-lora %s: training failed\n%s", __version__, traceback.format_exc())
            traceback.clear_frames(error.__traceback__)
            job.fail(
                [
                    f"An unexpected error: {type(error).__name__}: {error}. The console shows the details "
                    f"(sd-webui-train-lora {__version__})."
                ]
            )
        finally:
            self._stands.set()
            give_memory_back(self.host.device())
            if self._watcher is not None:
                self._watcher.ended(job)

    def _follow(self, job: Job) -> None:
        """Take event after event; between two of them the job can be held. One that lends its model holds itself for a person."""
        lends = job.config.run.generate_while_training
        self._stands.clear()
        run = cast("Generator[Event, None, None]", train(job.config, self.host, job.stop))
        with closing(run) as events:  # so that the model is given back when the watcher ends the run
            for event in events:
                if isinstance(event, Lent):
                    self._stands.set()
                job.apply(event)
                if self._watcher is not None:
                    self._watcher.happened(job, event)
                waits = not lends or isinstance(event, SaveFailed)
                if isinstance(event, SaveFailed) and not job.stop.requested:  # held until somebody made room, or stops it
                    job.hold()
                    event.try_again()
                while job.running and not (self._go.is_set() and (not waits or not job.stop.held)):
                    self._stands.set()
                    self._go.wait()
                    if waits:
                        job.stop.wait_while_held()
                if not isinstance(event, Lent):  # without the model it stands
                    self._stands.clear()
