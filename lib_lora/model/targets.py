"""Which layers get a pair, and what a LoRA file calls them (kohya `networks/lora.py`, UNET_TARGET_REPLACE_MODULE).

Every Linear and 1×1 convolution inside the U-Net's transformers, and every Linear of the text encoder's layers. SD 1.x files
use diffusers' names for the U-Net; a U-Net of ldm's classes is translated by position (two residual blocks per level).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import nn

from lib_lora.model.base import Target
from lib_lora.model.text_encoders import clip_core

_LDM_TRANSFORMER = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.1$|(middle_block)\.1$")

_DIFFUSERS_TRANSFORMER = re.compile(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)|(mid_block)\.attentions\.0")


def fitted(targets: Iterable[Target], state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A file's halves in as many dimensions as the layers have.

    Around the transformers of SD 2.x are Linears, which sd-scripts makes 1×1 convolutions; files of both kinds mean the same.
    """
    modules = {target.name: target.module for target in targets}
    found = {}
    for key, value in state.items():
        name, _, end = key.partition(".")
        module = modules.get(name) if end in ("lora_down.weight", "lora_up.weight") else None
        if isinstance(module, nn.Linear) and value.dim() == 4 and value.shape[2:] == (1, 1):
            value = value[..., 0, 0]
        elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and value.dim() == 2:
            value = value[..., None, None]
        found[key] = value
    return found


def text_encoder_targets(text_encoder: nn.Module, prefix: str = "lora_te") -> list[Target]:
    """The targets of transformers' CLIPTextModel, named `lora_te_text_model_encoder_layers_…`."""
    layers = clip_core(text_encoder).encoder
    assert isinstance(layers, nn.Module)
    return [
        Target(f"{prefix}_text_model_encoder_{path.replace('.', '_')}", module, "text_encoder")
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


def sdxl_unet_targets(unet: nn.Module) -> list[Target]:
    """The targets of SDXL's U-Net, of ldm's or of diffusers' class, under ldm's names and in ldm's order."""
    found = [*_unet_targets(unet, "SpatialTransformer", lambda path: path)]
    found += _unet_targets(unet, "Transformer2DModel", _diffusers_to_ldm)
    rank = {"input": 0, "middle": 1, "output": 2}
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


def _diffusers_to_ldm(path: str) -> str:
    """`down_blocks.1.attentions.0` -> `input_blocks.4.1`.

    Raises:
        ValueError: the path is no place where a U-Net of two residual blocks a level has a transformer.
    """
    match = _DIFFUSERS_TRANSFORMER.fullmatch(path)
    if not match:
        raise ValueError(f"no transformer of SDXL lies at {path!r}")
    if match[4]:
        return "middle_block.1"
    number = 3 * int(match[2]) + int(match[3])
    return f"input_blocks.{number + 1}.1" if match[1] == "down" else f"output_blocks.{number}.1"
