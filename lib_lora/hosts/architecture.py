"""The keys and shapes of a checkpoint file -> its family, and the configurations of diffusers' and transformers' classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lib_lora.families.family import Family
from lib_lora.families.known import FAMILIES
from lib_lora.families.sd1 import SD1

UNET = "model.diffusion_model."
VAE = "first_stage_model."
V_MARK = "v_pred"  # an empty tensor that some SDXL fine-tunes carry
_SD1_HEADS = 8  # in every SD 1.x; tensor shapes do not show it
_HEAD_WIDTH = 64  # in all other families, and in every CLIP
_LAYER = re.compile(r"(?:encoder\.layers|transformer\.resblocks)\.(\d+)\.")


def family_of(shapes: Mapping[str, Any]) -> Family | str:
    """The family of a checkpoint with these keys and shapes; a description if it cannot be trained."""
    refused = _refused(shapes)
    if refused:
        return refused
    first = shapes.get(UNET + "input_blocks.0.0.weight")
    found = next((family for family in FAMILIES if family.is_in(shapes)), None)
    if first is None or found is None or not _has(shapes, VAE):
        return "not a complete Stable Diffusion checkpoint"
    return found.with_channels(first[1]) or f"{found.name} for editing or depth, with {first[1]} channels"


def _refused(shapes: Mapping[str, Any]) -> str | None:
    if _has(shapes, UNET + "joint_blocks"):
        return "SD3"
    if _has(shapes, "conditioner.embedders.0.model."):
        return "an SDXL refiner"
    if _has(shapes, "conditioner.") and not _has(shapes, UNET + "middle_block.1."):
        return "SSD-1B"
    if _has(shapes, "embedder.") or _has(shapes, "noise_augmentor.") or (
        _has(shapes, "cond_stage_model.") and _has(shapes, UNET + "label_emb.")
    ):  # fmt: skip
        return "UnCLIP"
    return None


def _has(shapes: Mapping[str, Any], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in shapes)


def unet_config(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Diffusers' configuration of the U-Net, read from the shapes."""
    channels: list[int] = []
    depths: list[int] = []
    while f"{UNET}input_blocks.{3 * len(channels) + 1}.0.out_layers.3.weight" in weights:
        block = f"{UNET}input_blocks.{3 * len(channels) + 1}."
        channels.append(weights[block + "0.out_layers.3.weight"].shape[0])
        depths.append(_count(weights, block + "1.transformer_blocks."))
    attention, middle = [depth > 0 for depth in depths], f"{UNET}middle_block.1."
    depths[-1] = _count(weights, middle + "transformer_blocks.")  # diffusers uses the last depth for the middle block
    linear = weights[middle + "proj_in.weight"].ndim == 2
    config: dict[str, Any] = {
        "sample_size": 128 if len(channels) == 3 else 64,
        "in_channels": weights[UNET + "input_blocks.0.0.weight"].shape[1],
        "out_channels": weights[UNET + "out.2.weight"].shape[0],
        "layers_per_block": 2,
        "block_out_channels": tuple(channels),
        "down_block_types": tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(attention)),
        "transformer_layers_per_block": tuple(max(depth, 1) for depth in depths),
        "cross_attention_dim": weights[middle + "transformer_blocks.0.attn2.to_k.weight"].shape[1],
        # the number of heads, despite diffusers' name for it
        "attention_head_dim": tuple(max(width // _HEAD_WIDTH, 1) for width in channels) if linear else _SD1_HEADS,
        "use_linear_projection": linear,
        "norm_num_groups": 32,
    }
    label = weights.get(UNET + "label_emb.0.0.weight")
    if label is not None:
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        config |= {"projection_class_embeddings_input_dim": label.shape[1]}
    return config


def vae_config(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Diffusers' configuration of the VAE, read from the shapes."""
    levels = _count(weights, f"{VAE}encoder.down.")
    channels = tuple(weights[f"{VAE}encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(levels))
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": weights[VAE + "post_quant_conv.weight"].shape[1],
        "layers_per_block": _count(weights, f"{VAE}encoder.down.0.block."),
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "norm_num_groups": 32,
    }


def text_config(weights: Mapping[str, Any], prefix: str = SD1.text_encoders[0].weights) -> dict[str, Any]:
    """Transformers' configuration of the text encoder below `prefix`, read from the shapes."""
    open_clip = prefix.endswith(".model.")
    core = prefix if open_clip else prefix + "text_model."
    embeddings = "" if open_clip else "embeddings."
    layer = core + ("transformer.resblocks.0.mlp.c_fc.weight" if open_clip else "encoder.layers.0.mlp.fc1.weight")
    vocabulary, width = weights[f"{core}{embeddings}token_embedding.weight"].shape
    position = f"{core}positional_embedding" if open_clip else f"{core}embeddings.position_embedding.weight"
    projection = weights.get(core + "text_projection")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": weights[layer].shape[0],
        "num_hidden_layers": len({match[1] for match in map(_LAYER.search, _below(weights, core)) if match}),
        "num_attention_heads": max(width // _HEAD_WIDTH, 1),
        "max_position_embeddings": weights[position].shape[0],
        "hidden_act": "gelu" if open_clip else "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": width if projection is None else projection.shape[1],
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }


def _below(weights: Mapping[str, Any], prefix: str) -> list[str]:
    return [key for key in weights if key.startswith(prefix)]


def _count(weights: Mapping[str, Any], prefix: str) -> int:
    """The number of numbered parts below `prefix`."""
    return len({key.removeprefix(prefix).split(".")[0] for key in _below(weights, prefix)})
