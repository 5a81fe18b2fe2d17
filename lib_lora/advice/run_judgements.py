"""Judgement on a run while it is training: its losses and its memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from lib_lora.advice.derive import USUAL_RATE
from lib_lora.advice.judgement import Judgement, only_new
from lib_lora.advice.judgements import SMALLER
from lib_lora.config.groups import TrainConfig, title
from lib_lora.config.optimizer_specs import optimizer_spec

PARTS, LEAST_OF_PART = 5, 20  # parts of a run that are compared, and losses that each needs
_RISE, _ERRORS = 1.3, 4.0  # of the lowest mean, and in standard errors of the difference
_SLOWER = 4.0  # the learning rate is divided by this
_LOWEST = 1e-6


def judge_run(
    config: TrainConfig, losses: Sequence[float], reserved_gb: float | None = None, total_gb: float | None = None
) -> list[Judgement]:
    """What is odd about a run.

    Args:
        config: its settings.
        losses: of its steps so far, or of evenly thinned ones.
        reserved_gb: GiB that it holds on the GPU.
        total_gb: GiB that the GPU has.
    """
    found = [loss_rises(config, losses), memory_spills(config, reserved_gb, total_gb)]
    return [judgement for judgement in found if judgement is not None]


def is_rising(losses: Sequence[float]) -> bool:
    """Whether the mean of the last fifth is above the lowest fifth's by far more than chance explains."""
    size = len(losses) // PARTS
    if size < LEAST_OF_PART:
        return False
    parts = [losses[len(losses) - size * (PARTS - number) :][:size] for number in range(PARTS)]
    means = [statistics.fmean(part) for part in parts]
    lowest = min(range(PARTS), key=means.__getitem__)
    spread = (statistics.pvariance(parts[-1]) + statistics.pvariance(parts[lowest])) / size
    difference = means[-1] - means[lowest]
    return means[-1] > _RISE * means[lowest] and difference > _ERRORS * spread**0.5


def loss_rises(config: TrainConfig, losses: Sequence[float]) -> Judgement | None:
    """A run that unlearns, usually since its learning rate is too high."""
    if not is_rising(losses):
        return None
    optimizer = config.optimizer
    if optimizer_spec(optimizer.optimizer).one_rate:
        mend = {"unet_lr": USUAL_RATE, "text_encoder_lr": None if optimizer.text_encoder_lr else 0.0, "optimizer": "AdamW"}
        text = (
            "The loss rises, so the LoRA becomes worse with every step; stop the run, and train again with AdamW and a usual "
            "rate."
        )
        return Judgement("optimizer", text, mend)
    rates = {"unet_lr": optimizer.unet_lr, "text_encoder_lr": optimizer.text_encoder_lr or 0.0}
    slower = {name: max(rate / _SLOWER, _LOWEST) for name, rate in rates.items() if rate > 0}
    option = next(iter(slower), "unet_lr")
    text = f"{title(option)}: the loss rises, so the LoRA becomes worse with every step; stop the run, and train again with less."
    return Judgement(option, text, slower)


def memory_spills(config: TrainConfig, reserved_gb: float | None, total_gb: float | None) -> Judgement | None:
    """A run that holds more than the GPU has, so the driver keeps the rest in the computer's memory."""
    if reserved_gb is None or total_gb is None or reserved_gb <= total_gb:
        return None
    text = (
        f"The run holds {reserved_gb:.1f} GB, but the GPU has {total_gb:.1f} GB: the rest lies in the computer's memory (shared "
        "memory), which makes every step many times slower; stop it, and train again with less."
    )
    return Judgement("batch_size", text, only_new(config, _less(config)))


def _less(config: TrainConfig) -> dict[str, Any]:
    """Settings that need clearly less memory."""
    values: dict[str, Any] = {"gradient_checkpointing": "on", "vae_batch_size": 1}
    batch, accumulation = config.data.batch_size, config.optimizer.gradient_accumulation_steps
    if batch > 1:
        return {**values, "batch_size": batch // 2, "gradient_accumulation_steps": min(accumulation * 2, 1024)}
    side = next((side for side in SMALLER if side < config.data.resolution), None)
    return values if side is None or config.data.resolution_height else {**values, "resolution": side}
