"""Batches -> losses -> backward -> update. Noise and timesteps are arguments, so a step can be replayed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch

from lib_lora.config.objective import ObjectiveConfig
from lib_lora.errors import TrainLoraError
from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import Conditioning, TextInputs, encode
from lib_lora.model.dropout import Dropout
from lib_lora.objective.loss import batch_loss
from lib_lora.training.optimizer import Updater
from lib_lora.training.precision import Precision


@dataclass(frozen=True)
class StepInputs:
    """Everything random or cached that a step needs, on the model's device.

    Shapes:
        noisy_latents, target: `[B, C, h, w]`; timesteps: `[B]` int64
        sizes: `[B, 6]`, as in Conditioning, if the model reads them
        mask: `[B, 1, h, w]`, weight of each latent, 0 to 1; loss_weights: `[B]`; None for 1 everywhere

    `text`: captions to encode, or their conditioning if no text encoder is trained.
    `step`, `first`: the step of the batch, and the place of its first sample in it.
    """

    noisy_latents: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    text: TextInputs | Conditioning
    sizes: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    loss_weights: torch.Tensor | None = None
    step: int = 0
    first: int = 0


DIVERGED = (
    "The loss is not a number any more. Lower the learning rates, or choose another Mixed precision (mixed_precision): in some "
    "models fp16 overflows and bf16 does not."
)


class DivergedError(TrainLoraError):
    """The loss, or a gradient, is not finite."""


def compute_loss(base: BaseModel, inputs: StepInputs, objective: ObjectiveConfig, clip_skip: int) -> torch.Tensor:
    """The loss of a batch, a scalar to call backward on."""
    text = inputs.text
    conditioning = encode(base.text_encoders, text, clip_skip) if isinstance(text, TextInputs) else text
    model_pred = base.predict(inputs.noisy_latents, inputs.timesteps, replace(conditioning, sizes=inputs.sizes))
    return batch_loss(
        model_pred, inputs.target, inputs.timesteps, objective, base.noise_process, inputs.mask, inputs.loss_weights
    )


def training_step(
    base: BaseModel,
    batches: Sequence[StepInputs],
    objective: ObjectiveConfig,
    clip_skip: int,
    precision: Precision,
    updater: Updater,
    dropout: Dropout | None = None,
) -> list[float]:
    """Update the adapters once with all batches; returns the loss of each.

    Raises:
        DivergedError: a loss or the norm of the gradients is NaN or infinite; nothing was updated.
    """
    losses = []
    with torch.enable_grad():
        for inputs in batches:
            with _moment(dropout, inputs):  # backward too: gradient checkpointing computes forward again
                with precision.autocast(base.device):
                    loss = compute_loss(base, inputs, objective, clip_skip)
                losses.append(float(loss.detach()))
                if not math.isfinite(losses[-1]):
                    updater.drop_gradients()
                    raise DivergedError(DIVERGED)
                updater.accumulate(loss)
    if not updater.update():
        raise DivergedError(DIVERGED)
    return losses


def _moment(dropout: Dropout | None, inputs: StepInputs) -> AbstractContextManager[None]:
    return nullcontext() if dropout is None else dropout.during(inputs.step, inputs.first, len(inputs.timesteps))
