"""Writing LoRA files of one run: NAME itself, and others of the moment, each with its metadata and card."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from lib_lora.config.arguments import parse_arguments
from lib_lora.config.groups import TrainConfig
from lib_lora.config.names import next_free
from lib_lora.config.optimizers import optimizer_spec
from lib_lora.data.caption_rules import Moment, shown_caption
from lib_lora.data.sizes import Size
from lib_lora.errors import LoraFileError, TrainLoraError
from lib_lora.events import Note
from lib_lora.model.adapter import State, state_dict
from lib_lora.model.base import BaseModel, Host, ModelInfo
from lib_lora.model.words import bundle
from lib_lora.output.card import write_card, write_preview
from lib_lora.output.lora_file import serialise
from lib_lora.output.metadata import RunFacts, file_metadata
from lib_lora.output.publish import free_name, publish
from lib_lora.plan import Plan
from lib_lora.sample import Request, sample
from lib_lora.training.precision import FILE_DTYPES
from lib_lora.training.session import Session

LARGEST_PREVIEW_PX = 768


class Result:
    """Knows what all files of a run have in common."""

    def __init__(self, config: TrainConfig, plan: Plan, base: BaseModel, host: Host, session: Session, started_at: float) -> None:
        self._config, self._plan, self._base, self._host, self._session = config, plan, base, host, session
        self._started_at = started_at
        self._told: list[str] = []

    @cached_property
    def model(self) -> ModelInfo:
        """Of the base model; asked for once, since it may read the whole checkpoint."""
        return self._base.info()

    def adapters(self) -> State:
        """CPU copies of the adapters that are to be kept, and of the trained word's vectors.

        What of a file to go on with is not trained is as it lies there.
        """
        word, kept = self._session.word, self._session.kept
        with self._session.result():
            trained = [pair for pair in self._session.pairs if pair.target.name not in self._session.kept_layers]
            return {**state_dict(trained), **kept, **({} if word is None else bundle(word))}

    def write(
        self, ending: str, step: int, epoch: int, adapters: State | None = None, extra: Mapping[str, str] | None = None
    ) -> Path:
        """Publish `NAME` + `ending`. The name in the metadata is the file's own: the webui makes a prompt's alias of it.

        Args:
            ending: "" for the LoRA itself.
            step: updates that were made, as ss_steps says.
            epoch: as ss_epoch says.
            adapters: what to write; without, the adapters of now.
            extra: further metadata.

        Raises:
            LoraFileError: the file cannot be written, or does not load; what was there before is there again.
        """
        folder = self._host.lora_folder()
        name = free_name(self._config.run.name + ending, folder, overwrite=self._config.run.overwrite)
        adapters = self.adapters() if adapters is None else adapters
        try:
            return self._write(name, step, epoch, adapters, extra or {})
        except LoraFileError as error:
            if not (isinstance(error.__cause__, PermissionError) and (folder / f"{name}.safetensors").exists()):
                raise
        # Windows replaces no file that another program holds
        self._told.append(f"Another program holds {name!r}, which cannot be overwritten; saved as {next_free(name, folder)!r}.")
        return self._write(next_free(name, folder), step, epoch, adapters, extra or {})

    def _write(self, name: str, step: int, epoch: int, adapters: State, extra: Mapping[str, str]) -> Path:
        run = dataclasses.replace(self._config.run, name=name)
        config = dataclasses.replace(self._config, run=run)
        facts = RunFacts(
            self._started_at,
            step,
            epoch,
            self._session.precision,
            _optimizer_text(config, self._session),
            self._session.checkpointing.on,
        )
        metadata = file_metadata(config, self._plan, self.model, facts, self._host.software())
        dtype = FILE_DTYPES[config.precision.save_precision]
        content = serialise(adapters, dtype, {**metadata, **extra}, self._session.kept.keys())
        return publish(config, self._host, content)

    def card(self, path: Path, *, preview: bool) -> Iterator[Note]:
        """What stands beside a LoRA. The LoRA is saved: whatever fails here is told, and costs nothing else."""
        config = self._config
        told, self._told = self._told, []
        yield from map(Note, told)
        try:
            write_card(path, activation_text=config.text.trigger, sd_version=self.model.family.card, preferred_weight=1.0)
            if preview and config.run.preview_steps:
                with self._session.result():
                    write_preview(path, sample(self._base, _preview_request(config, self._plan), self._session.precision))
            self._host.announce(path)
        except (OSError, RuntimeError, TrainLoraError) as error:
            yield Note(f"The LoRA is saved, but not all of its card ({type(error).__name__}: {error}).")


def default_prompt(config: TrainConfig, plan: Plan) -> str:
    """The trigger word alone, or the first caption where there is none."""
    still = dataclasses.replace(
        config.text,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        caption_tag_dropout_rate=0.0,
        token_warmup_step=0.0,
    )
    return config.text.trigger or shown_caption(still, plan.samples[0].caption, Moment(0, 1, 0, 0), config.run.seed)


def preview_size(config: TrainConfig) -> Size:
    """What is trained on, up to a limit."""
    side = min(config.data.resolution, LARGEST_PREVIEW_PX)
    return Size(side, side)


def _preview_request(config: TrainConfig, plan: Plan) -> Request:
    size, steps, seed = preview_size(config), config.run.preview_steps, config.run.seed
    prompt = default_prompt(config, plan)
    return Request(prompt, size, steps, seed, clip_skip=config.text.clip_skip, objective=config.objective)


def _optimizer_text(config: TrainConfig, session: Session) -> str:
    """`module.Class(key=value,…)` with the arguments that were given, as sd-scripts writes ss_optimizer."""
    cls = type(session.updater.optimizer)
    arguments = {**optimizer_spec(config.optimizer.optimizer).defaults, **parse_arguments(config.optimizer.optimizer_args)}
    given = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{cls.__module__}.{cls.__name__}" + (f"({given})" if given else "")
