"""Files that a webui needs beside a checkpoint of unusual size: ldm's configuration `NAME.yaml` and a text encoder folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lib_lora.data.tokens import VOCABULARY
from lib_lora.families.sd1 import SD1
from lib_lora.hosts.architecture import text_config, unet_config, vae_config


def write_beside(checkpoint: Path, weights: Mapping[str, Any]) -> None:
    """Write `NAME.yaml` and `NAME-clip/` next to `checkpoint`, with the absolute paths that ldm needs.

    Args:
        checkpoint: the file NAME.safetensors.
        weights: its tensors (only their shapes are used).
    """
    clip = checkpoint.with_name(f"{checkpoint.stem}-clip")
    shutil.copytree(VOCABULARY, clip, dirs_exist_ok=True)
    config = {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], **text_config(weights)}
    (clip / "config.json").write_text(json.dumps(config), encoding="utf-8")
    checkpoint.with_suffix(".yaml").write_text(yaml.safe_dump(ldm_config(weights, clip)), encoding="utf-8")


def ldm_config(weights: Mapping[str, Any], clip: Path) -> dict[str, Any]:
    """Configuration for ldm of a Stable Diffusion 1.x of these shapes, as v1-inference.yaml or v1-inpainting-inference.yaml."""
    inpaints = unet_config(weights)["in_channels"] != SD1.latent_channels
    own = {"conditioning_key": "hybrid", "finetune_keys": None} if inpaints else {"conditioning_key": "crossattn"}
    return {
        "model": {
            "target": f"ldm.models.diffusion.ddpm.Latent{'Inpaint' if inpaints else ''}Diffusion",
            "params": {
                "linear_start": 0.00085,
                "linear_end": 0.012,
                "num_timesteps_cond": 1,
                "timesteps": 1000,
                "first_stage_key": "jpg",
                "cond_stage_key": "txt",
                "image_size": 64,
                "channels": SD1.latent_channels,
                "cond_stage_trainable": False,
                **own,
                "monitor": "val/loss_simple_ema",
                "scale_factor": SD1.latent_scale,
                "use_ema": False,
                "unet_config": {
                    "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                    "params": _unet_parameters(weights),
                },
                "first_stage_config": {
                    "target": "ldm.models.autoencoder.AutoencoderKL",
                    "params": {
                        "embed_dim": SD1.latent_channels,
                        "monitor": "val/rec_loss",
                        "ddconfig": _vae_parameters(weights),
                        "lossconfig": {"target": "torch.nn.Identity"},
                    },
                },
                "cond_stage_config": {
                    "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                    "params": {"version": str(clip.resolve()), "device": "cpu"},
                },
            },
        }
    }


def _unet_parameters(weights: Mapping[str, Any]) -> dict[str, Any]:
    config = unet_config(weights)
    channels = config["block_out_channels"]
    return {
        "image_size": 32,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": channels[0],
        "attention_resolutions": [4, 2, 1],
        "num_res_blocks": 2,
        "channel_mult": [width // channels[0] for width in channels],
        "num_heads": config["attention_head_dim"],
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": config["cross_attention_dim"],
        "use_checkpoint": False,
        "legacy": False,
    }


def _vae_parameters(weights: Mapping[str, Any]) -> dict[str, Any]:
    config = vae_config(weights)
    channels = config["block_out_channels"]
    return {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": channels[0],
        "ch_mult": [width // channels[0] for width in channels],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
