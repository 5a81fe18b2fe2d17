"""Rules that look at more than one value: small functions from a configuration to a sentence, or None."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from lib_lora.config.groups import TrainConfig, all_options
from lib_lora.config.names import name_problem, taken_problem
from lib_lora.config.options import bounds_problem

Rule = Callable[[TrainConfig], "str | None"]


def config_problems(config: TrainConfig, out: Path | None) -> list[str]:
    """Every sentence that must be said about `config` before a run, all at once; `out` is the LoRA folder."""
    problems = [bounds_problem(opt, config.value(opt)) for opt in all_options()]
    problems += [rule(config) for rule in RULES]
    problems.append(name_problem(config.run.name))
    if out is not None and problems[-1] is None:
        problems.append(taken_problem(config.run.name, out, overwrite=config.run.overwrite))
    return [problem for problem in problems if problem]


def resolution_multiple(config: TrainConfig) -> str | None:
    value = config.data.resolution
    return None if value % 8 == 0 else f"Resolution (resolution): got {value}, must be a multiple of 8, such as {value // 8 * 8}."


def bucket_step_multiple(config: TrainConfig) -> str | None:
    value = config.data.bucket_reso_steps
    if not config.data.enable_bucket or value % 8 == 0:
        return None
    return f"Bucket step (bucket_reso_steps): got {value}, must be a multiple of 8."


def bucket_range(config: TrainConfig) -> str | None:
    data = config.data
    if not data.enable_bucket or data.min_bucket_reso <= data.resolution <= data.max_bucket_reso:
        return None
    return (
        f"Resolution (resolution): got {data.resolution}, must lie between Smallest bucket side (min_bucket_reso), "
        f"{data.min_bucket_reso}, and Largest bucket side (max_bucket_reso), {data.max_bucket_reso}."
    )


def something_is_trained(config: TrainConfig) -> str | None:
    if config.optimizer.unet_lr > 0 or config.optimizer.text_encoder_lr > 0:
        return None
    return (
        "Learning rate, U-Net (unet_lr) and Learning rate, text encoder (text_encoder_lr): both are 0; nothing would be trained."
    )


def warmup_has_a_schedule(config: TrainConfig) -> str | None:
    if config.optimizer.lr_warmup_steps == 0 or config.optimizer.lr_scheduler != "constant":
        return None
    return "Warm-up steps (lr_warmup_steps): the schedule constant has no warm-up; choose constant_with_warmup, or 0."


def optimizer_is_installed(config: TrainConfig) -> str | None:
    if config.optimizer.optimizer != "AdamW8bit" or importlib.util.find_spec("bitsandbytes"):
        return None
    return (
        "Optimizer (optimizer): AdamW8bit needs the package bitsandbytes; choose AdamW, or install "
        "bitsandbytes==0.45.5 with pip's --no-deps, which leaves the webui's torch as it is."
    )


RULES: tuple[Rule, ...] = (
    resolution_multiple,
    bucket_step_multiple,
    bucket_range,
    something_is_trained,
    warmup_has_a_schedule,
    optimizer_is_installed,
)
