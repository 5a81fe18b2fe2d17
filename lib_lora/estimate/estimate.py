"""The memory account of a run: what it holds, what each phase adds, and which phase needs most; in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.config.precision import PrecisionConfig
from lib_lora.config.settled import Settled
from lib_lora.data.sizes import Size
from lib_lora.estimate.meta import meta_model
from lib_lora.estimate.phases import Counter, tensor_bytes
from lib_lora.model.adapter import Adapter, parameters
from lib_lora.model.adapter_types import is_learning
from lib_lora.model.base import BaseModel
from lib_lora.model.checkpointing import choose_checkpointing
from lib_lora.output.preview import preview_size
from lib_lora.plan import Plan
from lib_lora.training.initial_adapters import initial_adapters, merged_adapters
from lib_lora.training.optimizer import make_optimizer
from lib_lora.training.precision import Precision, choose_precision

GB = 2**30
ENCODING, STEP, DRAWING = "encoding pictures", "training", "drawing a picture"
SHOWN = 3  # parts in a short text


@dataclass(frozen=True)
class Account:
    """The memory of a run, in bytes.

    `weights`: of the model, with the VAE in fp32, as during a run. `adapters`: the LoRA, its optimizer state, EMA. `gradients`:
    of the adapters. `caches`: contexts of captions that are cached on the device. `kept`: activations that a step keeps for
    backward. `phases`: peak of each phase on top of weights, adapters and caches; the step's includes `kept` and `gradients`.
    `before`: phases before the first step.
    """

    title: str
    weights: dict[str, int]
    adapters: dict[str, int]
    gradients: int
    caches: int
    kept: int
    phases: dict[str, int]
    before: tuple[str, ...] = ()

    @property
    def peaks(self) -> dict[str, int]:
        """Peak of each phase, including weights. Before the first step there are no adapters yet."""
        held, more = sum(self.weights.values()), sum(self.adapters.values()) + self.caches
        return {name: held + added + (0 if name in self.before else more) for name, added in self.phases.items()}

    @property
    def largest(self) -> str:
        """The phase with the highest peak."""
        return max(self.peaks, key=self.peaks.__getitem__)

    @property
    def peak(self) -> int:
        """Peak of the run."""
        return self.peaks[self.largest]

    @property
    def added(self) -> int:
        """Peak of the run on top of the weights."""
        return self.peak - sum(self.weights.values())


def account(
    config: Settled,
    base: BaseModel,
    device_type: str,
    precision: Precision,
    *,
    size: Size,
    checkpointing: bool,
    captions: int = 0,
    preview: Size | None = None,
) -> Account:
    """Count the memory of a run of `config` on `base`, which is not changed.

    Args:
        config: all settings.
        base: a loaded model, or one on the meta device.
        device_type: cuda or cpu, where it would run.
        precision: of the run.
        size: of the largest training images.
        checkpointing: whether gradient checkpointing is on.
        captions: number of different captions.
        preview: size of samples; None if none are made.
    """
    alike = meta_model(base)
    adapters, frozen = initial_adapters(config, alike, precision.weights), merged_adapters(config, alike)
    autocast = None if precision.dtype == torch.float32 else precision.dtype
    counter = Counter(config, alike, device_type, autocast, adapters, frozen)
    batch = config.data.batch_size
    step = counter.step(size, batch, checkpointing=checkpointing)
    phases = {ENCODING: counter.encoding(size, config.data.vae_batch_size), STEP: step.peak}
    if preview is not None:
        phases[DRAWING] = counter.drawing(preview)
    learning = [parameter for parameter in parameters(adapters) if parameter.requires_grad]
    named = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[precision.dtype]
    return Account(
        f"{base.family.name}, {size}, batch {batch}, {named}, gradient checkpointing {'on' if checkpointing else 'off'}, "
        f"{config.optimizer.optimizer}, {device_type}",
        {
            "U-Net": module_bytes(alike.unet),
            "text encoders": sum(module_bytes(encoder.module) for encoder in alike.text_encoders),
            "VAE": module_bytes(alike.vae),
        },
        {
            "LoRA": tensor_bytes(parameters(adapters)),
            "LoRAs merged first": tensor_bytes(parameters(frozen)),
            "optimizer's state": state_bytes(config, adapters, device_type),
            "moving average": 4 * sum(value.numel() for value in learning) if config.optimizer.ema_decay > 0 else 0,
        },
        tensor_bytes(learning),
        0 if counter.trains_text else captions * counter.context_bytes(),
        step.kept,
        phases,
        (ENCODING,) if config.data.cache_latents else (),
    )


def module_bytes(module: nn.Module) -> int:
    """Bytes of a module's weights and buffers."""
    return tensor_bytes([*module.parameters(), *module.buffers()])


def state_bytes(config: Settled, adapters: Sequence[Adapter], device_type: str) -> int:
    """Bytes of the optimizer state of the adapters: it is created on the CPU and stepped once, on one parameter of each shape.

    For CUDA-only optimizers it is known: per value and state one byte in 8 bits (from 4096 values on), else four.
    """
    shapes: dict[tuple[torch.Size, torch.dtype], int] = {}
    for value in parameters([adapter for adapter in adapters if is_learning(adapter)]):
        shapes[value.shape, value.dtype] = shapes.get((value.shape, value.dtype), 0) + 1
    spec = optimizer_spec(config.optimizer.optimizer)
    if spec.needs_cuda:
        states = 2 if "Adam" in spec.attribute else 1
        return sum(states * count * shape.numel() * (1 if "8bit" in spec.attribute and shape.numel() >= 4096 else 4)
                   for (shape, _), count in shapes.items())  # fmt: skip
    rate = config.optimizer.first_rate
    total = 0
    for (shape, dtype), count in shapes.items():
        weight = nn.Parameter(torch.zeros(shape, dtype=dtype))
        optimizer = make_optimizer(config.optimizer, [{"params": [weight], "lr": rate}])
        if spec.schedule_free:
            optimizer.train()  # type: ignore[attr-defined]
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        state = optimizer.state.get(weight, {})
        total += count * tensor_bytes(value for value in state.values() if isinstance(value, torch.Tensor))
    return total


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
