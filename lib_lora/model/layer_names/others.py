"""Detects, from its keys, a file that holds no LoRA of a model that can be trained here."""

from __future__ import annotations

import re
from collections.abc import Iterable

CHECKPOINT, EMBEDDING, CONTROL = "a checkpoint", "an embedding (textual inversion)", "a ControlNet or hypernetwork"
NO_LORA = (CHECKPOINT, EMBEDDING, CONTROL)  # what a file can hold instead
_OTHERS = (  # the first match wins
    (r"lora_te3_|text_encoder_3\.|joint_blocks|context_block_|attn[._]add_[qkv]_proj.*norm_added"
     r"|text_encoders\.t5xxl.*joint", "SD3"),
    (r"lora_prior_|prior_unet|(?:^|[._])prior[._]", "Stable Cascade"),
    (r"single_transformer_blocks|double_blocks|single_blocks|distilled_guidance_layer", "FLUX or a similar model"),
    (r"joint_transformer_blocks", "AuraFlow"),
    (r"double_stream_blocks|single_stream_blocks", "HiDream or a similar model"),
    (r"motion_modules|temporal_transformer", "a video model, such as AnimateDiff or Stable Video Diffusion"),
    (r"(?:down|up)_blocks.*attentions.*[._]add_k_proj", "Kandinsky"),
    (r"^lllite_", "ControlNet-LLLite"),
    (r"ip_adapter|image_proj", "IP-Adapter"),
    (r"^hypernet|^control_", CONTROL),
    (r"img_attn|img_mod|txt_attn|transformer_blocks.*img_mlp", "Qwen-Image or HunyuanVideo"),
    (r"(?:^|[._])blocks[._]\d+[._](?:cross_attn|self_attn|ffn|adaln)", "Wan, Anima or a similar model"),
    (r"cap_embedder|context_refiner|noise_refiner|layers[._]\d+[._](?:attention|feed_forward)[._]", "Lumina or Z-Image"),
    (r"^(?:base_model\.model\.)*model\.layers\.\d+\.(?:self_attn|mlp)", "a language model"),
    (r"^(?:base_model\.model\.)*(?:transformer|lora_transformer)[._]",
     "another transformer model, such as SD3, FLUX or PixArt"),
    (r"^(?:base_model\.model\.)*(?:diffusion_model\.)?transformer_blocks\.|lora_unet_transformer_blocks",
     "another transformer model, such as PixArt or LTX"),
)  # fmt: skip
_PATTERNS = tuple((re.compile(pattern), name) for pattern, name in _OTHERS)
_OF_A_CHECKPOINT = re.compile(r"(?:model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\..+\.(?:weight|bias)")
_OF_AN_EMBEDDING = {"emb_params", "clip_l", "clip_g", "string_to_param", "<concept>"}
_LONGEST = 300  # characters of a key that are searched


def other_model(keys: Iterable[str]) -> str:
    """The model that the keys belong to, in words; "" if unknown."""
    held = [key[:_LONGEST] for key in keys]
    for pattern, name in _PATTERNS:
        if any(pattern.search(key) for key in held):
            return name
    return ""


def no_lora(keys: Iterable[str]) -> str:
    """What a file without any LoRA is, in words: a checkpoint or an embedding; "" if unknown."""
    held = [key[:_LONGEST] for key in keys]
    if any(_OF_A_CHECKPOINT.fullmatch(key) for key in held) and not any(".lora_" in key or "_lora." in key for key in held):
        return CHECKPOINT
    return EMBEDDING if held and set(held) <= _OF_AN_EMBEDDING else ""
