"""The layers of a U-Net under ldm's names, under diffusers', and under the internal names, which are kohya's.

Both layouts have two residual blocks in a down level and three in an up level. Files of SD 1.x and 2.x have diffusers' names,
files of SDXL ldm's; a path is translated by its position. Paths are written with underscores, as in kohya's files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lib_lora.families.family import Family, UNet
from lib_lora.families.known import FAMILIES

MOST_LEVELS = max(len(family.unet.channels) for family in FAMILIES)
Kind = Literal["attention", "residual", "down", "up", "end"]
Side = Literal["in", "middle", "out", "ends"]

_RESIDUAL = {  # inside a residual block: ldm -> diffusers
    "in_layers_0": "norm1", "in_layers_2": "conv1", "emb_layers_1": "time_emb_proj", "out_layers_0": "norm2",
    "out_layers_3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
_RESIDUAL_LDM = {diffusers: ldm for ldm, diffusers in _RESIDUAL.items()}
_ENDS = {  # before and after all blocks: ldm -> diffusers
    "input_blocks_0_0": "conv_in", "time_embed_0": "time_embedding_linear_1", "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1", "label_emb_0_2": "add_embedding_linear_2", "out_0": "conv_norm_out",
    "out_2": "conv_out",
}  # fmt: skip
_ENDS_LDM = {diffusers: ldm for ldm, diffusers in _ENDS.items()}
_OF_THE_SIZE = ("add_embedding_linear_1", "add_embedding_linear_2")  # only in U-Nets that read sizes
_ATTENTION = re.compile(
    r"norm|proj_in|proj_out|transformer_blocks_(\d{1,2})_"
    r"(?:norm[123]|attn[12]_(?:to_q|to_k|to_v|to_out_0|to_out)|ff_net_0_proj|ff_net_2)"
)
_LDM = re.compile(r"(input_blocks|output_blocks)_(\d{1,2})_([012])_(.+)|middle_block_([012])_(.+)")
_DIFFUSERS = re.compile(
    r"(down|up)_blocks_(\d)_(attentions|resnets)_([012])_(.+)|mid_block_(attentions|resnets)_([01])_(.+)"
    r"|(?:down_blocks_(\d)_downsamplers|up_blocks_(\d)_upsamplers)_0_conv"
)


@dataclass(frozen=True)
class Place:
    """Position of a layer: the side of the U-Net, the level of the side, and the block of the level.

    `inner`: the layer inside its block, under diffusers' names. `behind`: for an upsampler under ldm's names, whether a
    transformer precedes it; else None.
    """

    side: Side
    level: int
    number: int
    kind: Kind
    inner: str
    behind: bool | None = None

    @property
    def transformer(self) -> int:
        """Index of the transformer in its attention block; 0 for the layers around the transformers."""
        match = _ATTENTION.fullmatch(self.inner) if self.kind == "attention" else None
        return int(match[1]) if match and match[1] else 0

    @property
    def is_norm(self) -> bool:
        return self.inner.rpartition("_")[2] in {"norm", "norm1", "norm2", "norm3"} or self.inner == "conv_norm_out"


def place_of(path: str) -> Place | None:
    """The place of a path under ldm's or diffusers' names; None if no U-Net that can be trained here has it."""
    path = path.replace("_processor_", "_")
    if path in _ENDS or path in _ENDS_LDM:
        return Place("ends", 0, 0, "end", _ENDS.get(path, path))
    ldm, diffusers = _LDM.fullmatch(path), _DIFFUSERS.fullmatch(path)
    place = _of_ldm(ldm) if ldm else _of_diffusers(diffusers) if diffusers else None
    return place if place is not None and place.level < MOST_LEVELS else None


def _of_ldm(match: re.Match[str]) -> Place | None:
    if match[5]:
        kind: Kind = "attention" if match[5] == "1" else "residual"
        return _checked("middle", 0, int(match[5]) // 2, kind, match[6], ldm=True)
    block, element, inner = int(match[2]), int(match[3]), match[4]
    if match[1] == "input_blocks":
        level, number = divmod(block - 1, 3)
        if number == 2 and block > 0:
            return Place("in", level, 0, "down", "conv") if (element, inner) == (0, "op") else None
        return (
            _checked("in", level, number, "attention" if element == 1 else "residual", inner, ldm=True) if element < 2 else None
        )
    level, number = divmod(block, 3)
    if inner == "conv":
        return Place("out", level, 0, "up", "conv", behind=element == 2) if number == 2 and element > 0 else None
    return _checked("out", level, number, "attention" if element == 1 else "residual", inner, ldm=True) if element < 2 else None


def _of_diffusers(match: re.Match[str]) -> Place | None:
    if match[9] or match[10]:
        return Place("in" if match[9] else "out", int(match[9] or match[10]), 0, "down" if match[9] else "up", "conv")
    if match[6]:
        kind: Kind = "attention" if match[6] == "attentions" else "residual"
        return _checked("middle", 0, int(match[7]), kind, match[8], ldm=False)
    kind = "attention" if match[3] == "attentions" else "residual"
    return _checked("in" if match[1] == "down" else "out", int(match[2]), int(match[4]), kind, match[5], ldm=False)


def _checked(side: Side, level: int, number: int, kind: Kind, inner: str, *, ldm: bool) -> Place | None:
    """The place; None if such a block has no such layer."""
    most = {"in": 2, "middle": 1 if kind == "attention" else 2, "out": 3, "ends": 0}[side]
    if level < 0 or number >= most:
        return None
    if kind == "attention":
        inner = inner + "_0" if inner.endswith("_to_out") else inner
        return Place(side, level, number, kind, inner) if _ATTENTION.fullmatch(inner) else None
    inner = _RESIDUAL.get(inner, "") if ldm else inner
    return Place(side, level, number, kind, inner) if inner in _RESIDUAL_LDM else None


def unet_path(place: Place, unet: UNet) -> str | None:
    """The path of a place in kohya's files of the family; None if the family's U-Net has no such place."""
    levels = len(unet.channels) - (place.kind in ("down", "up"))  # the last level has no sampler
    if place.level >= levels or (place.inner in _OF_THE_SIZE and not unet.reads_sizes):
        return None
    return _under_ldm(place) if unet.names == "ldm" else _under_diffusers(place)


def _under_ldm(place: Place) -> str:
    inner = _RESIDUAL_LDM[place.inner] if place.kind == "residual" else place.inner
    block, element = 3 * place.level + place.number, 1 if place.kind == "attention" else 0
    if place.side == "ends":
        return _ENDS_LDM[place.inner]
    if place.kind == "down":
        return f"input_blocks_{3 * place.level + 3}_0_op"
    if place.kind == "up":
        return f"output_blocks_{3 * place.level + 2}_2_conv"
    if place.side == "middle":
        return f"middle_block_{1 if element else 2 * place.number}_{inner}"
    return f"input_blocks_{block + 1}_{element}_{inner}" if place.side == "in" else f"output_blocks_{block}_{element}_{inner}"


def _under_diffusers(place: Place) -> str:
    if place.side == "ends":
        return place.inner
    if place.kind in ("down", "up"):
        return f"{place.kind}_blocks_{place.level}_{place.kind}samplers_0_conv"
    group = "attentions" if place.kind == "attention" else "resnets"
    start = {"in": f"down_blocks_{place.level}", "middle": "mid_block", "out": f"up_blocks_{place.level}"}[place.side]
    return f"{start}_{group}_{place.number}_{place.inner}"


def unet_name(path: str, family: Family) -> str:
    """Name in files of the layer at `path` of a U-Net of ldm's or diffusers' classes.

    Raises:
        ValueError: no U-Net of the family has such a layer.
    """
    place = place_of(path.replace(".", "_"))
    found = unet_path(place, family.unet) if place else None
    if found is None:
        raise ValueError(f"no U-Net that is trained here has a layer at {path!r}")
    return f"lora_unet_{found}"
