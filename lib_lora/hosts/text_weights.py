"""The weights of a checkpoint's text encoder under the names of transformers' classes."""

from __future__ import annotations

import re

import torch
from torch import nn

from lib_lora.model.layer_names.text import FUSED, OPEN_CLIP_PARTS

Weights = dict[str, torch.Tensor]

_WHOLE = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
_FUSED = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")


def text_weights(weights: Weights, prefix: str, module: nn.Module) -> Weights:
    """The tensors below `prefix` under the names of `module`, for any transformers version. Empties `weights`."""
    part = {key.removeprefix(prefix): value for key, value in weights.items()}
    weights.clear()
    part = _from_open_clip(part) if prefix.endswith(".model.") else part
    positions = "text_model.embeddings.position_ids"
    part.setdefault(positions, torch.arange(part["text_model.embeddings.position_embedding.weight"].shape[0])[None])
    if hasattr(module, "text_model"):
        return part
    return {key.removeprefix("text_model."): value for key, value in part.items()}  # transformers 5


def _from_open_clip(part: Weights) -> Weights:
    """Convert open_clip's names: the fused in_proj becomes q, k and v, and the projection a Linear."""
    found: Weights = {}
    for key, value in part.items():
        layer, fused = _LAYER.fullmatch(key), _FUSED.fullmatch(key)
        if fused:
            for name, piece in zip(FUSED, value.chunk(3)):
                found[f"text_model.encoder.layers.{fused[1]}.{name}.{fused[2]}"] = piece
        elif layer:
            found[f"text_model.encoder.layers.{layer[1]}.{OPEN_CLIP_PARTS[layer[2]]}.{layer[3]}"] = value
        elif key in _WHOLE:
            found[f"text_model.{_WHOLE[key]}"] = value
        elif key == "text_projection":
            found["text_projection.weight"] = value.t().contiguous()
    return found
