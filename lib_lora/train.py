"""A run, top to bottom. START READING HERE.

Check everything, borrow the model, encode images to latents, train the adapters, save the LoRA with its card, give the model
back. `output/checkpointer.py` does what is due between steps. `train()` yields events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import torch

from lib_lora.check import Findings, look
from lib_lora.config.groups import TrainConfig
from lib_lora.data.chunking import cut_captions
from lib_lora.errors import HostChanged
from lib_lora.events import Chosen, Encoded, Event, Finished, Left, Note, Phase, Planned, Saved, StepDone
from lib_lora.files.locks import sole_writer
from lib_lora.host import Host
from lib_lora.output.checkpointer import Checkpointer
from lib_lora.output.lora_writer import LoraWriter
from lib_lora.output.metadata import cut_metadata
from lib_lora.output.removal import clean_up
from lib_lora.output.standing import stood
from lib_lora.output.written_files import WrittenFiles
from lib_lora.plan import Batch, Plan
from lib_lora.run_control import RunControl
from lib_lora.settle import settled_notes
from lib_lora.training.continued_files import continued_notes
from lib_lora.training.embedding import embedding_notes
from lib_lora.training.latent_cache import FOLDER as CACHE_FOLDER
from lib_lora.training.latents import LatentSource
from lib_lora.training.loan import Loan
from lib_lora.training.memory import give_caches_back, give_memory_back
from lib_lora.training.precision import choose_precision
from lib_lora.training.step import DIVERGED, DivergedError
from lib_lora.training.trainer import Trainer


def train(config: TrainConfig, host: Host, control: RunControl) -> Iterator[Event]:
    """Train a LoRA on the model that `host` lends.

    Args:
        config: all settings.
        host: lends the model, and knows the LoRA folder.
        control: requests to the run from any thread, checked between two steps.

    Raises:
        ConfigError: with every problem, before the model is touched.
        TrainLoraError: something failed later; the model is restored, and no partial file is left.
    """
    found = look(config, host)
    plan, written_files = found.checked(), WrittenFiles()
    try:
        finished = yield from _trained(found, plan, host, control, written_files)
    except BaseException as error:  # whatever ends it: first yield what is on disk, unless the generator is closed
        if not isinstance(error, GeneratorExit):
            yield Left(_left(config, plan, host, written_files))
        raise
    yield Left(_left(config, plan, host, written_files))
    yield finished


def _left(config: TrainConfig, plan: Plan, host: Host, written_files: WrittenFiles) -> tuple[Path, ...]:
    """All that the run left on disk, including latents beside the images and copies of dropped images."""
    folders = [folder.path for folder in plan.folders]
    if config.data.cache_latents_to_disk:
        written_files.add(*(folder / CACHE_FOLDER for folder in folders))
    written_files.add(*(folder for folder in folders if host.keeps(folder)))
    return written_files.paths()


def _trained(
    found: Findings, plan: Plan, host: Host, control: RunControl, written_files: WrittenFiles
) -> Generator[Event, None, Finished]:
    """The run from its plan to its end. Raises the errors of `train`."""
    started_at, work, resumed = time.time(), host.work_folder() / found.config.run.name, found.resumed
    yield Planned(plan)
    yield from map(Note, [*plan.notes, *cut_metadata(found.settled, plan), *(resumed.told if resumed else ())])
    yield Phase("waiting for the model")
    path: Path | None = None
    last: StepDone | None = None
    run = found.config.run
    with (
        sole_writer(host.lora_folder(), run.name) as told_of_others,
        Loan(host, control, lends=run.generate_while_training) as loan,
    ):
        yield from map(Note, told_of_others)
        base = loan.base
        yield from map(Note, clean_up(host.lora_folder(), work))
        config = found.settled_on(base)
        captions = [sample.caption for sample in plan.samples]
        yield from map(Chosen, [*settled_notes(config, base.detected), *embedding_notes(config, captions, base)])
        yield from map(Note, [*continued_notes(config, base, found.files), *cut_captions(base.tokenizer, captions, config.text)])
        precision = choose_precision(config.precision, base.device, next(base.unet.parameters()).dtype)
        pictures, encoded = LatentSource(config, plan, base), 0
        for encoded in pictures.encode():
            yield Encoded(encoded, pictures.total)
            yield from loan.offer(needs_vae=True, learned=False)
            if control.stop_requested:
                break
        give_caches_back(base.device)  # free the memory that encoding used
        if encoded == pictures.total and not control.stop_requested:
            trainer = Trainer(config, plan, base, pictures, precision, found.files)
            found.files.forget()
            writer = LoraWriter(config, plan, base, host, trainer, started_at, written_files, control)
            checkpointer = Checkpointer(config, plan, base, host, trainer, writer)
            if resumed:
                checkpointer.resume(resumed)
            yield from map(Chosen, trainer.choices())
            steps = _steps(config, plan, loan, trainer, checkpointer, control, resumed.step if resumed else 0)
            last, diverged = yield from _followed(steps, checkpointer, control)
            whole = last is not None and last.step == last.total  # then the LoRA is kept even if the program ends
            if last is not None and (control.keeps or not control.stop_requested or (control.leaves and whole)):
                path = yield from _ended(last, writer, checkpointer, base.device, preview=not control.leaves)
                yield from map(Note, clean_up(host.lora_folder(), work))  # newer states are there now
            elif last is not None and control.leaves:
                yield checkpointer.leave(last)
            del trainer, writer, checkpointer
            if diverged is not None:
                raise diverged
        del pictures
    if path is None and control.keeps:
        yield Note("The run was stopped before its first step; there is no LoRA to keep.")
    return Finished(path, last.step if last else 0)


def _ended(
    last: StepDone, writer: LoraWriter, checkpointer: Checkpointer, device: torch.device, *, preview: bool
) -> Generator[Event, None, Path]:
    """Save the LoRA of the last good step, its card, the state and the best LoRA; returns its path."""
    path = yield from checkpointer.result(last)
    yield Saved(path, last.step)
    yield from checkpointer.at_end(last)
    give_memory_back(device)
    yield Phase("making the preview and card")
    yield from writer.card(path, preview=preview)
    yield from checkpointer.best(last)
    return path


def _steps(
    config: TrainConfig, plan: Plan, loan: Loan, trainer: Trainer, checkpointer: Checkpointer, control: RunControl, first: int
) -> Iterator[Event]:
    """Run the steps from `first` on, and what is due between them."""
    # cached latents are encoded by now; an inpainting model encodes a grey image for each new size
    needs_vae = loan.base.family.inpaints or not config.data.cache_latents
    if first == 0:
        yield from checkpointer.before()
    done: StepDone | None = None
    for batches in plan.updates(config.run.seed, first):
        yield from stood(done, loan, trainer, checkpointer, control, needs_vae=needs_vae)
        if (done := (yield from _step(batches, loan, trainer, control, needs_vae=needs_vae))) is None:
            return
        yield from map(Note, trainer.take_told())
        yield done
        yield from checkpointer.after(done, asked=control.take_save_request(), asked_samples=control.take_sample_request())
    control.pauses_itself = False


def _step(
    batches: Sequence[Batch], loan: Loan, trainer: Trainer, control: RunControl, *, needs_vae: bool
) -> Generator[Event, None, StepDone | None]:
    """One step, repeated if the checkpoint was unloaded during it; None if the end is requested."""
    while not control.stop_requested:
        try:
            return trainer.step(batches)
        except HostChanged:
            if not loan.lends:
                raise
            trainer.undo()
            yield from loan.lend(needs_vae=needs_vae)
            trainer.renew()
    return None


def _followed(
    steps: Iterator[Event], checkpointer: Checkpointer, control: RunControl
) -> Generator[Event, None, tuple[StepDone | None, DivergedError | None]]:
    """Yield all events of `steps`; returns the last step with a finite loss, and an error if the loss diverged.

    Raises:
        HostChanged: the model is gone; the state was saved if a step was done.
    """
    last: StepDone | None = None
    try:
        for event in steps:
            last = event if isinstance(event, StepDone) and math.isfinite(event.loss) else last
            yield event
    except DivergedError as error:  # the adapters are as before the failed step
        return last, error
    except HostChanged as error:
        if last is None:
            raise
        yield from checkpointer.rescue(last, error)
    return last, None if last or control.stop_requested else DivergedError(DIVERGED)
