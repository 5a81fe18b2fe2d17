"""The memory account of a configuration, and of its images if there are any."""

from __future__ import annotations

import torch

from lib_lora.config.precision import PrecisionConfig
from lib_lora.config.settled import Settled
from lib_lora.data.sizes import Size
from lib_lora.estimate.account import GB, STEP, Account, account
from lib_lora.model.base import BaseModel
from lib_lora.model.checkpointing import choose_checkpointing
from lib_lora.output.preview import preview_size
from lib_lora.plan import Plan
from lib_lora.training.precision import Precision, choose_precision

SHOWN = 3  # parts in a short text


def estimate(config: Settled, base: BaseModel, device: torch.device, plan: Plan | None = None) -> Account:
    """Count the memory of a run of `config` on `base`, which is not changed.

    Without a plan, one image of the full resolution stands for all. For a GPU that is not present, *auto* means bf16 and gradient
    checkpointing.

    Raises:
        ConfigError: the device does not support the precision.
    """
    missing = device.type == "cuda" and not torch.cuda.is_available()
    wanted = config.precision.gradient_checkpointing
    on = wanted != "off" if missing else choose_checkpointing(wanted, device, base.family).on
    weights = next(base.unet.parameters()).dtype
    precision = _of_another(config.precision) if missing else choose_precision(config.precision, device, weights)
    size, captions = Size(config.data.resolution, config.data.height), 1
    if plan is not None and plan.buckets:
        size = max(plan.buckets, key=lambda bucket: bucket.width * bucket.height)
        captions = len({sample.caption for sample in plan.samples})
    draws = config.run.preview_steps or config.run.sample_every_n_steps or config.run.sample_every_n_epochs
    preview = preview_size(config) if draws else None
    return account(config, base, device.type, precision, size=size, checkpointing=on, captions=captions, preview=preview)


def _of_another(config: PrecisionConfig) -> Precision:
    """The precision for a GPU that is not present."""
    name = "bf16" if config.mixed_precision == "auto" else config.mixed_precision
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]
    return Precision(name, dtype, dtype if config.full_fp16 or config.full_bf16 else torch.float32)


def table(found: Account) -> str:
    """The account as lines of text, in GiB."""
    parts = {**found.weights, **found.adapters, "contexts of captions": found.caches}
    lines = [found.title, "", *(_line(name, size) for name, size in parts.items() if size)]
    lines += ["", "a training step, on top of these", _line("  kept for backward", found.kept)]
    lines += [_line("  gradients of the LoRA", found.gradients)]
    lines += [_line("  working memory", found.phases[STEP] - found.kept - found.gradients), "", "the whole while"]
    lines += [_line(f"  {name}", size) for name, size in found.peaks.items()]
    return "\n".join([*lines, "", _line("peak", found.peak)])


def short(found: Account) -> str:
    """The peak and its largest parts, in one sentence."""
    parts = {**found.weights, **found.adapters, found.largest: found.phases[found.largest]}
    largest = sorted(parts.items(), key=lambda part: -part[1])[:SHOWN]
    told = ", ".join(f"{name} {size / GB:.1f}" for name, size in largest)
    return f"at most {found.peak / GB:.1f} GB, while {found.largest}: {told}; {found.added / GB:.1f} GB more than the model alone"


def as_json(found: Account) -> dict[str, object]:
    """The account in bytes, for JSON."""
    return {
        "title": found.title,
        "weights": found.weights,
        "adapters": {name: size for name, size in found.adapters.items() if size},
        "gradients": found.gradients,
        "contexts": found.caches,
        "kept_for_backward": found.kept,
        "phases": found.peaks,
        "peak": found.peak,
        "added": found.added,
    }


def _line(name: str, size: int) -> str:
    return f"{name:34}{size / GB:8.2f} GB"
