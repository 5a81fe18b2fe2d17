"""Which layers get an adapter, and their names in a LoRA file.

Every Linear and 1×1 convolution inside the U-Net's transformers, and every Linear of the text encoder's layers (kohya
`networks/lora.py`, UNET_TARGET_REPLACE_MODULE); if convolutions have a rank (LoCon), also every Linear and Conv2d of
ResnetBlock2D, Downsample2D and Upsample2D (UNET_TARGET_REPLACE_MODULE_CONV2D_3X3). Names in files: `model/layer_names/`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
from torch import nn

from lib_lora.families.family import Family
from lib_lora.model.base import BaseModel, Target, is_layer, is_linear
from lib_lora.model.layer_names.unet import place_of, unet_name
from lib_lora.model.text_encoders import clip_core

_TRANSFORMERS = ("SpatialTransformer", "Transformer2DModel")  # of ldm and sgm, and of diffusers
_BLOCKS = ("ResnetBlock2D", "Downsample2D", "Upsample2D", "ResBlock", "Downsample", "Upsample")


def fitted(targets: Iterable[Target], state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A file's tensors, with matrices and magnitudes reshaped to the number of dimensions of their layer.

    proj_in and proj_out of SD 2.x are Linears, which sd-scripts makes 1×1 convolutions; both forms mean the same. LyCORIS' DyLoRA
    folds a larger kernel into the inputs of lora_down.
    """
    modules = {target.name: target.module for target in targets}
    return {key: _fitted(*key.partition(".")[::2], value, modules) for key, value in state.items()}


def _fitted(name: str, end: str, value: torch.Tensor, modules: Mapping[str, nn.Module]) -> torch.Tensor:
    module = modules.get(name) if end in ("lora_down.weight", "lora_up.weight", "dora_scale") else None
    if is_linear(module) and value.dim() == 4 and value.shape[2:] == (1, 1):
        return value[..., 0, 0]
    if not isinstance(module, nn.Conv2d) or value.dim() != 2:
        return value
    shape = module.weight.shape[1:]
    if end == "lora_down.weight" and module.kernel_size != (1, 1) and value.shape[1] == shape.numel():
        return value.reshape(len(value), *shape)
    return value[..., None, None] if end == "lora_up.weight" or module.kernel_size == (1, 1) else value


def text_encoder_targets(text_encoder: nn.Module, prefix: str = "lora_te") -> list[Target]:
    """The targets of transformers' CLIPTextModel, named `lora_te_text_model_encoder_layers_…`."""
    layers = clip_core(text_encoder).encoder
    assert isinstance(layers, nn.Module)
    return [
        Target(f"{prefix}_text_model_encoder_{path.replace('.', '_')}", module, "text_encoder")
        for path, module in layers.named_modules()
        if is_linear(module)
    ]


def unet_targets(unet: nn.Module, family: Family) -> list[Target]:
    """The targets of a U-Net of ldm's or diffusers' classes, with the names and order of kohya's files."""
    found = [
        Target(unet_name(path, family), layer, "unet")
        for path, layer in _layers(unet, _TRANSFORMERS)
        if is_linear(layer) or layer.kernel_size == (1, 1)
    ]
    order = ("input", "middle", "output") if family.unet.names == "ldm" else ("down", "up", "mid")
    return sorted(found, key=lambda target: order.index(target.name.removeprefix("lora_unet_").split("_")[0]))


def adaptable(base: BaseModel) -> list[Target]:
    """Every layer that a LoRA file of this model family may change and that can be trained here."""
    return base.targets() + conv_targets(base.unet, base.family)


def conv_targets(unet: nn.Module, family: Family) -> list[Target]:
    """The targets of a U-Net of ldm's or diffusers' classes outside its transformers."""
    return [Target(unet_name(path, family), layer, "unet") for path, layer in _layers(unet, _BLOCKS)]


def further_targets(base: BaseModel) -> list[Target]:
    """U-Net layers that files may change but that are not trained here: first, last, and the embeddings of time and size."""
    paths = {path: layer for path, layer in base.unet.named_modules() if is_layer(layer)}
    places = {path: place_of(path.replace(".", "_")) for path in paths}
    ends = [path for path, place in places.items() if place and place.kind == "end"]
    return [Target(unet_name(path, base.family), paths[path], "unet") for path in ends]


def _layers(unet: nn.Module, blocks: Collection[str]) -> Iterator[tuple[str, nn.Module]]:
    """Path and module of every layer inside modules of the classes `blocks`."""
    for path, module in unet.named_modules():
        if type(module).__name__ in blocks:
            for inner, layer in module.named_modules():
                if is_layer(layer):
                    yield f"{path}.{inner}", layer
