"""Block, rank, alpha and learning rate factor of one layer, from its name in a LoRA file and the settings.

As sd-scripts `networks/lora.py`: get_block_index. Pure functions of names and options.
"""

from __future__ import annotations

import re
from typing import Literal

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.blocks import SD, XL, block_alphas, block_ranks, conv_alphas, conv_ranks, rate_factors
from lib_lora.families.family import Layout
from lib_lora.model.layer_names.further import is_further

_UP_OR_DOWN = re.compile(r"lora_unet_(up|down)_blocks_(\d{1,3})_(attentions|resnets|upsamplers|downsamplers)_(\d{1,3})_")
_CONV_BLOCK = re.compile(  # a layer of a convolutional block, under diffusers' and ldm's names; groups 2 to 4: a 3×3 convolution
    r"lora_unet_.*_(resnets_\d+_(?:time_emb_proj|conv_shortcut|(conv1|conv2))|(?:down|up)samplers_0_(conv)"
    r"|\d+_(?:emb_layers_1|skip_connection)|\d+_(in_layers_2|out_layers_3|op|conv))"
)
_OF_TYPE = {  # LyCORIS' preset ia3, but all of a text encoder's attention: of open_clip's the webui reads all four layers or none
    "ia3": re.compile(r"lora_unet_.*_(to_k|to_v|ff_net_2)|lora_te\d?_.*_(q_proj|k_proj|v_proj|out_proj|mlp_fc2)"),
    "glora": re.compile(r"lora_unet_.*_transformer_blocks_.*|lora_te\d?_.*"),  # the webui's loader supports only Linears
}
_OF_SDXL = re.compile(r"lora_unet_(input|middle|output)_blocks?_(\d{1,3})_")
_FIRST_OF_SDXL = {"input": 1, "middle": 10, "output": 13}


def layout_of(name: str) -> Layout:
    """The block layout of the U-Net that has a layer of this name; SDXL's names are ldm's."""
    return XL if _OF_SDXL.match(name) else SD


def block_index(name: str) -> int | None:
    """Block index of a U-Net layer, named as in a LoRA file: 0 to 24, for SDXL 0 to 22; None for a text encoder's layer.

    Also None for a name that lies in no block of its family.
    """
    index = _block_index(name)
    return None if index is None or index >= layout_of(name).blocks or is_further(name) else index


def _block_index(name: str) -> int | None:
    sdxl = _OF_SDXL.match(name)
    if sdxl:
        return _FIRST_OF_SDXL[sdxl[1]] + int(sdxl[2])
    match = _UP_OR_DOWN.match(name)
    if match:
        first = 1 if match[1] == "down" else SD.side + 1
        return first + 3 * int(match[2]) + (2 if match[3].endswith("samplers") else int(match[4]))
    return SD.side if name.startswith("lora_unet_mid_block_") else None


def rank_and_alpha(name: str, adapter: AdapterConfig) -> tuple[int, float]:
    """Rank and alpha of the adapter of the layer `name`; rank 0 if its block is not trained.

    Types without a scale get the alpha that states this in a file; an OFT's alpha is a limit, and 0 means none.
    """
    rank, alpha = _rank_and_alpha(name, adapter)
    unscaled = {"diag-oft": 0.0, "ia3": 1.0, "glora": float(rank)}
    return rank, unscaled.get(adapter.adapter_type, alpha)


def _rank_and_alpha(name: str, adapter: AdapterConfig) -> tuple[int, float]:
    index, place, adapter = block_index(name), conv_place(name), adapter.as_read
    if (place and not adapter.trains_convolutions) or not is_chosen(name, adapter):
        return 0, 0.0
    if index is None:
        return (adapter.conv_dim, adapter.conv_alpha or adapter.conv_dim) if place == "conv" else (adapter.rank, adapter.alpha)
    layout = layout_of(name)
    rank = (conv_ranks if place == "conv" else block_ranks)(adapter, layout)[index]
    alpha = (conv_alphas if place == "conv" else block_alphas)(adapter, layout)[index]
    return rank if rate_factor(name, adapter) > 0 else 0, alpha or rank  # an alpha of 0 means the rank, as kohya's


def is_chosen(name: str, adapter: AdapterConfig) -> bool:
    """Whether the settings train the layer `name`, and the adapter type supports it."""
    own = _OF_TYPE.get(adapter.adapter_type)
    if is_further(name) or (own is not None and not own.fullmatch(name)):
        return False
    places = {"all": ("",), "attention": ("_attn1_", "_attn2_"), "cross-attention": ("_attn2_",)}[adapter.train_layers]
    return not name.startswith("lora_unet_") or any(place in name for place in places)


def rate_factor(name: str, adapter: AdapterConfig) -> float:
    """Factor on the learning rate of the layer `name`."""
    index, factors = block_index(name), rate_factors(adapter, layout_of(name))
    return 1.0 if index is None or factors is None else factors[index]


def conv_place(name: str) -> Literal["conv", "beside", ""]:
    """Whether the layer is a 3×3 convolution ("conv"), another layer of a convolutional block ("beside"), or neither ("")."""
    match = _CONV_BLOCK.fullmatch(name)
    if not match:
        return ""
    return "conv" if match[2] or match[3] or match[4] else "beside"
