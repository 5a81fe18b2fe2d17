"""Writing the LoRA files of one run, at its end and in between, each with its metadata and card."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch

from lib_lora.config.keyword_arguments import parse_arguments
from lib_lora.config.names import next_free
from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.config.settled import Settled
from lib_lora.errors import LoraFileError, TrainLoraError
from lib_lora.events import Event, Note, SaveFailed
from lib_lora.files.lora_file import serialise
from lib_lora.host import Host
from lib_lora.model.adapter import State, state_dict
from lib_lora.model.base import BaseModel, ModelInfo
from lib_lora.model.embeddings import bundle
from lib_lora.output.card import write_card
from lib_lora.output.effect import has_effect
from lib_lora.output.metadata import RunFacts, file_metadata
from lib_lora.output.preview import default_prompt, draw_preview, drawn_by_us, preview_request
from lib_lora.output.publish import free_name, publish
from lib_lora.output.rescue import RescuedError, rescue, told
from lib_lora.output.written_files import WrittenFiles
from lib_lora.plan import Plan
from lib_lora.run_control import RunControl
from lib_lora.training.precision import FILE_DTYPES
from lib_lora.training.trainer import Trainer

_NO_EFFECT = (
    "LoRA {name!r} has no effect: in {kind} every layer is zero. Train longer, raise the learning rates, or set Save precision "
    "(save_precision) to float."
)


T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Unsaved:
    """A LoRA that is not saved yet: its name, its tensors, and the serialised file once it is made."""

    name: str
    adapters: State
    content: bytes | None = None


class LoraWriter:
    """Writes LoRA files; holds what all files of a run have in common."""

    def __init__(
        self,
        config: Settled,
        plan: Plan,
        base: BaseModel,
        host: Host,
        trainer: Trainer,
        started_at: float,
        written_files: WrittenFiles,
        control: RunControl,
    ) -> None:
        self._config, self._plan, self._base, self._host, self._trainer = config, plan, base, host, trainer
        self._control = control
        self._started_at, self.written_files = started_at, written_files
        self._told: list[str] = []
        self._unsaved: Unsaved | None = None

    @cached_property
    def model(self) -> ModelInfo:
        """Information on the base model, read once since it may hash the whole checkpoint; without hashes if that fails."""
        try:
            return self._base.info()
        except OSError as error:
            self._told.append(f"The checkpoint cannot be read any more ({error}); the LoRA's metadata do not contain its hash.")
            return ModelInfo("unknown", None, None, self._base.family)

    def adapters(self) -> State:
        """CPU copies of the adapters as they are saved (EMA), and of the trained embedding's vectors.

        Layers of a file to continue from that are not trained are as in the file.
        """
        word, kept = self._trainer.word, self._trainer.kept
        with self._trainer.result():
            trained = [adapter for adapter in self._trainer.adapters if adapter.target.name not in self._trainer.kept_layers]
            return {**state_dict(trained), **kept, **({} if word is None else bundle(word))}

    def published(
        self, ending: str, step: int, epoch: int, adapters: State | None = None, extra: Mapping[str, str] | None = None
    ) -> Generator[Event, None, Path]:
        """As `write` (default: the current adapters), with a note before if it has no effect, and a retry if the disk refuses."""
        adapters = self.adapters() if adapters is None else adapters
        dtype = FILE_DTYPES[self._config.precision.save_precision]
        if not has_effect(adapters, dtype, self._trainer.adapters):
            yield Note(_NO_EFFECT.format(name=self._config.run.name + ending, kind=self._config.precision.save_precision))
        return (yield from write_with_retry(lambda: self.write(ending, step, epoch, adapters, extra or {}), self._control))

    def write(self, ending: str, step: int, epoch: int, adapters: State, extra: Mapping[str, str]) -> Path:
        """Publish `NAME` + `ending`. The metadata name the file itself, since the webui uses that name as an alias in prompts.

        Args:
            ending: "" for the final LoRA.
            step: optimizer updates (ss_steps).
            epoch: ss_epoch.
            adapters: what to write.
            extra: further metadata.

        Raises:
            LoraFileError: the file cannot be written or does not load; the file of before is restored. If the cause is an
                `OSError`, a retry may succeed; otherwise call `rescued` to keep the LoRA.
        """
        self._unsaved = Unsaved(self._config.run.name + ending, adapters)
        folder = self._host.lora_folder()
        try:
            name = free_name(self._config.run.name + ending, folder, overwrite=self._config.run.overwrite)
            try:
                path = self._write(name, step, epoch, adapters, extra)
            except LoraFileError as error:
                if not (isinstance(error.__cause__, PermissionError) and (folder / f"{name}.safetensors").exists()):
                    raise
                # Windows cannot replace a file that another program has open
                free = next_free(name, folder)
                path = self._write(free, step, epoch, adapters, extra)
                self._told.append(f"{name!r} is in use by another program and cannot be overwritten; saved as {free!r}.")
        except OSError as error:  # a share that went away answers no question about its files
            raise LoraFileError(
                f"The LoRA could not be written to {str(folder)!r} ({error.strerror or error}); free space or check permissions."
            ) from error
        self._unsaved = None
        return path

    def rescued(self, error: Exception) -> LoraFileError:
        """The error to raise after `write` failed with `error` for good; the LoRA is kept elsewhere, and the text says where."""
        if isinstance(error, RescuedError) or self._unsaved is None:
            return LoraFileError(told(error, None))
        content = self._unsaved.content or _plain(self._unsaved.adapters)
        kept = None if content is None else rescue(content, self._unsaved.name, self._host, self._config.run.name)
        self.written_files.add(*([] if kept is None else [kept]))
        return LoraFileError(told(error, kept))

    def _write(self, name: str, step: int, epoch: int, adapters: State, extra: Mapping[str, str]) -> Path:
        run = dataclasses.replace(self._config.run, name=name)
        config = dataclasses.replace(self._config, run=run)
        facts = RunFacts(
            self._started_at,
            step,
            epoch,
            self._trainer.precision,
            _optimizer_text(config, self._trainer),
            self._trainer.checkpointing.on,
        )
        metadata = file_metadata(config, self._plan, self.model, facts, self._host.software())
        dtype = FILE_DTYPES[config.precision.save_precision]
        content = serialise(adapters, dtype, {**metadata, **extra}, self._trainer.kept.keys())
        self._unsaved = Unsaved(name, adapters, content)
        published = publish(config, self._host, content)
        self._told += published.told
        self.written_files.add(published.path)
        return published.path

    def card(self, path: Path, *, preview: bool) -> Iterator[Note]:
        """Write card and preview, and announce the LoRA to the host. The LoRA is saved already, so failures are only notes."""
        told, self._told = self._told, []
        yield from map(Note, told)
        previews = [self._preview] if preview and self._config.run.preview_steps else []
        parts: list[Callable[[Path], Path | None]] = [self._card, *previews, self._host.announce]
        for part in parts:
            try:
                stays = part(path)
                if stays is not None:
                    yield Note(f"{stays.name!r} existed before and was not changed.")
            except Exception as error:  # noqa: BLE001 - whatever a disk, a model or the host's list meets
                why = str(error) if isinstance(error, TrainLoraError) else f"{type(error).__name__}: {error}"
                yield Note(f"The LoRA is saved, but its card or preview is incomplete ({why}).")

    def _card(self, lora: Path) -> Path | None:
        """Write the card; returns an existing one that stays."""
        path = lora.with_suffix(".json")
        if os.path.lexists(path) and not self._config.run.overwrite:
            return path
        trigger, version = self._config.text.trigger, self.model.family.sd_version
        self.written_files.add(write_card(lora, activation_text=trigger, sd_version=version, preferred_weight=1.0))
        return None

    def _preview(self, lora: Path) -> Path | None:
        """Draw the preview; returns an existing one that stays, since a picture of the user's own is not replaced."""
        path = lora.with_suffix(".png")
        if os.path.lexists(path) and not (self._config.run.overwrite and drawn_by_us(path)):
            return path
        prompt = dataclasses.replace(default_prompt(self._config, self._plan), steps=self._config.run.preview_steps)
        with self._trainer.result():
            draw_preview(path, self._base, preview_request(self._config, prompt), self._trainer.precision)
        self.written_files.add(path)
        return None


def _plain(adapters: State) -> bytes | None:
    """A file of the adapters alone in fp32, without metadata; None if they cannot be serialised."""
    try:
        return serialise(adapters, torch.float32, {})
    except LoraFileError:
        return None


def _optimizer_text(config: Settled, trainer: Trainer) -> str:
    """ss_optimizer as sd-scripts writes it: `module.Class(key=value,…)` with the arguments that were given."""
    cls = type(trainer.updater.optimizer)
    arguments = {**optimizer_spec(config.optimizer.optimizer).defaults, **parse_arguments(config.optimizer.optimizer_args)}
    given = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{cls.__module__}.{cls.__name__}" + (f"({given})" if given else "")


def write_with_retry(write: Callable[[], T], control: RunControl) -> Generator[Event, None, T]:
    """The result of `write`. If the disk refuses, yields `SaveFailed` and retries if `control.on_write_failed()` says so.

    An error with an `OSError` as its cause counts as the disk's: full, read-only, no permission, broken, a lost network share.

    Raises:
        LoraFileError: `write` failed for another reason, or is not retried.
    """
    while True:
        try:
            return write()
        except LoraFileError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            yield SaveFailed(str(error))
            if not control.on_write_failed():
                raise
