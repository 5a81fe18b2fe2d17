"""The trainer of one run: adapters, embedding, updater, latents and contexts between steps.

Validation is the loss on held-out images: its batches, timesteps and noise are always the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from lib_lora.config.data import DataConfig
from lib_lora.config.groups import TrainConfig
from lib_lora.config.objective import ObjectiveConfig
from lib_lora.config.settled import Settled
from lib_lora.data.caption_processing import Moment, shown_caption, unvaried
from lib_lora.events import StepDone
from lib_lora.families.noise_process import NoiseProcess
from lib_lora.files.plain_values import StateError
from lib_lora.model.adapter import attached, parameters
from lib_lora.model.adapter_types import is_learning
from lib_lora.model.base import BaseModel, networks
from lib_lora.model.checkpointing import Choice, checkpointed_forwards, choose_checkpointing
from lib_lora.model.conditioning import Conditioning, TextInputs
from lib_lora.model.dropout import Dropout
from lib_lora.model.embeddings import embeddings_attached
from lib_lora.model.lora_layers import LoraFiles
from lib_lora.model.norm_shifts import shifted
from lib_lora.model.patching import forwards_replaced
from lib_lora.model.targets import adaptable, further_targets
from lib_lora.plan import Batch, Plan
from lib_lora.training.continued_files import kept_tensors
from lib_lora.training.embedding import start_word
from lib_lora.training.initial_adapters import initial_adapters, merged_adapters, norm_shifts
from lib_lora.training.latents import LatentBatch, LatentSource
from lib_lora.training.lr_schedules import in_steps
from lib_lora.training.memory import explained, give_memory_back
from lib_lora.training.noising import Drawn, draw
from lib_lora.training.optimizer import Updater, embedding_groups
from lib_lora.training.precision import Precision
from lib_lora.training.step import DivergedError, StepInputs, compute_loss, training_step
from lib_lora.training.texts import Texts

MOST_DIVERGED = 5  # consecutive steps without a finite loss
MEASURED = 4  # timesteps; by default 200, 400, 600 and 800 (sd-scripts' NUM_VALIDATION_TIMESTEPS)


class Trainer:
    """Trains step by step. Random draws are functions of (seed, step, place in the step)."""

    def __init__(
        self,
        config: Settled,
        plan: Plan,
        base: BaseModel,
        pictures: LatentSource,
        precision: Precision,
        files: LoraFiles | None = None,
    ) -> None:
        self.config, self._plan, self._base, self._pictures, self.precision = config, plan, base, pictures, precision
        self._texts = Texts(base, config.text, precision)
        self.checkpointing = choose_checkpointing(config.precision.gradient_checkpointing, base.device, base.family)
        self.adapters = initial_adapters(config, base, precision.weights, files)
        self._shifts = norm_shifts(config, base, files)
        self.kept, self.kept_layers = kept_tensors(config, base.family, files)
        self._frozen, self._dropout = merged_adapters(config, base, files), Dropout(config.adapter, config.run.seed)
        self._trains_text = any(adapter.target.part == "text_encoder" and is_learning(adapter) for adapter in self.adapters)
        self.word = start_word(config, base, files)
        self._trains_word = self.word is not None
        self._embeddings = (*base.embeddings, *([self.word] if self.word is not None else []))
        further = embedding_groups(self.word, config.embedding)
        self.updater = Updater(self.adapters, config.optimizer, plan.steps, precision, config.adapter, further)

        self._diverged, self._told = 0, list[str]()

    def step(self, batches: Sequence[Batch]) -> StepDone:
        """Train one step on all of its batches. The loss is their mean.

        Raises:
            DivergedError: the loss was not finite in MOST_DIVERGED consecutive steps, which left the adapters unchanged.
            HostChanged: the model was moved or replaced.
        """
        self._base.verify()
        number, epoch = batches[0].step, batches[0].epoch
        self._stop_parts(number)
        rates = tuple(self.updater.learning_rates())
        with explained(self._base, self.config, f"step {number + 1}"):
            try:
                losses = self._losses_with_less_memory(batches)
                self._diverged, norm = 0, self.updater.gradient_norm
            except DivergedError:
                self._diverged += 1
                if self._diverged == MOST_DIVERGED:
                    raise
                self._told.append(f"The loss of step {number + 1} was not a number; the step was skipped.")
                losses, norm = [math.nan], None
        return StepDone(number + 1, self._plan.steps, epoch + 1, sum(losses) / len(losses), rates, norm)

    def choices(self) -> list[str]:
        """Notes on automatic choices, with reasons."""
        precision, checkpointing = self.precision, self.checkpointing
        told = [f"Mixed precision: {precision.name}, since {precision.reason}."] if precision.reason else []
        if checkpointing.reason:
            told.append(f"Gradient checkpointing: {'on' if checkpointing.on else 'off'}, since {checkpointing.reason}.")
        return told

    def take_told(self) -> list[str]:
        """Notes since the last call."""
        told, self._told = self._told, []
        return told

    def _losses_with_less_memory(self, batches: Sequence[Batch]) -> list[float]:
        """The losses of a step. If memory runs out, it is repeated with gradient checkpointing: same draws, same weights."""
        begun = self.updater.begun
        try:
            return self._losses(batches)
        except torch.cuda.OutOfMemoryError:
            if self.checkpointing.on or self.updater.begun != begun:  # an interrupted update cannot be repeated
                raise
        self.updater.drop_gradients()
        give_memory_back(self._base.device)
        self.checkpointing = Choice(True, "the GPU ran out of memory without it")
        self._told.append(
            f"The GPU ran out of memory at step {batches[0].step + 1}. This step is repeated and the run continues with gradient "
            "checkpointing, which is slower."
        )
        with explained(self._base, self.config, f"step {batches[0].step + 1}, even with gradient checkpointing"):
            return self._losses(batches)

    def _losses(self, batches: Sequence[Batch]) -> list[float]:
        config = self.config
        with self._attached(), self._checkpointed():
            inputs = [self._inputs(batch) for batch in batches]
            return training_step(
                self._base, inputs, config.objective, config.text.clip_skip, self.precision, self.updater, self._dropout
            )

    def renew(self) -> None:
        """Find the adapters' layers by name again: the model was lent out, and its modules may have been rebuilt."""
        targets = {target.name: target for target in (*adaptable(self._base), *further_targets(self._base))}
        for adapters in (self.adapters, self._frozen):
            adapters[:] = [replace(adapter, target=targets[adapter.target.name]) for adapter in adapters]

    def undo(self) -> None:
        """Drop the gradients of a step that failed, so that it can be repeated."""
        self.updater.drop_gradients()

    @contextmanager
    def result(self) -> Iterator[None]:
        """In the block, the adapters are attached with the weights that a file would have: for saving, samples and validation."""
        with self.updater.kept_weights(), self._attached():
            yield

    @contextmanager
    def _attached(self) -> Iterator[None]:
        """Attach adapters, norm shifts and embeddings. The only place that does, so that steps, samples and validation agree."""
        with (
            attached(self.adapters, self._frozen, self._dropout),
            shifted(self._base, self._shifts),
            embeddings_attached(self._base, self._embeddings),
        ):
            yield

    @torch.no_grad()
    def heldout_loss(self) -> float:
        """Mean loss over held-out images and timesteps, with the weights that would be saved; draws are always the same."""
        self._base.verify()
        losses, count = 0.0, 0
        with explained(self._base, self.config, "measuring the loss on validation images"), self.result():
            for batch in heldout_batches(self.config.data, self._plan):
                for loss in self._heldout_losses(batch):
                    losses, count = losses + loss * len(batch.indices), count + len(batch.indices)
        return losses / count

    def _heldout_losses(self, batch: HeldOutBatch) -> Iterator[float]:
        config = self.config
        shown = self._pictures.without_augmentation(batch.indices)
        text, seed = unvaried(config.text), config.run.seed
        written = [self._plan.samples[index].caption for index in batch.indices]
        captions = [shown_caption(text, line, Moment(0, 1, 0, batch.first + i), seed) for i, line in enumerate(written)]
        # if texts are trained, a cached context may be of other weights
        trained = config.optimizer.text_encoder_lr > 0 or self.word is not None
        read = self._texts.tokens(captions) if trained else self._texts.context(captions)
        for timestep in heldout_timesteps(config.objective):
            drawn = draw_heldout(config, shown.latents, self._base.noise_process, timestep, batch.first)
            inputs = self._on_device(drawn, shown, read)
            with self.precision.autocast(self._base.device):
                yield float(compute_loss(self._base, inputs, config.objective, config.text.clip_skip))

    def _checkpointed(self) -> AbstractContextManager[None]:
        return forwards_replaced(checkpointed_forwards(networks(self._base)) if self.checkpointing.on else {})

    def _stop_parts(self, step: int) -> None:
        """Stop training the text encoder's adapters, and the embedding's vectors, from the configured steps on."""
        stops = self.config.optimizer.stop_text_encoder_training, self.config.embedding.stop_embedding_training
        text_is_over, word_is_over = (0 < in_steps(stop, self._plan.steps) <= step for stop in stops)
        if self._trains_text and text_is_over:
            self._trains_text = False
            for parameter in parameters([adapter for adapter in self.adapters if adapter.target.part == "text_encoder"]):
                parameter.requires_grad_(False)
        if self._trains_word and word_is_over:
            self._trains_word = False
            for vectors in self._vectors():
                vectors.requires_grad_(False)

    def _vectors(self) -> tuple[torch.Tensor, ...]:
        return () if self.word is None else self.word.vectors

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, except the settings: tensors in nested plain values."""
        names, keys = [adapter.target.name for adapter in self.adapters], [list(adapter.named()) for adapter in self.adapters]
        adapters = [parameter.detach() for parameter in parameters(self.adapters)]
        vectors = [value.detach() for value in self._vectors()]
        updater = self.updater.state_dict()
        return {"layers": names, "keys": keys, "adapters": adapters, "vectors": vectors, "updater": updater}

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from `state()` of another run with the same settings; only what depends on the model is checked here.

        Raises:
            StateError: the state is of other layers, or of another optimizer.
        """
        mine = [*parameters(self.adapters), *self._vectors()]
        saved = [*state["adapters"], *state.get("vectors", [])]
        fits = state["layers"] == [adapter.target.name for adapter in self.adapters]
        fits = fits and state.get("keys") in (None, [list(adapter.named()) for adapter in self.adapters])
        fits = fits and [value.shape for value in saved] == [value.shape for value in mine]
        if not fits:
            raise StateError(
                "Resume from (resume): the state has other layers than this model; select the checkpoint that it was trained on."
            )
        with torch.no_grad():
            for parameter, value in zip(mine, saved):
                parameter.copy_(value)
        try:
            self.updater.load_state_dict(state["updater"])
        except (LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise StateError(f"Resume from (resume): the optimizer does not accept the state ({error}).") from error

    def _inputs(self, batch: Batch) -> StepInputs:
        shown = self._pictures.batch(batch)
        process = self._base.noise_process
        drawn = draw(self.config.objective, shown.latents, process, self.config.run.seed, batch.step, batch.first)
        captions = self._captions(batch)
        read = self._texts.tokens(captions) if self._trains_text or self._trains_word else self._texts.context(captions)
        inputs = self._on_device(drawn, shown, read)
        return replace(inputs, loss_weights=self._loss_weights(batch), step=batch.step, first=batch.first)

    def _on_device(self, drawn: Drawn, shown: LatentBatch, text: TextInputs | Conditioning) -> StepInputs:
        device = self._base.device
        noisy, target, timesteps = (value.to(device) for value in (drawn.noisy_latents, drawn.target, drawn.timesteps))
        mask = None if shown.mask is None else shown.mask.to(device)
        return StepInputs(noisy, target, timesteps, text, shown.sizes.to(device), mask=mask)

    def _loss_weights(self, batch: Batch) -> torch.Tensor | None:
        """Loss weights `[B]`: prior_loss_weight for regularisation images, else 1; None if the batch has none of them."""
        weight = self.config.data.prior_loss_weight
        is_reg = [self._plan.samples[index].is_reg for index in batch.indices]
        return torch.tensor([weight if reg else 1.0 for reg in is_reg], device=self._base.device) if any(is_reg) else None

    def _captions(self, batch: Batch) -> list[str]:
        moments = [Moment(batch.step, self._plan.steps, batch.epoch, batch.first + i) for i in range(len(batch.indices))]
        written = [self._plan.samples[index].caption for index in batch.indices]
        text, seed = self.config.text, self.config.run.seed
        return [shown_caption(text, caption, moment, seed) for caption, moment in zip(written, moments)]


@dataclass(frozen=True)
class HeldOutBatch:
    """Samples of one size that are measured together. `first`: place of the first one among all held-out samples."""

    indices: list[int]
    first: int


def heldout_batches(data: DataConfig, plan: Plan) -> Iterator[HeldOutBatch]:
    """The batches that are measured, sorted by size."""
    ordered = sorted(plan.heldout, key=lambda index: (plan.placements[index].bucket, index))
    first, count = 0, 0
    while first < len(ordered) and not (data.max_validation_steps and count == data.max_validation_steps):
        size = plan.placements[ordered[first]].bucket
        batch = [index for index in ordered[first : first + data.batch_size] if plan.placements[index].bucket == size]
        yield HeldOutBatch(batch, first)
        first, count = first + len(batch), count + 1


def heldout_timesteps(objective: ObjectiveConfig) -> list[int]:
    """Timesteps evenly spread between the first and the last one that is trained on, both excluded."""
    low, high = objective.min_timestep, objective.max_timestep
    return [int(low + (high - low) * i / (MEASURED + 1)) for i in range(1, MEASURED + 1)]


def draw_heldout(config: TrainConfig, latents: torch.Tensor, process: NoiseProcess, timestep: int, first: int) -> Drawn:
    """Noisy latents and target at `timestep`; the noise of an image is always the same. Shapes as in `draw`."""
    seed = config.data.validation_seed or config.run.seed
    timesteps = torch.full((len(latents),), timestep, dtype=torch.int64)
    return draw(config.objective, latents, process, seed, f"held out {timestep}", first, timesteps)
