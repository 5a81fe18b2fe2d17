"""One batch -> loss -> backward -> update. Draws nothing: noise and timesteps are arguments, so a step can be replayed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lib_lora.config.objective import ObjectiveConfig
from lib_lora.errors import TrainLoraError
from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import encode_ids
from lib_lora.objective.loss import batch_loss
from lib_lora.training.optimizer import Updater
from lib_lora.training.precision import Precision


@dataclass(frozen=True)
class StepInputs:
    """Everything random or cached that a step is made of, on the model's device.

    Shapes:
        noisy_latents, target: `[B, 4, h, w]`; timesteps: `[B]` int64
        input_ids: `[B, chunks, 77]`, or context: `[B, tokens, width]` where the text encoder is not trained
    """

    noisy_latents: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    input_ids: torch.Tensor | None = None
    context: torch.Tensor | None = None


class DivergedError(TrainLoraError):
    """The loss is not a number any more."""


def compute_loss(base: BaseModel, inputs: StepInputs, objective: ObjectiveConfig, clip_skip: int) -> torch.Tensor:
    """The scalar that backward is called on."""
    context = inputs.context
    if context is None:
        assert inputs.input_ids is not None
        context = encode_ids(base.text_encoder, inputs.input_ids, clip_skip)
    model_pred = base.predict(inputs.noisy_latents, inputs.timesteps, context)
    return batch_loss(model_pred, inputs.target, inputs.timesteps, objective, base.alphas_cumprod)


def training_step(
    base: BaseModel, inputs: StepInputs, objective: ObjectiveConfig, clip_skip: int, precision: Precision, updater: Updater
) -> float:
    """Loss of the batch, after the adapters were updated by it.

    Raises:
        DivergedError: the loss is NaN or infinite; nothing was updated.
    """
    with torch.enable_grad():
        with precision.autocast(base.device):
            loss = compute_loss(base, inputs, objective, clip_skip)
        value = float(loss.detach())
        if value != value or value in (float("inf"), float("-inf")):
            raise DivergedError(
                "The loss is not a number any more; the LoRA was not saved. Lower the learning rates, or choose another Mixed "
                "precision (mixed_precision): fp16 overflows in some models where bf16 does not."
            )
        updater.update(loss)
    return value
