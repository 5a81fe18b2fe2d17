"""The blocks of a U-Net and their ranks, alphas and rate factors.

SD 1.x and 2.x have 25: 12 down, the middle, 12 up. SDXL has 23: the embeddings, 9 down, 3 in the middle, 9 up, the end;
embeddings and end have no layer that is trained. The names of layers say which of both they belong to.
3×3 convolutions have ranks and alphas of their own; the other layers of their blocks have the ordinary ones.
As sd-scripts `networks/lora.py`: get_block_index, get_block_dims_and_alphas, parse_block_lr_kwargs, remove_block_dims_and_alphas.
Numbers of layers, not of the model: everything here is a pure function of names and options.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.options import shown
from lib_lora.errors import ConfigError
from lib_lora.families.family import Layout
from lib_lora.families.sd1 import SD1
from lib_lora.families.sdxl import SDXL
from lib_lora.model.layer_names.further import is_further

MOST_RANK = 1024


SD, XL = SD1.unet.layout, SDXL.unet.layout
_UP_OR_DOWN = re.compile(r"lora_unet_(up|down)_blocks_(\d{1,3})_(attentions|resnets|upsamplers|downsamplers)_(\d{1,3})_")
_CONV_BLOCK = re.compile(  # a layer of a convolutional block, under diffusers' and ldm's names; group 2 or 4: a 3×3 convolution
    r"lora_unet_.*_(resnets_\d+_(?:time_emb_proj|conv_shortcut|(conv1|conv2))|(?:down|up)samplers_0_(conv)"
    r"|\d+_(?:emb_layers_1|skip_connection)|\d+_(in_layers_2|out_layers_3|op|conv))"
)
_OF_TYPE = {  # LyCORIS' preset ia3, and of the text encoder all of an attention: of open_clip's the webui reads all four or none
    "ia3": re.compile(r"lora_unet_.*_(to_k|to_v|ff_net_2)|lora_te\d?_.*_(q_proj|k_proj|v_proj|out_proj|mlp_fc2)"),
    "glora": re.compile(r"lora_unet_.*_transformer_blocks_.*|lora_te\d?_.*"),  # its loader has Linears alone
}
_OF_SDXL = re.compile(r"lora_unet_(input|middle|output)_blocks?_(\d{1,3})_")
_FIRST_OF_SDXL = {"input": 1, "middle": 10, "output": 13}
SHAPES = ("cosine", "sine", "linear", "reverse_linear", "zeros")


def layout_of(name: str) -> Layout:
    """The blocks of the U-Net that a layer of this name is in."""
    return XL if is_of_sdxl(name) else SD


def block_index(name: str) -> int | None:
    """0 to 24 for a layer of the U-Net, named as in a LoRA file, 0 to 22 for one of SDXL's; None for one of a text encoder.

    None, too, for a name that lies in no block of the family that has such names.
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


def is_of_sdxl(name: str) -> bool:
    """Whether a layer of a U-Net has one of SDXL's names, which are ldm's."""
    return _OF_SDXL.match(name) is not None


def has_factors(adapter: AdapterConfig) -> bool:
    """Whether blocks have rates of their own."""
    return adapter.has_factors


def rank_and_alpha(name: str, adapter: AdapterConfig) -> tuple[int, float]:
    """What the adapter of the layer `name` is made with; rank 0 where its block is not trained.

    Of types that are not scaled, alpha is what makes a file say so: an OFT's is a limit, and 0 is none.
    """
    rank, alpha = _rank_and_alpha(name, adapter)
    unscaled = {"diag-oft": 0.0, "ia3": 1.0, "glora": float(rank)}
    return rank, unscaled.get(adapter.adapter_type, alpha)


def _rank_and_alpha(name: str, adapter: AdapterConfig) -> tuple[int, float]:
    index, place, adapter = block_index(name), conv_place(name), adapter.as_read
    if (place and not trains_convolutions(adapter)) or not is_chosen(name, adapter):
        return 0, 0.0
    if index is None:
        return (adapter.conv_dim, adapter.conv_alpha or adapter.conv_dim) if place == "conv" else (adapter.rank, adapter.alpha)
    layout = layout_of(name)
    rank = (conv_ranks if place == "conv" else block_ranks)(adapter, layout)[index]
    alpha = (conv_alphas if place == "conv" else block_alphas)(adapter, layout)[index]
    return rank if rate_factor(name, adapter) > 0 else 0, alpha or rank  # an alpha of 0 means the rank, as kohya's


def is_chosen(name: str, adapter: AdapterConfig) -> bool:
    """Whether the layer `name` is of the layers of the U-Net that are trained, and of those that the type can have."""
    own = _OF_TYPE.get(adapter.adapter_type)
    if is_further(name) or (own is not None and not own.fullmatch(name)):
        return False
    places = {"all": ("",), "attention": ("_attn1_", "_attn2_"), "cross-attention": ("_attn2_",)}[adapter.train_layers]
    return not name.startswith("lora_unet_") or any(place in name for place in places)


def rate_factor(name: str, adapter: AdapterConfig) -> float:
    """The factor on the learning rate of the layer `name`."""
    index, factors = block_index(name), rate_factors(adapter, layout_of(name))
    return 1.0 if index is None or factors is None else factors[index]


def conv_place(name: str) -> Literal["conv", "beside", ""]:
    """Whether the layer `name` is a 3×3 convolution, or another layer of a convolutional block, or in none."""
    match = _CONV_BLOCK.fullmatch(name)
    if not match:
        return ""
    return "conv" if match[2] or match[3] or match[4] else "beside"


