"""Options of number formats and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib_lora.config.declaration import option

MixedPrecision = Literal["auto", "no", "fp16", "bf16"]
SavePrecision = Literal["fp16", "bf16", "float"]
Checkpointing = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class PrecisionConfig:
    """Number formats and memory."""

    mixed_precision: MixedPrecision = option(
        "auto",
        label="Mixed precision",
        help="auto: bf16 if the device supports it, else fp16 on CUDA and full precision on a CPU.",
    )
    save_precision: SavePrecision = option(
        "fp16",
        label="Save precision",
        affects="files",
        help="Number format of the LoRA file. Most LoRAs use fp16; float doubles the size.",
    )
    full_fp16: bool = option(
        False,
        label="LoRA in fp16",
        metadata="ss_full_fp16",
        help="Trains the LoRA itself in fp16: slightly less memory, and less exact. Needs Mixed precision fp16.",
    )
    full_bf16: bool = option(
        False,
        label="LoRA in bf16",
        help="Trains the LoRA itself in bf16: slightly less memory, and less exact. Needs Mixed precision bf16.",
    )
    gradient_checkpointing: Checkpointing = option(
        "auto",
        label="Gradient checkpointing",
        help="Recomputes activations instead of keeping them: far less memory, about 30 % slower on a CPU. auto: on if memory is "
        "short.",
    )
