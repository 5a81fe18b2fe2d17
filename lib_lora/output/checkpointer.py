"""Work between steps (validation, LoRA files, states, samples) and at the end of a run (state, best LoRA)."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch

from lib_lora import __version__
from lib_lora.config.settled import Settled
from lib_lora.errors import HostChanged, LoraFileError, TrainLoraError
from lib_lora.events import BestSaved, Event, HeldOut, Note, Phase, SavedBetween, StateSaved, StepDone
from lib_lora.files.plain_values import StateError, Tensors, to_plain
from lib_lora.files.state_file import remove_state, write_state
from lib_lora.host import Host
from lib_lora.model.base import BaseModel
from lib_lora.output.lora_writer import LoraWriter
from lib_lora.output.removal import remove_lora
from lib_lora.output.rescue import in_another_place
from lib_lora.output.samples import Sampler
from lib_lora.plan import Plan
from lib_lora.training.best import BestSoFar
from lib_lora.training.cadence import Save, asked_save, due_saves, heldout_due
from lib_lora.training.resume import Resumed, data_fingerprint
from lib_lora.training.trainer import Trainer

log = logging.getLogger(__name__)


class Checkpointer:
    """Called after every step. Samples, cards, states and removals that fail are reported as notes.

    A LoRA that cannot be saved ends the run; it is kept elsewhere, with the state.
    """

    def __init__(
        self,
        config: Settled,
        plan: Plan,
        base: BaseModel,
        host: Host,
        trainer: Trainer,
        writer: LoraWriter,
    ) -> None:
        self._config, self._plan, self._host, self._trainer, self._writer = config, plan, host, trainer, writer
        self._sampler = Sampler(trainer.config, plan, base, host, trainer, writer.written_files)
        self._best = BestSoFar()
        self._saved: str | None = None  # the ending of the newest LoRA in between
        self._folder = host.work_folder() / config.run.name
        self._fingerprint = data_fingerprint(plan)

    def resume(self, resumed: Resumed) -> None:
        """Load trainer and best LoRA from a state.

        Raises:
            StateError: it does not fit the model.
        """
        resumed.check_model(self._writer.model, self._trainer.precision.name, self._config)
        self._trainer.load_state(resumed.state["session"])
        self._best.load_state(resumed.state["best"])

    def before(self) -> Iterator[Event]:
        """Draw the samples that are due before the first step."""
        yield from self._sampler.after(0)

    def after(self, done: StepDone, *, asked: bool, asked_samples: bool = False) -> Iterator[Event]:
        """Do whatever is due after a step; `asked`: a LoRA was requested now, `asked_samples`: samples were.

        Raises:
            LoraFileError: a LoRA could not be written; no partial file is left, and the text says where the LoRA is kept.
        """
        measured = self._measured(done)
        if measured is not None:
            self._best.measured(measured.step, measured.loss, self._writer.adapters)
            yield measured
        for save in due_saves(self._config.run, self._plan, done.step, asked=asked):
            yield from self._save(save, done)
        yield from self._sampler.after(done.step, asked=asked_samples)

    def meanwhile(self, done: StepDone, *, asked: bool, asked_samples: bool) -> Iterator[Event]:
        """Do what is requested while the run stands after a step, of which all that was due is done.

        Raises:
            LoraFileError: as `after`.
        """
        save = asked_save(self._config.run, self._plan, done.step)
        if asked and save.ending != self._saved:  # else it is there
            yield from self._save(save, done)
        if asked_samples:
            yield from self._sampler.after(done.step, asked=True)

    def result(self, done: StepDone) -> Generator[Event, None, Path]:
        """Write the LoRA NAME after the last step and return its path.

        Raises:
            LoraFileError: it could not be written; the text says where it is kept.
        """
        return (yield from self._written(self._writer.published("", done.step, done.epoch), done))

    def at_end(self, done: StepDone) -> Iterator[Event]:
        """Save the state after the last step. The LoRA is saved already, so a failure is only a note."""
        run = self._config.run
        if not (run.save_state or run.save_state_on_train_end):
            return
        try:
            yield self._save_state("", done)
        except StateError as error:
            yield Note(f"The LoRA is saved, but not its state ({error}).")

    def rescue(self, done: StepDone, error: HostChanged) -> Iterator[Event]:
        """Save the state, since the model is gone and the LoRA cannot be saved.

        Raises:
            HostChanged: always; the text says where the state is.
            StateError: it cannot be written.
        """
        saved = self.leave(done)
        yield saved
        raise HostChanged(
            f"{error} The state after step {done.step} is saved; to continue, set Resume from (resume) to {saved.folder.name!r}."
        ) from error

    def leave(self, done: StepDone) -> StateSaved:
        """Save only the state, which needs neither the model nor much time.

        Raises:
            StateError: it cannot be written.
        """
        return self._save_state("", done)

    def best(self, done: StepDone) -> Iterator[Event]:
        """Write NAME-best if a later validation, up to the last step, `done`, was worse than the best one."""
        best = self._best
        if not best.worth_saving:
            return
        yield Phase("saving the best")
        told = {} if self._config.run.no_metadata else {"ss_best_step": str(best.step), "ss_best_held_out_loss": str(best.loss)}
        epoch = -(-best.step // self._plan.steps_per_epoch)
        path = yield from self._written(self._writer.published("-best", best.step, epoch, best.adapters, told), done)
        yield from self._writer.card(path, preview=False)
        yield BestSaved(path, best.step, best.loss)

    def _measured(self, done: StepDone) -> HeldOut | None:
        due = heldout_due(self._config.data, self._plan, done.step)
        return HeldOut(done.step, self._trainer.heldout_loss()) if due else None

    def _save(self, save: Save, done: StepDone) -> Iterator[Event]:
        yield Phase("saving")
        path = yield from self._written(self._writer.published(save.ending, done.step, save.epochs_done), done)
        self._saved = save.ending
        yield from self._writer.card(path, preview=False)
        removed = None
        if save.old is not None:
            old = self._host.lora_folder() / f"{self._config.run.name}{save.old}.safetensors"
            yield from map(Note, remove_lora(old))
            removed = None if os.path.lexists(old) else old.stem
        yield SavedBetween(path, done.step, removed)
        if self._config.run.save_state:
            yield from self._save_state_between(save, done)

    def _save_state_between(self, save: Save, done: StepDone) -> Iterator[Event]:
        """Save a state and remove the older one; if it cannot be written, the older one stays."""
        try:
            yield self._save_state(save.ending, done)
        except StateError as error:
            yield Note(f"The state after step {done.step} is not saved; older ones are kept ({error}).")
            return
        stays = remove_state(self._folder / f"{self._config.run.name}{save.old_state}-state") if save.old_state else None
        if stays is not None:
            yield Note(stays)

    def _written(self, publishing: Generator[Event, None, Path], done: StepDone) -> Generator[Event, None, Path]:
        """The path that `publishing` returns; yields its events.

        Raises:
            LoraFileError: it failed for good. LoRA and state are kept elsewhere if possible, and the text says where.
        """
        try:
            return (yield from publishing)
        except Exception as error:  # noqa: BLE001 - whatever it is: what was learned must not go with it
            if not isinstance(error, TrainLoraError):
                log.exception("a LoRA could not be saved")
            failed = self._writer.rescued(error)
            try:
                saved = in_another_place(lambda folder: self._save_state("", done, folder), self._folder)
            except Exception as other:  # noqa: BLE001 - the first error counts
                raise LoraFileError(f"{failed} The state is not saved ({str(other).rstrip('.')}).") from error
            yield saved
            again = f"The state after step {done.step} is saved; to continue, set Resume from (resume) to {str(saved.folder)!r}."
            raise LoraFileError(f"{failed} {again}") from error

    def _save_state(self, ending: str, done: StepDone, place: Path | None = None) -> StateSaved:
        """Save the state in `place`; default: the run's own folder."""
        tensors: Tensors = {}
        tree = {"session": self._trainer.state(), "best": self._best.state()}
        values: dict[str, Any] = {
            "position": {"step": done.step, "epoch": done.step // self._plan.steps_per_epoch},
            "steps": self._plan.steps,
            "configuration": self._config.saved.to_flat(),
            "data": self._fingerprint,
            "model": self._writer.model.legacy_hash,
            "precision": self._trainer.precision.name,
            "versions": {"train_lora": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "state": to_plain(tree, tensors),
        }
        folder = write_state((place or self._folder) / f"{self._config.run.name}{ending}-state", values, tensors)
        self._writer.written_files.add(folder)
        return StateSaved(folder, done.step)
