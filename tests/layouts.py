"""The same LoRA as other programs write it: kohya's keys under their names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

State = dict[str, Any]
Layout = Callable[[State], State]

# a path with underscores -> with dots, by the words that have underscores themselves
_WORDS = re.compile(
    r"(down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block|transformer_blocks|time_emb_proj|conv_shortcut"
    r"|proj_in|proj_out|to_q|to_k|to_v|to_out|in_layers|out_layers|emb_layers|skip_connection|text_model|self_attn|q_proj|k_proj"
    r"|v_proj|out_proj|conv_in|conv_out|time_embedding|linear_1|linear_2|time_embed|layer_norm1|layer_norm2|text_projection)"
)


def dotted(path: str) -> str:
    """`down_blocks_0_attentions_0_proj_in` -> `down_blocks.0.attentions.0.proj_in`."""
    pieces = _WORDS.split(path)
    return ".".join(piece for part in pieces for piece in ([part] if _WORDS.fullmatch(part) else part.split("_")) if piece)


PARTS = {"lora_unet": "unet", "lora_te": "text_encoder", "lora_te1": "text_encoder", "lora_te2": "text_encoder_2"}
COMFY = {"lora_unet": "diffusion_model", "lora_te": "text_encoders.clip_l.transformer", "lora_te1": "text_encoders.clip_l.transformer",
         "lora_te2": "text_encoders.clip_g.transformer"}  # fmt: skip
AB = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
OLD = {"lora_down.weight": "lora.down.weight", "lora_up.weight": "lora.up.weight"}


def _renamed(state: State, parts: dict[str, str], ends: dict[str, str], before: str = "") -> State:
    found = {}
    for key, value in state.items():
        name, _, end = key.partition(".")
        prefix, path = re.fullmatch(r"(lora_[a-z0-9]+)_(.+)", name).groups()  # type: ignore[union-attr]
        found[f"{before}{parts[prefix]}.{dotted(path)}.{ends.get(end, end)}"] = value
    return found


def peft(state: State) -> State:
    return _renamed(state, PARTS, AB)


def peft_wrapped(state: State) -> State:
    named = {end: ab.replace(".weight", ".default.weight") for end, ab in AB.items()}
    return _renamed(state, PARTS, named, "base_model.model.")


def old_diffusers(state: State) -> State:
    """Attention processors, and linear layers of text encoders."""
    found = {}
    for key, value in _renamed(state, PARTS, OLD).items():
        key = re.sub(r"(attn[12])\.(to_[qkv])\.lora\.", r"\1.processor.\2_lora.", key)
        key = re.sub(r"(attn[12])\.to_out\.0\.lora\.", r"\1.processor.to_out_lora.", key)
        key = re.sub(r"(self_attn|mlp)\.(\w+)\.lora\.", r"\1.\2.lora_linear_layer.", key)
        found[key] = value
    return found


def onetrainer(state: State) -> State:
    return _renamed(state, PARTS, {})


def comfy(state: State) -> State:
    return _renamed(state, COMFY, AB)


def bare(state: State) -> State:
    return {key.removeprefix("unet."): value for key, value in peft(state).items()}


def first_encoder_numbered(state: State) -> State:
    return {key.replace("lora_te_", "lora_te1_"): value for key, value in state.items()}


def open_clip(state: State) -> State:
    parts = {"self_attn": "attn", "mlp_fc1": "mlp_c_fc", "mlp_fc2": "mlp_c_proj"}
    found = {}
    for key, value in state.items():
        if "_text_model_encoder_layers_" in key and not key.startswith("lora_te1"):
            key = key.replace("text_model_encoder_layers", "transformer_resblocks")
            for theirs, ours in parts.items():
                key = key.replace(theirs, ours)
        found[key] = value
    return found


def prefix_left_out(state: State) -> State:
    """Of the U-Net and of one text encoder; a second one could not be told from the first."""
    return {re.sub(r"^lora_(unet|te)_", "", key): value for key, value in state.items()}


LAYOUTS: dict[str, Layout] = {
    layout.__name__: layout
    for layout in (peft, peft_wrapped, old_diffusers, onetrainer, comfy, bare, first_encoder_numbered, open_clip, prefix_left_out)
}
