"""Layers that a file may have but that are not trained here: outer layers of the U-Net, norms, the text projection.

LyCORIS' preset full has the U-Net's first and last layer and time embedding, its train_norm the norms; some programs train the
text projection.
"""

from __future__ import annotations

import re

from lib_lora.model.layer_names.unet import place_of

_TEXT = re.compile(
    r"lora_te[12]?_(?:text_model_encoder_layers_\d+_(layer_norm[12])|text_model_(final_layer_norm)|text_projection)"
)
_UNET = "lora_unet_"


def is_further(name: str) -> bool:
    """Whether models have such a layer, but it is not trained here."""
    if not name.startswith(_UNET):
        return _TEXT.fullmatch(name) is not None
    place = place_of(name.removeprefix(_UNET))
    return place is not None and (place.kind == "end" or place.is_norm)


def is_norm(name: str) -> bool:
    """Whether the layer is a norm: a factor and a bias per channel, and no matrix."""
    if not name.startswith(_UNET):
        match = _TEXT.fullmatch(name)
        return match is not None and bool(match[1] or match[2])
    place = place_of(name.removeprefix(_UNET))
    return place is not None and place.is_norm
