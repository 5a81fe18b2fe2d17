"""The layers of the U-Net's convolutional blocks, which are trained too when convolutions have a rank (LoCon).

As kohya `networks/lora.py` UNET_TARGET_REPLACE_MODULE_CONV2D_3X3: every Linear and Conv2d of ResnetBlock2D, Downsample2D and
Upsample2D. What files call them: `model/layer_names/`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from lib_lora.model.base import BaseModel, Target
from lib_lora.model.layer_names.unet import place_of, unet_name

_BLOCKS = ("ResnetBlock2D", "Downsample2D", "Upsample2D", "ResBlock", "Downsample", "Upsample")


def adaptable(base: BaseModel) -> list[Target]:
    """Every layer that any LoRA file of this model family may change, and that can be trained here."""
    return base.targets() + conv_targets(base.unet)


def conv_targets(unet: nn.Module) -> list[Target]:
    """The targets of a U-Net of ldm's or diffusers' classes, beside those of its transformers."""
    xl = is_of_three_levels(unet)
    return [Target(unet_name(path, xl=xl), layer, "unet") for path, layer in _layers(unet)]


def further_targets(base: BaseModel) -> list[Target]:
    """Layers of the U-Net that files may change and that are not trained here: its ends and the embeddings of time and size."""
    xl = is_of_three_levels(base.unet)
    paths = {path: layer for path, layer in base.unet.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    places = {path: place_of(path.replace(".", "_")) for path in paths}
    return [
        Target(unet_name(path, xl=xl), paths[path], "unet") for path, place in places.items() if place and place.kind == "end"
    ]


def _layers(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in unet.named_modules():
        if type(module).__name__ in _BLOCKS:
            for inner, layer in module.named_modules():
                if isinstance(layer, (nn.Linear, nn.Conv2d)):
                    yield f"{path}.{inner}", layer


def is_of_three_levels(unet: nn.Module) -> bool:
    """Whether the U-Net has SDXL's three resolutions; SD 1.x and 2.x have four."""
    blocks = getattr(unet, "down_blocks", None)
    return len(blocks if blocks is not None else unet.get_submodule("input_blocks")) in (3, 9)  # type: ignore[arg-type]
