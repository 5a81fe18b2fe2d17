"""Batches -> losses -> backward -> update. Draws nothing: noise and timesteps are arguments, so a step can be replayed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from lib_lora.config.objective import ObjectiveConfig
from lib_lora.errors import TrainLoraError
from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import encode_ids
from lib_lora.model.dropout import Dropout
from lib_lora.objective.loss import batch_loss
from lib_lora.training.optimizer import Updater
from lib_lora.training.precision import Precision


@dataclass(frozen=True)
class StepInputs:
    """Everything random or cached that a step is made of, on the model's device.

    Shapes:
        noisy_latents, target: `[B, 4, h, w]`; timesteps: `[B]` int64
        input_ids, token_weights: `[B, chunks, 77]`, or context: `[B, tokens, width]` where the text encoder is not trained
        mask: `[B, 1, h, w]`, what is learned, 0 to 1; loss_weights: `[B]`; None for 1 everywhere

    `step` and `first` say where the batch stands: its step, and the place of its first sample in it.
    """

    noisy_latents: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    input_ids: torch.Tensor | None = None
    context: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    loss_weights: torch.Tensor | None = None
    token_weights: torch.Tensor | None = None
    whole_chunks: bool = False
    step: int = 0
    first: int = 0


class DivergedError(TrainLoraError):
    """The loss is not a number any more."""


def compute_loss(base: BaseModel, inputs: StepInputs, objective: ObjectiveConfig, clip_skip: int) -> torch.Tensor:
    """The scalar that backward is called on."""
    context = inputs.context
    if context is None:
        assert inputs.input_ids is not None
        weights, whole = inputs.token_weights, inputs.whole_chunks
        context = encode_ids(base.text_encoder, inputs.input_ids, clip_skip, token_weights=weights, whole_chunks=whole)
    model_pred = base.predict(inputs.noisy_latents, inputs.timesteps, context)
    return batch_loss(
        model_pred, inputs.target, inputs.timesteps, objective, base.alphas_cumprod, inputs.mask, inputs.loss_weights
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
    """The loss of every batch, after the adapters were updated once by all of them.

    Raises:
        DivergedError: a loss is NaN or infinite; nothing was updated.
    """
    losses = []
    with torch.enable_grad():
        for inputs in batches:
            with _moment(dropout, inputs):  # backward too: with checkpointing it computes forward again
                with precision.autocast(base.device):
                    loss = compute_loss(base, inputs, objective, clip_skip)
                losses.append(float(loss.detach()))
                if not math.isfinite(losses[-1]):
                    updater.drop_gradients()
                    raise DivergedError(
                        "The loss is not a number any more; nothing was saved. Lower the learning rates, or choose another Mixed "
                        "precision (mixed_precision): fp16 overflows in some models where bf16 does not."
                    )
                updater.accumulate(loss)
    updater.update()
    return losses


def _moment(dropout: Dropout | None, inputs: StepInputs) -> AbstractContextManager[None]:
    return nullcontext() if dropout is None else dropout.during(inputs.step, inputs.first, len(inputs.timesteps))
