"""Ranks, alphas and rate factors per block of the U-Net, parsed from options.

SD 1.x and 2.x have 25 blocks: 12 down, the middle, 12 up. SDXL has 23: the embeddings, 9 down, 3 in the middle, 9 up, the end.
3×3 convolutions have ranks and alphas of their own. As sd-scripts `networks/lora.py`: get_block_dims_and_alphas,
parse_block_lr_kwargs, get_block_lr_weight, remove_block_dims_and_alphas. What cannot be parsed raises a ConfigError.
"""

from __future__ import annotations

import math
from typing import Literal

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.groups import title
from lib_lora.config.options import shown
from lib_lora.errors import ConfigError
from lib_lora.families.family import Layout
from lib_lora.families.sd1 import SD1
from lib_lora.families.sdxl import SDXL

MOST_RANK = 1024
SD, XL = SD1.unet.layout, SDXL.unet.layout
SHAPES = ("cosine", "sine", "linear", "reverse_linear", "zeros")


def block_ranks(adapter: AdapterConfig, layout: Layout) -> list[int]:
    """The rank of every block."""
    return _ranks(adapter.block_dims, adapter.rank, layout, "block_dims")


def block_alphas(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The alpha of every block."""
    return _alphas(adapter.block_alphas, adapter.alpha, layout, "block_alphas")


def conv_ranks(adapter: AdapterConfig, layout: Layout) -> list[int]:
    """The rank of the 3×3 convolutions of every block."""
    return _ranks(adapter.conv_block_dims, adapter.conv_dim, layout, "conv_block_dims")


def conv_alphas(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The alpha of the 3×3 convolutions of every block."""
    return _alphas(adapter.conv_block_alphas, adapter.conv_alpha, layout, "conv_block_alphas")


def _ranks(text: str, everywhere: int, layout: Layout, option: str) -> list[int]:
    if not text:
        return [everywhere] * layout.blocks
    start = _start(option, text)
    ranks = [int(value) if value == int(value) else -1 for value in _numbers(text, start)]
    if len(ranks) != layout.blocks or not all(0 <= rank <= MOST_RANK for rank in ranks):
        raise ConfigError([start + f"must be {_counts('blocks')} whole numbers from 0 to {MOST_RANK}, separated by commas."])
    return ranks


def _alphas(text: str, everywhere: float, layout: Layout, option: str) -> list[float]:
    if not text:
        return [everywhere] * layout.blocks
    start = _start(option, text)
    alphas = _numbers(text, start)
    if len(alphas) != layout.blocks or min(alphas) < 0:
        raise ConfigError([start + f"must be {_counts('blocks')} numbers, at least 0, separated by commas."])
    return alphas


def rate_factors(adapter: AdapterConfig, layout: Layout) -> list[float] | None:
    """The factor on the U-Net's learning rate of every block, 0 up to the threshold; None if no factor is given."""
    if not adapter.has_factors:
        return None
    parts = (
        (adapter.down_lr_weight, down_factors(adapter, layout)),
        (adapter.mid_lr_weight, middle_factors(adapter, layout)),
        (adapter.up_lr_weight, up_factors(adapter, layout)),
    )
    least = adapter.block_lr_zero_threshold  # for given factors only
    factors = [0.0 if text and factor <= least else factor for text, part in parts for factor in part]
    return [1.0] * layout.ends + factors + [1.0] * layout.ends


def down_factors(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The factors of the blocks down, without the threshold."""
    return _side(adapter.down_lr_weight, layout, "down_lr_weight")


def up_factors(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The factors of the blocks up, likewise."""
    return _side(adapter.up_lr_weight, layout, "up_lr_weight")


def middle_factors(adapter: AdapterConfig, layout: Layout) -> list[float]:
    """The factors of the middle blocks; missing ones at the end are 1."""
    if not adapter.mid_lr_weight:
        return [1.0] * layout.middle
    start = _start("mid_lr_weight", adapter.mid_lr_weight)
    factors = _numbers(adapter.mid_lr_weight, start, empty="0")
    if len(factors) > layout.middle or min(factors) < 0:
        raise ConfigError([start + f"must be one number, or up to {XL.middle} for SDXL, at least 0."])
    return factors + [1.0] * (layout.middle - len(factors))


def _side(text: str, layout: Layout, option: str) -> list[float]:
    """Factors of one side from a list (missing ones at the end are 1, empty ones 0), or from a shape's name and offset."""
    if not text:
        return [1.0] * layout.side
    start = _start(option, text)
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
        raise ConfigError([start + "but the number after + must be at least 0."])
    return [factor + offset for factor in _shape(name.strip(), layout.side)]


def _shape(name: str, side: int) -> list[float]:
    """The factors of a named shape over the blocks of a side (sd-scripts get_block_lr_weight)."""
    rising = [i / (side - 1) for i in range(side)]
    sine = [math.sin(math.pi / 2 * x) for x in rising]
    return {"cosine": sine[::-1], "sine": sine, "linear": rising, "reverse_linear": rising[::-1], "zeros": [0.0] * side}[name]


def _start(option: str, text: str) -> str:
    return f"{title(option)}: got {shown(text)}, "


def _counts(part: Literal["blocks", "side"]) -> str:
    """How many numbers are expected, in words."""
    return f"{getattr(SD, part)} (for SDXL {getattr(XL, part)})"


def _numbers(text: str, start: str, empty: str = "") -> list[float]:
    try:
        numbers = [float(part.strip() or empty) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError([start + "which is not a list of numbers separated by commas."]) from error
    if not all(math.isfinite(number) for number in numbers):
        raise ConfigError([start + "which contains a number that is not finite."])
    return numbers
