"""A Stable Diffusion 1.x checkpoint file -> the architecture it has, and diffusers' modules with its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lib_lora.errors import ModelError

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_TEXT = "cond_stage_model.transformer."
_UNET_HEADS = 8  # of every SD 1.x; no tensor shape tells it
_CLIP_HEAD_WIDTH = 64
_LEGACY_HASH_START, _LEGACY_HASH_LENGTH = 0x100000, 0x10000

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Modules:
    """The three networks of a checkpoint."""

    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module


def file_problem(path: Path) -> str | None:
    """The sentence that says why `path` cannot be trained on, from its header alone, or None."""
    start = f"Checkpoint (checkpoint): {str(path)!r} "
    if not path.is_file():
        return start + "does not exist."
    if path.suffix != ".safetensors":
        return start + "is no .safetensors file; other kinds can run code when they are read."
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        return start + f"cannot be read ({error})."
    family = family_of(shapes)
    return None if family == "SD 1.x" else start + f"is {family}; only SD 1.x can be trained for now."


def family_of(shapes: Mapping[str, Any]) -> str:
    """The family a checkpoint's keys and shapes belong to, in words."""
    if any(key.startswith("model.diffusion_model.joint_blocks") for key in shapes):
        return "SD3"
    if any(key.startswith("conditioner.embedders") for key in shapes):
        return "SDXL" if any(key.startswith("conditioner.embedders.1") for key in shapes) else "an SDXL refiner"
    if any(key.startswith("cond_stage_model.model.") for key in shapes):
        return "SD 2.x"
    first = shapes.get(_UNET + "input_blocks.0.0.weight")
    if first is None or not any(key.startswith(_TEXT) for key in shapes) or not any(key.startswith(_VAE) for key in shapes):
        return "no complete Stable Diffusion checkpoint"
    return "SD 1.x" if first[1] == 4 else "an inpainting or editing model"


def load_modules(path: Path, dtype: torch.dtype) -> Modules:
    """U-Net and text encoder as `dtype`, VAE in fp32; nothing is initialised, weights go straight in.

    Raises:
        ModelError: a tensor is missing.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel

    with safe_open(path, framework="pt") as file:
        weights: Weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config(weights))
        vae = AutoencoderKL(**vae_config(weights))
        text_encoder = CLIPTextModel(CLIPTextConfig(**text_config(weights)))
    _fill(unet, convert_ldm_unet_checkpoint(_part(weights, _UNET, keep=True), dict(unet.config)), dtype)
    _fill(vae, convert_ldm_vae_checkpoint(_part(weights, _VAE, keep=True), dict(vae.config)), torch.float32)
    _fill(text_encoder, _text_weights(weights, text_encoder), dtype)
    return Modules(unet.eval(), vae.eval(), text_encoder.eval())


def unet_config(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Diffusers' configuration of the U-Net, read from the shapes."""
    channels = tuple(weights[f"{_UNET}input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in (1, 4, 7, 10))
    context = weights[f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    return {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": channels,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "cross_attention_dim": context,
        "attention_head_dim": _UNET_HEADS,
        "norm_num_groups": 32,
    }


def vae_config(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Diffusers' configuration of the VAE, read from the shapes."""
    channels = tuple(weights[f"{_VAE}encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(4))
    blocks = sum(f"{_VAE}encoder.down.0.block.{i}.conv2.weight" in weights for i in range(4))
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "layers_per_block": blocks,
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 32,
    }


def text_config(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Transformers' configuration of the text encoder, read from the shapes."""
    core = f"{_TEXT}text_model."
    vocabulary, width = weights[core + "embeddings.token_embedding.weight"].shape
    layers = {
        key.removeprefix(core + "encoder.layers.").split(".")[0] for key in weights if key.startswith(core + "encoder.layers.")
    }
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": weights[core + "encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(width // _CLIP_HEAD_WIDTH, 1),
        "max_position_embeddings": weights[core + "embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": width,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }


def legacy_hash(path: Path) -> str:
    """sd-scripts `model_hash`: 8 digits of the SHA-256 of 64 KiB at 1 MiB."""
    with path.open("rb") as file:
        file.seek(_LEGACY_HASH_START)
        return hashlib.sha256(file.read(_LEGACY_HASH_LENGTH)).hexdigest()[:8]


def sha256(path: Path) -> str:
    """SHA-256 of the whole file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _part(weights: Weights, prefix: str, *, keep: bool = False) -> Weights:
    return {key if keep else key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _text_weights(weights: Weights, text_encoder: nn.Module) -> Weights:
    """CLIP's weights under the names of the installed transformers (5 has no `text_model.` in front)."""
    part = _part(weights, _TEXT)
    if not hasattr(text_encoder, "text_model"):
        part = {key.removeprefix("text_model."): value for key, value in part.items()}
    part.setdefault(
        next(key for key in part if key.endswith("position_embedding.weight")).replace(
            "position_embedding.weight", "position_ids"
        ),
        torch.arange(77)[None],
    )
    return part


def _fill(module: nn.Module, weights: Weights, dtype: torch.dtype) -> None:
    """Give a module on the meta device its weights; buffers that are not saved (position ids) come from `weights` too."""
    cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
    missing, _ = module.load_state_dict(cast, strict=False, assign=True)
    if missing:
        raise ModelError(f"The checkpoint lacks {len(missing)} tensors, such as {missing[0]!r}.")
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner).register_buffer(leaf, cast[name], persistent=False)
