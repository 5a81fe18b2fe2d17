"""The layers of the U-Net's convolutional blocks, which are trained too when convolutions have a rank (LoCon).

As kohya `networks/lora.py` UNET_TARGET_REPLACE_MODULE_CONV2D_3X3: every Linear and Conv2d of ResnetBlock2D, Downsample2D and
Upsample2D. What files call them: `model/layer_names/`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from lib_lora.families.family import Family
from lib_lora.model.base import BaseModel, Target
from lib_lora.model.layer_kinds import is_layer
from lib_lora.model.layer_names.unet import place_of, unet_name

_BLOCKS = ("ResnetBlock2D", "Downsample2D", "Upsample2D", "ResBlock", "Downsample", "Upsample")


def adaptable(base: BaseModel) -> list[Target]:
    """Every layer that any LoRA file of this model family may change, and that can be trained here."""
    return base.targets() + conv_targets(base.unet, base.family)


def conv_targets(unet: nn.Module, family: Family) -> list[Target]:
    """The targets of a U-Net of ldm's or diffusers' classes, beside those of its transformers."""
    return [Target(unet_name(path, family), layer, "unet") for path, layer in _layers(unet)]


def further_targets(base: BaseModel) -> list[Target]:
    """Layers of the U-Net that files may change and that are not trained here: its ends and the embeddings of time and size."""
    paths = {path: layer for path, layer in base.unet.named_modules() if is_layer(layer)}
    places = {path: place_of(path.replace(".", "_")) for path in paths}
    ends = [path for path, place in places.items() if place and place.kind == "end"]
    return [Target(unet_name(path, base.family), paths[path], "unet") for path in ends]


def _layers(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in unet.named_modules():
        if type(module).__name__ in _BLOCKS:
            for inner, layer in module.named_modules():
                if is_layer(layer):
                    yield f"{path}.{inner}", layer
