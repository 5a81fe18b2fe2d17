"""The precision of a run, and autocast for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from lib_lora.config.precision import MixedPrecision, PrecisionConfig, SavePrecision
from lib_lora.errors import ConfigError

FILE_DTYPES: dict[SavePrecision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "float": torch.float32}


@dataclass(frozen=True)
class Precision:
    """`name` as in sd-scripts (no, fp16, bf16), `dtype` of the autocast computation, and dtype `weights` of the adapters.

    `fp8_base`: the host stores its weights in 8 bits; autocast casts them to `dtype` when they are used.
    """

    name: str
    dtype: torch.dtype
    weights: torch.dtype = torch.float32
    reason: str = ""
    fp8_base: bool = False

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled: fp16 gradients underflow otherwise."""
        return self.dtype == torch.float16

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """A new autocast context for one forward pass; a null context in full precision."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(device.type, dtype=self.dtype)


def _has_bf16(device: torch.device) -> bool:
    """Whether the GPU supports bf16 natively; newer torch also counts slow emulation."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8


def choose_precision(config: PrecisionConfig, device: torch.device, weights: torch.dtype = torch.float32) -> Precision:
    """The precision of a run on `device` with a base model of dtype `weights`; `auto` is resolved here, with the reason.

    Raises:
        ConfigError: the device or the model does not support it.
    """
    wanted, reason = config.mixed_precision, ""
    if wanted == "auto":
        wanted, reason = _best(device, weights)
    start = f"Mixed precision (mixed_precision): got {wanted}, "
    if wanted == "no" and weights != torch.float32:
        kind = str(weights).removeprefix("torch.")
        raise ConfigError([start + f"but the model is loaded in {kind}; choose fp16 or bf16."])
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError([start + "which a CPU does not support; choose no."])
    if wanted == "bf16" and device.type == "cuda" and not _has_bf16(device):
        raise ConfigError([start + "which this GPU does not support; choose fp16."])
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[wanted]
    full = config.full_fp16 or config.full_bf16
    return Precision(wanted, dtype, dtype if full else torch.float32, reason, weights.itemsize == 1)


def _best(device: torch.device, weights: torch.dtype) -> tuple[MixedPrecision, str]:
    """The precision that `auto` selects, and why."""
    if device.type == "cpu" and weights == torch.float32:
        return "no", "it is exact, and a CPU has enough memory"
    if device.type == "cpu":
        return "bf16", "the model is not loaded in full precision"
    if _has_bf16(device):
        return "bf16", "the GPU supports it, and it does not overflow"
    return "fp16", "the GPU does not support bf16"