def trains_convolutions(adapter: AdapterConfig) -> bool:
    """Whether the layers of convolutional blocks get adapters at all (LoCon)."""
    return adapter.trains_convolutions


def block_ranks(adapter: AdapterConfig, layout: Layout) -> list[int]:
    """The rank of every block.

    Raises:
        ConfigError: one sentence.
    """
    return _ranks(adapter.block_dims, adapter.rank, layout, "Ranks per block (block_dims)")


def block_alphas(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The alpha of every block.

    Raises:
        ConfigError: one sentence.
    """
    return _alphas(adapter.block_alphas, adapter.alpha, layout, "Alphas per block (block_alphas)")


def conv_ranks(adapter: AdapterConfig, layout: Layout) -> list[int]:
    """The rank of the 3×3 convolutions of every block.

    Raises:
        ConfigError: one sentence.
    """
    return _ranks(adapter.conv_block_dims, adapter.conv_dim, layout, "Ranks of convolutions per block (conv_block_dims)")


def conv_alphas(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The alpha of the 3×3 convolutions of every block.

    Raises:
        ConfigError: one sentence.
    """
    return _alphas(adapter.conv_block_alphas, adapter.conv_alpha, layout, "Alphas of convolutions per block (conv_block_alphas)")


def _ranks(text: str, everywhere: int, layout: Layout, title: str) -> list[int]:
    if not text:
        return [everywhere] * layout.blocks
    start = f"{title}: got {shown(text)}, "
    ranks = [int(value) if value == int(value) else -1 for value in _numbers(text, start)]
    if len(ranks) != layout.blocks or not all(0 <= rank <= MOST_RANK for rank in ranks):
        raise ConfigError([start + f"must be {_counts('blocks')} whole numbers from 0 to {MOST_RANK}, separated by commas."])
    return ranks


def _alphas(text: str, everywhere: float, layout: Layout, title: str) -> list[float]:
    if not text:
        return [everywhere] * layout.blocks
    start = f"{title}: got {shown(text)}, "
    alphas = _numbers(text, start)
    if len(alphas) != layout.blocks or min(alphas) < 0:
        raise ConfigError([start + f"must be {_counts('blocks')} numbers, at least 0, separated by commas."])
    return alphas


def rate_factors(adapter: AdapterConfig, layout: Layout) -> list[float] | None:
    """The factor on the U-Net's learning rate of every block; 0 up to the smallest factor. None where none is given.

    Raises:
        ConfigError: one sentence.
    """
    if not has_factors(adapter):
        return None
    parts = (
        (adapter.down_lr_weight, down_factors(adapter, layout)),
        (adapter.mid_lr_weight, middle_factors(adapter, layout)),
        (adapter.up_lr_weight, up_factors(adapter, layout)),
    )
    least = adapter.block_lr_zero_threshold  # of what was given alone
    factors = [0.0 if text and factor <= least else factor for text, part in parts for factor in part]
    return [1.0] * layout.ends + factors + [1.0] * layout.ends


def down_factors(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The factors down, before the smallest one is looked at."""
    return _side(adapter.down_lr_weight, layout, "Rate factors, down (down_lr_weight)")


def up_factors(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The factors up."""
    return _side(adapter.up_lr_weight, layout, "Rate factors, up (up_lr_weight)")


def middle_factors(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The factors of the middle; a missing end is 1."""
    if not adapter.mid_lr_weight:
        return [1.0] * layout.middle
    start = f"Rate factor, middle (mid_lr_weight): got {shown(adapter.mid_lr_weight)}, "
    factors = _numbers(adapter.mid_lr_weight, start, empty="0")
    if len(factors) > layout.middle or min(factors) < 0:
        raise ConfigError([start + f"must be one number, or up to {XL.middle} for SDXL, at least 0."])
    return factors + [1.0] * (layout.middle - len(factors))


def _side(text: str, layout: Layout, title: str) -> list[float]:
    """Factors of one side: a list, whose missing end is 1 and whose empty places are 0, or a shape's name and what is added."""
    if not text:
        return [1.0] * layout.side
    start = f"{title}: got {shown(text)}, "
    if "," in text:
        factors = _numbers(text, start, empty="0")
        if len(factors) > layout.side or min(factors) < 0:
            raise ConfigError([start + f"must be at most {_counts('side')} numbers, at least 0."])
        return factors + [1.0] * (layout.side - len(factors))
    name, plus, added = text.partition("+")
    if name.strip() not in SHAPES:
        raise ConfigError([start + f"must be {_counts('side')} numbers separated by commas, or one of {', '.join(SHAPES)}."])
    offset = _numbers(added, start)[0] if plus else 0.0
    if offset < 0:
        raise ConfigError([start + "but what is added must be at least 0."])
    return [factor + offset for factor in _shape(name.strip(), layout.side)]


def _shape(name: str, side: int) -> list[float]:
    """A named course of factors over the blocks of a side (sd-scripts get_block_lr_weight)."""
    rising = [i / (side - 1) for i in range(side)]
    sine = [math.sin(math.pi / 2 * x) for x in rising]
    return {"cosine": sine[::-1], "sine": sine, "linear": rising, "reverse_linear": rising[::-1], "zeros": [0.0] * side}[name]


def _counts(part: Literal["blocks", "side"]) -> str:
    """How many numbers are wanted, in words."""
    return f"{getattr(SD, part)} (for SDXL {getattr(XL, part)})"


def _numbers(text: str, start: str, empty: str = "") -> list[float]:
    try:
        numbers = [float(part.strip() or empty) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError([start + "which is not numbers separated by commas."]) from error
    if not all(math.isfinite(number) for number in numbers):
        raise ConfigError([start + "which has a number that is not finite."])
    return numbers
