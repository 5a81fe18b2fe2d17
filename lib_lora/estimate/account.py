"""The memory account of a run: what is held, what is added, and the phase in which most is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.config.settled import Settled
from lib_lora.data.sizes import Size
from lib_lora.estimate.meta_model import meta_model
from lib_lora.estimate.phases import Counter, tensor_bytes
from lib_lora.model.adapter import Adapter, parameters
from lib_lora.model.adapter_types import is_learning
from lib_lora.model.base import BaseModel
from lib_lora.training.initial_adapters import initial_adapters, merged_adapters
from lib_lora.training.optimizer import make_optimizer
from lib_lora.training.precision import Precision

GB = 2**30
ENCODING, STEP, DRAWING = "encoding pictures", "training", "drawing a picture"


@dataclass(frozen=True)
class Account:
    """Bytes.

    `weights`: what the model holds; the VAE as fp32, as it is during a run. `adapters`: the LoRA, its optimizer's state, a moving
    average. `gradients`: of the adapters. `caches`: contexts of captions that are kept on the device. `kept`: activations that a
    step keeps for backward. `phases`: what each phase needs on top of weights, adapters and caches at most; the step's holds
    `kept` and `gradients`.
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
        """The whole of each phase. Before the first step there are no adapters yet."""
        held, more = sum(self.weights.values()), sum(self.adapters.values()) + self.caches
        return {name: held + added + (0 if name in self.before else more) for name, added in self.phases.items()}

    @property
    def largest(self) -> str:
        """The phase that needs most."""
        return max(self.peaks, key=self.peaks.__getitem__)

    @property
    def peak(self) -> int:
        """What the run needs."""
        return self.peaks[self.largest]

    @property
    def added(self) -> int:
        """What the run needs on top of the weights."""
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
    """Count a run of `config` on `base`, which is only looked at.

    Args:
        config: all settings.
        base: a model in hand, or one without content.
        device_type: cuda or cpu: what it would run on.
        precision: of the run.
        size: of the largest pictures that are trained on.
        checkpointing: whether gradients are checkpointed.
        captions: how many different ones there are.
        preview: size of pictures that are drawn, if any.
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
    trains_text = any(adapter.target.part == "text_encoder" and is_learning(adapter) for adapter in adapters)
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
        0 if trains_text else captions * counter.context_bytes(),
        step.kept,
        phases,
        (ENCODING,) if config.data.cache_latents else (),
    )


def module_bytes(module: nn.Module) -> int:
    """Bytes of a module's weights and buffers."""
    return tensor_bytes([*module.parameters(), *module.buffers()])


def state_bytes(config: Settled, adapters: Sequence[Adapter], device_type: str) -> int:
    """What the optimizer keeps of the adapters: it is made on the CPU and stepped once, on one parameter of every shape.

    Of optimizers with kernels for CUDA alone it is known: one byte a value and state in 8 bits (above 4096 values), else four.
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
