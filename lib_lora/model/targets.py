"""Which layers get a pair, and what a LoRA file calls them (kohya `networks/lora.py`, UNET_TARGET_REPLACE_MODULE).

Every Linear and 1×1 convolution inside the U-Net's transformers, and every Linear of the text encoder's layers. SD 1.x files
use diffusers' names for the U-Net; a U-Net of ldm's classes is translated by position (two residual blocks per level).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from torch import nn

from lib_lora.model.base import Target
from lib_lora.model.conditioning import clip_core

_LDM_TRANSFORMER = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.1$|(middle_block)\.1$")


def text_encoder_targets(text_encoder: nn.Module) -> list[Target]:
    """The targets of transformers' CLIPTextModel, named `lora_te_text_model_encoder_layers_…`."""
    layers = clip_core(text_encoder).encoder
    assert isinstance(layers, nn.Module)
    return [
        Target(f"lora_te_text_model_encoder_{path.replace('.', '_')}", module, "text_encoder")
        for path, module in layers.named_modules()
        if isinstance(module, nn.Linear)
    ]


def diffusers_unet_targets(unet: nn.Module) -> list[Target]:
    """The targets of diffusers' UNet2DConditionModel."""
    return list(_unet_targets(unet, "Transformer2DModel", lambda path: path))


def ldm_unet_targets(unet: nn.Module) -> list[Target]:
    """The targets of ldm's UNetModel, under diffusers' names, in diffusers' order (up before middle, as kohya's files)."""
    found = list(_unet_targets(unet, "SpatialTransformer", _ldm_to_diffusers))
    rank = {"down": 0, "up": 1, "mid": 2}
    return sorted(found, key=lambda target: rank[target.name.removeprefix("lora_unet_").split("_")[0]])


def _unet_targets(unet: nn.Module, transformer: str, rename: Callable[[str], str]) -> Iterator[Target]:
    for path, module in unet.named_modules():
        if type(module).__name__ != transformer:
            continue
        for child_path, child in module.named_modules():
            if isinstance(child, nn.Linear) or (isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1)):
                name = f"{rename(path)}.{child_path}".replace(".", "_")
                yield Target(f"lora_unet_{name}", child, "unet")


def _ldm_to_diffusers(path: str) -> str:
    """`input_blocks.4.1` -> `down_blocks.1.attentions.0`.

    Raises:
        ValueError: the path is no place where SD 1.x has a transformer.
    """
    match = _LDM_TRANSFORMER.fullmatch(path)
    if not match:
        raise ValueError(f"no transformer of SD 1.x lies at {path!r}")
    if match[3]:
        return "mid_block.attentions.0"
    number = int(match[2])
    if match[1] == "input_blocks":
        return f"down_blocks.{(number - 1) // 3}.attentions.{(number - 1) % 3}"
    return f"up_blocks.{number // 3}.attentions.{number % 3}"
