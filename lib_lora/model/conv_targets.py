"""The layers of the U-Net's convolutional blocks, which are trained too when convolutions have a rank (LoCon).

As kohya `networks/lora.py` UNET_TARGET_REPLACE_MODULE_CONV2D_3X3: every Linear and Conv2d of ResnetBlock2D, Downsample2D and
Upsample2D. Files of SD 1.x and 2.x have diffusers' names, files of SDXL have ldm's; a tree of the other kind is translated by
position.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from lib_lora.model.base import BaseModel, Target

_BLOCKS = ("ResnetBlock2D", "Downsample2D", "Upsample2D", "ResBlock", "Downsample", "Upsample")
_INNER = {  # inside a residual block: ldm -> diffusers
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTER = {diffusers: ldm for ldm, diffusers in _INNER.items()}
_LDM = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.+)|middle_block\.(\d+)\.(.+)")
_DIFFUSERS = re.compile(
    r"(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)|mid_block\.resnets\.(\d+)\.(.+)"
)


def adaptable(base: BaseModel) -> list[Target]:
    """Every layer that any LoRA file of this model family may change."""
    return base.targets() + conv_targets(base.unet)


def conv_targets(unet: nn.Module) -> list[Target]:
    """The targets of a U-Net of ldm's or diffusers' classes, beside those of its transformers."""
    ldm = hasattr(unet, "input_blocks")
    sdxl = _levels(unet) == 3
    if ldm:
        return [_target(path if sdxl else ldm_to_diffusers(path), layer) for path, layer in _layers(unet)]
    return [_target(diffusers_to_ldm(path, unet) if sdxl else path, layer) for path, layer in _layers(unet)]


def ldm_to_diffusers(path: str) -> str:
    """`input_blocks.4.0.in_layers.2` -> `down_blocks.1.resnets.0.conv1`, with two residual blocks in a level.

    Raises:
        ValueError: the path is no place of such a layer.
    """
    match = _LDM.fullmatch(path)
    if not match:
        raise ValueError(f"no convolutional block lies at {path!r}")
    if match[5]:
        return f"mid_block.resnets.{int(match[5]) // 2}.{_INNER[match[6]]}"
    number, inner = int(match[2]), match[4]
    if match[1] == "input_blocks":
        level, place = divmod(number - 1, 3)
        return f"down_blocks.{level}." + ("downsamplers.0.conv" if inner == "op" else f"resnets.{place}.{_INNER[inner]}")
    level, place = divmod(number, 3)
    return f"up_blocks.{level}." + ("upsamplers.0.conv" if inner == "conv" else f"resnets.{place}.{_INNER[inner]}")


def diffusers_to_ldm(path: str, unet: nn.Module) -> str:
    """The way back. `unet` is diffusers': an upsampler lies behind the transformer where its block has one.

    Raises:
        ValueError: the path is no place of such a layer.
    """
    match = _DIFFUSERS.fullmatch(path)
    if not match:
        raise ValueError(f"no convolutional block lies at {path!r}")
    if match[6]:
        return f"middle_block.{2 * int(match[6])}.{_OUTER[match[7]]}"
    level, kind = int(match[2]), match[3]
    if kind == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.op"
    if kind == "upsamplers":
        has_transformer = getattr(unet.get_submodule(f"up_blocks.{level}"), "attentions", None) is not None
        return f"output_blocks.{3 * level + 2}.{2 if has_transformer else 1}.conv"
    number = 3 * level + int(match[4]) + (1 if match[1] == "down" else 0)
    return f"{'input' if match[1] == 'down' else 'output'}_blocks.{number}.0.{_OUTER[match[5]]}"


def _target(path: str, layer: nn.Module) -> Target:
    return Target(f"lora_unet_{path.replace('.', '_')}", layer, "unet")


def _layers(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in unet.named_modules():
        if type(module).__name__ in _BLOCKS:
            for inner, layer in module.named_modules():
                if isinstance(layer, (nn.Linear, nn.Conv2d)):
                    yield f"{path}.{inner}", layer


def _levels(unet: nn.Module) -> int:
    """Resolutions of the U-Net: 4 in SD 1.x and 2.x, 3 in SDXL."""
    blocks = getattr(unet, "down_blocks", None)
    if blocks is not None:
        return len(blocks)
    return len(unet.get_submodule("input_blocks")) // 3  # type: ignore[arg-type]
