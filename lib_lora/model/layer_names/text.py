"""The layers of a CLIP text encoder under transformers' names, which are the internal ones, and under open_clip's.

open_clip keeps q, k and v of an attention in one matrix, `in_proj`, with the rows of the three in this order.
"""

from __future__ import annotations

import re

# open_clip's parts of a layer -> transformers'
OPEN_CLIP_PARTS = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}  # fmt: skip
FUSED = tuple(f"self_attn.{letter}_proj" for letter in "qkv")  # in the order of in_proj's rows
_PARTS = {
    **{ours.replace(".", "_"): theirs.replace(".", "_") for ours, theirs in OPEN_CLIP_PARTS.items()},
    **{f"attn_{letter}_proj": f"self_attn_{letter}_proj" for letter in "qkv"},
}
_OLD = {"self_attn_to_q": "self_attn_q_proj", "self_attn_to_k": "self_attn_k_proj", "self_attn_to_v": "self_attn_v_proj",
        "self_attn_to_out": "self_attn_out_proj"}  # fmt: skip
_LAYER = re.compile(r"(?:text_model_)?encoder_layers_(\d{1,3})_(.+)")
_BLOCK = re.compile(r"(?:transformer_)?resblocks_(\d{1,3})_(.+)")
_INNER = re.compile(r"self_attn_(?:q|k|v|out)_proj|mlp_fc[12]|layer_norm[12]")
_WHOLE = {
    "final_layer_norm": "text_model_final_layer_norm", "ln_final": "text_model_final_layer_norm",
    "text_projection": "text_projection",
}  # fmt: skip
_WRAPPERS = ("model_", "transformer_", "text_model_")


def layer_name(prefix: str, number: int, inner: str) -> str:
    """Name in files of a layer of the text encoder `prefix`; `inner`: its name in transformers."""
    return f"{prefix}_text_model_encoder_layers_{number}_{inner.replace('.', '_')}"


def text_paths(path: str) -> tuple[str, ...]:
    """Internal paths of a path written with underscores: one, or three for a fused in_proj; empty if no encoder has it."""
    for wrapper in ("", *_WRAPPERS):  # at most one of each, in this order
        path = path.removeprefix(wrapper) if wrapper != "transformer_" or not path.startswith("transformer_resblocks_") else path
        if path in _WHOLE:
            return (_WHOLE[path],)
    layer, block = _LAYER.fullmatch(path), _BLOCK.fullmatch(path)
    if block and block[2] == "attn_in_proj":
        return tuple(f"text_model_encoder_layers_{int(block[1])}_{part.replace('.', '_')}" for part in FUSED)
    if block:
        number, inner = block[1], _PARTS.get(block[2], "")
    elif layer:
        number, inner = layer[1], _OLD.get(layer[2], layer[2])
    else:
        return ()
    return (f"text_model_encoder_layers_{int(number)}_{inner}",) if _INNER.fullmatch(inner) else ()
