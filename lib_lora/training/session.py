"""The state of one run between its steps: pairs, updater, cached latents and contexts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from lib_lora.config.groups import TrainConfig
from lib_lora.data.caption_rules import Moment, shown_caption, varies
from lib_lora.data.tokens import caption_ids
from lib_lora.events import StepDone
from lib_lora.model.adapter import LoraPair, new_pair, parameters
from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import encode_ids
from lib_lora.plan import Batch, Plan
from lib_lora.training.draws import draw
from lib_lora.training.failures import explained
from lib_lora.training.optimizer import Updater
from lib_lora.training.precision import Precision
from lib_lora.training.step import StepInputs, training_step
from lib_lora.training.tree import StateError


class Session:
    """Trains batch after batch. Everything random of a step is a function of (seed, step, place in the batch)."""

    def __init__(
        self, config: TrainConfig, plan: Plan, base: BaseModel, latents: Sequence[torch.Tensor], precision: Precision
    ) -> None:
        self._config, self._plan, self._base, self._latents, self.precision = config, plan, base, latents, precision
        self._contexts: dict[str, torch.Tensor] = {}
        self.pairs = new_pairs(config, base)
        self.updater = Updater(self.pairs, config.optimizer, plan.steps, precision)

    def step(self, batch: Batch) -> StepDone:
        """Train on one batch.

        Raises:
            DivergedError: the loss is not finite; the adapters are as before the step.
            HostChanged: the model was taken away.
        """
        self._base.verify()
        inputs = self._inputs(batch)
        rates = tuple(self.updater.learning_rates())
        with explained(self._base, f"step {batch.step + 1}"):
            loss = training_step(
                self._base, inputs, self._config.objective, self._config.text.clip_skip, self.precision, self.updater
            )
        return StepDone(batch.step + 1, self._plan.steps, batch.epoch + 1, loss, rates)

    def kept(self) -> AbstractContextManager[None]:
        """While it lasts the adapters hold the weights that are to be kept: for files and samples in between."""
        return self.updater.kept()

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on and that no setting gives: tensors in nested plain values."""
        names = [pair.target.name for pair in self.pairs]
        adapters = [parameter.detach() for parameter in parameters(self.pairs)]
        return {"layers": names, "adapters": adapters, "updater": self.updater.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of another run with the same settings.

        Raises:
            StateError: it is of other layers, or of another optimizer.
        """
        mine = list(parameters(self.pairs))
        fits = state["layers"] == [pair.target.name for pair in self.pairs]
        fits = fits and [value.shape for value in state["adapters"]] == [value.shape for value in mine]
        if not fits:
            raise StateError("Resume from (resume): the state is of other layers than this model's; choose its own checkpoint.")
        with torch.no_grad():
            for parameter, value in zip(mine, state["adapters"]):
                parameter.copy_(value)
        try:
            self.updater.load_state_dict(state["updater"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise StateError(f"Resume from (resume): the optimizer does not take the state ({error}).") from error

    def finish(self) -> None:
        """Called once after the last step, before anything is saved."""
        self.updater.finish()

    def _inputs(self, batch: Batch) -> StepInputs:
        device = self._base.device
        latents = torch.stack([self._latents[i] for i in batch.indices])  # [B, 4, h, w]
        drawn = draw(self._config.objective, latents, self._base.alphas_cumprod.cpu(), self._config.run.seed, batch.step)
        captions = self._captions(batch)
        trains_text = self._config.optimizer.text_encoder_lr > 0
        return StepInputs(
            drawn.noisy_latents.to(device),
            drawn.target.to(device),
            drawn.timesteps.to(device),
            input_ids=self._ids(captions) if trains_text else None,
            context=None if trains_text else torch.cat([self._context(caption) for caption in captions]),
        )

    def _captions(self, batch: Batch) -> list[str]:
        moments = [Moment(batch.step, self._plan.steps, batch.epoch, place) for place in range(len(batch.indices))]
        written = [self._plan.samples[index].caption for index in batch.indices]
        text, seed = self._config.text, self._config.run.seed
        return [shown_caption(text, caption, moment, seed) for caption, moment in zip(written, moments)]

    def _ids(self, captions: Sequence[str]) -> torch.Tensor:
        length = int(self._config.text.max_token_length)
        return torch.tensor(
            [caption_ids(self._base.tokenizer, caption, length) for caption in captions], device=self._base.device
        )

    def _context(self, caption: str) -> torch.Tensor:
        """The context of a caption under a text encoder that does not change, computed once unless captions vary."""
        if caption in self._contexts:
            return self._contexts[caption]
        with torch.no_grad(), self.precision.autocast(self._base.device):
            context = encode_ids(self._base.text_encoder, self._ids([caption]), self._config.text.clip_skip)
        if not varies(self._config.text):
            self._contexts[caption] = context
        return context


def new_pairs(config: TrainConfig, base: BaseModel) -> list[LoraPair]:
    """A fresh pair for every target whose part has a learning rate."""
    rates = {"unet": config.optimizer.unet_lr, "text_encoder": config.optimizer.text_encoder_lr}
    return [
        new_pair(target, config.adapter.rank, config.adapter.alpha, config.run.seed, base.device)
        for target in base.targets()
        if rates[target.part] > 0
    ]
