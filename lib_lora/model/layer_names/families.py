"""Which families of Stable Diffusion a LoRA can be of, by the widths of its layers and by where they lie.

The U-Net reads texts of 768 numbers in SD 1.x, 1024 in SD 2.x, 2048 in SDXL; text encoders are 768, 1024, and 768 and 1280 wide.
Where no width says it, places do: SD's U-Nets have four levels with transformers in the upper three, SDXL's three with deeper
transformers in the lower two. No single name decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lib_lora.model.family import SD1, SD2, SDXL, Family
from lib_lora.model.layer_names.keys import TEXT_1, TEXT_2, TEXT_H, UNET
from lib_lora.model.layer_names.unet import Place, place_of

FAMILIES = (SD1, SD2, SDXL)
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Found = tuple[Family, ...]

_CONTEXT = {768: (SD1,), 1024: (SD2,), 2048: (SDXL,)}
_TEXT = {768: (SD1, SDXL), 1024: (SD2,), 1280: (SDXL,)}
_READS_TEXT = ("attn2_to_k", "attn2_to_v")
_AS_WIDE = re.compile(r".*_(?:self_attn_(?:q|k|v|out)_proj|layer_norm[12])|text_model_final_layer_norm")
_LAYER = re.compile(r"text_model_encoder_layers_(\d+)_")
_SHORT = 12  # layers of the encoders of SD 1.x and of SDXL's first


@dataclass(frozen=True)
class Layer:
    """One layer of a file: the part of the model that its key names, its path there, and its tensors' shapes by their ends."""

    part: str
    path: str
    shapes: Shapes


def families_of(layers: Iterable[Layer]) -> Found:
    """The families that all of these layers can be of, one at least: those by widths first, then those by places."""
    widths: list[Found] = []
    places: list[Found] = []
    for layer in layers:
        if layer.part == UNET:
            place = place_of(layer.path)
            if place is not None:
                widths.append(
                    _CONTEXT.get(inputs(layer.shapes) or 0, FAMILIES) if place.inner.endswith(_READS_TEXT) else FAMILIES
                )
                places.append(_by_place(place))
        else:
            widths.append(_TEXT.get(text_width(layer) or 0, FAMILIES))
            places.append(_by_encoder(layer))
    return narrowed(narrowed(FAMILIES, widths), places)


def narrowed(found: Found, evidence: Iterable[Found]) -> Found:
    """What of `found` agrees with all pieces of evidence; a piece that agrees with nothing that is left says nothing."""
    for piece in evidence:
        found = tuple(family for family in found if family in piece) or found
    return found


def by_metadata(metadata: Mapping[str, str]) -> Found:
    """The families that a file's metadata name."""
    said = metadata.get("ss_base_model_version", "") or metadata.get("modelspec.architecture", "")
    starts = {"sdxl_": SDXL, "sd_v1": SD1, "sd_v2": SD2, "stable-diffusion-xl": SDXL, "stable-diffusion-v1": SD1,
              "stable-diffusion-v2": SD2}  # fmt: skip
    return next(((family,) for start, family in starts.items() if said.startswith(start)), FAMILIES)


def text_width(layer: Layer) -> int | None:
    """How wide the text encoder is that has this layer."""
    if layer.path.endswith("mlp_fc2"):
        return outputs(layer.shapes)
    if _AS_WIDE.fullmatch(layer.path):
        return inputs(layer.shapes) or outputs(layer.shapes)
    return inputs(layer.shapes) if layer.path.endswith(("mlp_fc1", "text_projection")) else None


def inputs(shapes: Shapes) -> int | None:
    """Inputs of a layer, by the shapes of its adapter's tensors; None where they do not tell."""
    for end in ("lora_down.weight", "diff"):
        if end in shapes and len(shapes[end]) > 1:
            return shapes[end][1]
    if len(shapes.get("hada_w1_b", ())) == 2 and not any(end in shapes for end in ("hada_t1", "hada_t2")):
        return shapes["hada_w1_b"][1]
    small, large = _side(shapes, "lokr_w1", 1), _side(shapes, "lokr_w2", 1)
    return small * large if small and large else None


def outputs(shapes: Shapes) -> int | None:
    """Outputs of a layer, as `inputs`."""
    for end in ("lora_up.weight", "diff", "w_norm", "hada_w1_a"):
        if shapes.get(end):
            return shapes[end][0]
    if len(shapes.get("oft_blocks", ())) == 3:
        return math.prod(shapes["oft_blocks"][:2])
    small, large = _side(shapes, "lokr_w1", 0), _side(shapes, "lokr_w2", 0)
    return small * large if small and large else None


def _side(shapes: Shapes, half: str, side: int) -> int:
    """Rows or columns of one half of a LoKr, whole or a product; 0 where it does not tell."""
    shape = shapes.get(half) or shapes.get(f"{half}_{'ab'[side]}", ())
    return shape[side] if len(shape) > 1 else 0


def _by_place(place: Place) -> Found:
    old = (SD1, SD2)
    if place.transformer > 0 or place.inner.startswith("add_embedding"):
        return (SDXL,)
    if place.kind == "attention" and place.side == "out" and place.level == 0:
        return (SDXL,)
    if place.level == 3 or (place.kind == "attention" and (place.side, place.level) in (("in", 0), ("out", 2))):
        return old
    if place.kind in ("down", "up") and place.level == 2:
        return old
    if place.kind == "up" and place.level == 0 and place.behind is not None:
        return (SDXL,) if place.behind else old
    return FAMILIES


def _by_encoder(layer: Layer) -> Found:
    if layer.part == TEXT_2:
        return (SDXL,)
    if layer.part == TEXT_H:
        return (SD2,)
    match = _LAYER.match(layer.path)
    deep = match is not None and int(match[1]) >= _SHORT
    return (SD2,) if deep and layer.part != TEXT_1 else FAMILIES
