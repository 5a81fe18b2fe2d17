"""Which families of Stable Diffusion a LoRA can be of, by the widths and positions of its layers.

The U-Net's context is 768 wide in SD 1.x, 1024 in SD 2.x, 2048 in SDXL; text encoders are 768, 1024, and 768 and 1280 wide. If no
width decides, positions do: SD's U-Nets have four levels with transformers in the upper three, SDXL's three with deeper
transformers in the lower two. No single name decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lib_lora.families.family import Family, UNet
from lib_lora.families.known import FAMILIES
from lib_lora.model.layer_names.keys import TEXT_1, TEXT_2, TEXT_H, UNET
from lib_lora.model.layer_names.unet import Place, place_of

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Found = tuple[Family, ...]

_READS_TEXT = ("attn2_to_k", "attn2_to_v")
_AS_WIDE = re.compile(r".*_(?:self_attn_(?:q|k|v|out)_proj|layer_norm[12])|text_model_final_layer_norm")
_LAYER = re.compile(r"text_model_encoder_layers_(\d+)_")


@dataclass(frozen=True)
class Layer:
    """One layer of a file: the part of the model that its key names, its path there, and its tensors' shapes by key suffix."""

    part: str
    path: str
    shapes: Shapes


def families_of(layers: Iterable[Layer]) -> Found:
    """The families that `layers` can be of, at least one; widths count first, then positions."""
    widths: list[Found] = []
    places: list[Found] = []
    for layer in layers:
        if layer.part == UNET:
            place = place_of(layer.path)
            if place is not None:
                widths.append(_by_context(inputs(layer.shapes)) if place.inner.endswith(_READS_TEXT) else FAMILIES)
                places.append(_by_place(place))
        else:
            width = text_width(layer)
            widths.append(tuple(one for one in FAMILIES if any(encoder.width == width for encoder in one.text_encoders)))
            places.append(_by_encoder(layer))
    return narrowed(narrowed(FAMILIES, widths), places)


def narrowed(found: Found, evidence: Iterable[Found]) -> Found:
    """The families of `found` that agree with all evidence; evidence that none of those left agrees with is ignored."""
    for piece in evidence:
        found = tuple(family for family in found if family in piece) or found
    return found


def by_metadata(metadata: Mapping[str, str]) -> Found:
    """The family that a file's metadata name; all families if they name none."""
    said = metadata.get("ss_base_model_version", "") or metadata.get("modelspec.architecture", "")
    return next(((family,) for family in FAMILIES if said.startswith(family.version_starts)), FAMILIES)


def text_width(layer: Layer) -> int | None:
    """Width of the text encoder that has this layer; None if unknown."""
    if layer.path.endswith("mlp_fc2"):
        return outputs(layer.shapes)
    if _AS_WIDE.fullmatch(layer.path):
        return inputs(layer.shapes) or outputs(layer.shapes)
    return inputs(layer.shapes) if layer.path.endswith(("mlp_fc1", "text_projection")) else None


def inputs(shapes: Shapes) -> int | None:
    """Inputs of a layer, from the shapes of its adapter's tensors; None if unknown."""
    for end in ("lora_down.weight", "diff"):
        if end in shapes and len(shapes[end]) > 1:
            return shapes[end][1]
    if len(shapes.get("hada_w1_b", ())) == 2 and not any(end in shapes for end in ("hada_t1", "hada_t2")):
        return shapes["hada_w1_b"][1]
    small, large = _side(shapes, "lokr_w1", 1), _side(shapes, "lokr_w2", 1)
    return small * large if small and large else None


def outputs(shapes: Shapes) -> int | None:
    """Outputs of a layer; see `inputs`."""
    for end in ("lora_up.weight", "diff", "w_norm", "hada_w1_a"):
        if shapes.get(end):
            return shapes[end][0]
    if len(shapes.get("oft_blocks", ())) == 3:
        return math.prod(shapes["oft_blocks"][:2])
    small, large = _side(shapes, "lokr_w1", 0), _side(shapes, "lokr_w2", 0)
    return small * large if small and large else None


def _side(shapes: Shapes, half: str, side: int) -> int:
    """Rows or columns of one half of a LoKr, whole or a product; 0 if unknown."""
    shape = shapes.get(half) or shapes.get(f"{half}_{'ab'[side]}", ())
    return shape[side] if len(shape) > 1 else 0


def _by_context(width: int | None) -> Found:
    return _having(lambda unet: unet.context == width)


def _by_place(place: Place) -> Found:
    """The families whose U-Net has such a place; if criteria contradict each other, the first wins."""
    found = narrowed(FAMILIES, [_having(lambda unet: place.level < len(unet.channels) - (place.kind in ("down", "up")))])
    if place.inner.startswith("add_embedding"):
        found = narrowed(found, [_having(lambda unet: unet.reads_sizes)])
    if place.kind == "attention":
        has_any = _having(lambda unet: place.level < len(unet.channels) and unet.depth(place.side, place.level) > 0)
        deep = _having(lambda unet: max(unet.depths) > 1) if place.transformer > 0 else FAMILIES
        found = narrowed(found, [deep, has_any])
    if place.behind is not None:
        behind = _having(lambda unet: place.level < len(unet.channels) and (unet.depth("out", place.level) > 0) == place.behind)
        found = narrowed(found, [behind])
    return found


def _having(tells: Callable[[UNet], bool]) -> Found:
    return tuple(family for family in FAMILIES if tells(family.unet))


def _by_encoder(layer: Layer) -> Found:
    """The families that have an encoder of this name, and enough layers in their first one."""
    if layer.part == TEXT_2:
        return tuple(family for family in FAMILIES if len(family.text_encoders) > 1)
    firsts = {family: family.text_encoders[0] for family in FAMILIES}
    if layer.part == TEXT_H:
        return tuple(family for family, first in firsts.items() if first.is_open_clip)
    match = _LAYER.match(layer.path) if layer.part != TEXT_1 else None
    return tuple(family for family, first in firsts.items() if not match or int(match[1]) < first.layers + first.unread)
