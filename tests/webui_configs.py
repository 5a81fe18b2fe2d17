"""Configurations for a webui to load the miniatures of SD 2.x and SDXL (v2-inference-v.yaml, sd_xl_base.yaml)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lib_lora.data.tokens import VOCABULARY
from lib_lora.families.sdxl import SDXL
from lib_lora.hosts.architecture import text_config, unet_config
from lib_lora.hosts.ldm_config import ldm_config

ARCH = "ViT-S-32-alt"  # open_clip's name of what `synthetic.MINI_OPEN_CLIP` is
HEAD_WIDTH = 64
SGM = "sgm.modules."


def write_sd2(checkpoint: Path, weights: Mapping[str, Any], *, velocity: bool) -> None:
    """Write `NAME.yaml` beside a miniature of SD 2.x."""
    checkpoint.with_suffix(".yaml").write_text(yaml.safe_dump(_sd2(weights, velocity=velocity)))


def write_unclip(checkpoint: Path, weights: Mapping[str, Any]) -> None:
    """Write `NAME.yaml` beside a miniature of UnCLIP (v2-1-stable-unclip-h-inference.yaml)."""
    config, encoders = _sd2(weights, velocity=True), "ldm.modules.encoders.modules."
    config["model"]["target"] = "ldm.models.diffusion.ddpm.ImageEmbeddingConditionedLatentDiffusion"
    told = weights["model.diffusion_model.label_emb.0.0.weight"].shape[1]
    params = config["model"]["params"]
    params["unet_config"]["params"].update({"num_classes": "sequential", "adm_in_channels": told})
    config["model"]["params"] = params | {
        "embedding_dropout": 0.25,
        "conditioning_key": "crossattn-adm",
        "embedder_config": {
            "target": encoders + "FrozenOpenCLIPImageEmbedder",
            "params": {"arch": ARCH, "version": None, "device": "cpu"},
        },
        "noise_aug_config": {
            "target": encoders + "CLIPEmbeddingNoiseAugmentation",
            "params": {
                "timestep_dim": told // 2,
                "noise_schedule_config": {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"},
            },
        },
    }
    checkpoint.with_suffix(".yaml").write_text(yaml.safe_dump(config))


def _sd2(weights: Mapping[str, Any], *, velocity: bool) -> dict[str, Any]:
    config = ldm_config(weights, Path("clip"))
    params = config["model"]["params"]
    params["cond_stage_config"] = {
        "target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
        "params": {"arch": ARCH, "version": None, "device": "cpu", "freeze": True, "layer": "penultimate"},
    }
    unet = params["unet_config"]["params"]
    del unet["num_heads"]
    unet.update({"num_head_channels": HEAD_WIDTH, "use_linear_in_transformer": True})
    params["parameterization"] = "v" if velocity else "eps"
    return config


def write_sdxl(checkpoint: Path, weights: Mapping[str, Any], *, velocity: bool = False) -> None:
    """Write `NAME.yaml` and the first text encoder's folder beside a miniature of SDXL."""
    clip = checkpoint.with_name(f"{checkpoint.stem}-clip")
    shutil.copytree(VOCABULARY, clip, dirs_exist_ok=True)
    first = text_config(weights, SDXL.text_encoders[0].weights)
    (clip / "config.json").write_text(json.dumps({"model_type": "clip_text_model", **first}))
    clip_l = {
        "is_trainable": False, "input_key": "txt", "target": SGM + "encoders.modules.FrozenCLIPEmbedder",
        "params": {"version": str(clip), "layer": "hidden", "layer_idx": first["num_hidden_layers"] - 1},
    }  # fmt: skip
    told = [_numbers(key) for key in ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")]
    _write_sgm(checkpoint, weights, [clip_l, _OPEN_CLIP, *told], velocity=velocity)


def write_refiner(checkpoint: Path, weights: Mapping[str, Any]) -> None:
    """Write `NAME.yaml` beside a miniature of an SDXL refiner (sd_xl_refiner.yaml)."""
    told = [_numbers(key) for key in ("original_size_as_tuple", "crop_coords_top_left", "aesthetic_score")]
    _write_sgm(checkpoint, weights, [_OPEN_CLIP, *told])


_OPEN_CLIP = {
    "is_trainable": False, "input_key": "txt", "target": SGM + "encoders.modules.FrozenOpenCLIPEmbedder2",
    "params": {"arch": ARCH, "version": "none", "freeze": True, "layer": "penultimate", "always_return_pooled": True, "legacy": False},
}  # fmt: skip


def _numbers(key: str) -> dict[str, Any]:
    target = SGM + "encoders.modules.ConcatTimestepEmbedderND"
    return {"is_trainable": False, "input_key": key, "target": target, "params": {"outdim": 256}}


def _write_sgm(checkpoint: Path, weights: Mapping[str, Any], embedders: list[dict[str, Any]], *, velocity: bool = False) -> None:
    """`NAME.yaml` for a model of these text encoders and numbers."""
    unet, kind = unet_config(weights), "VScaling" if velocity else "EpsScaling"
    params = {
        "scale_factor": 0.13025,
        "disable_first_stage_autocast": True,
        "denoiser_config": {
            "target": SGM + "diffusionmodules.denoiser.DiscreteDenoiser",
            "params": {
                "num_idx": 1000,
                "weighting_config": {"target": SGM + "diffusionmodules.denoiser_weighting.EpsWeighting"},
                "scaling_config": {"target": SGM + f"diffusionmodules.denoiser_scaling.{kind}"},
                "discretization_config": {"target": SGM + "diffusionmodules.discretizer.LegacyDDPMDiscretization"},
            },
        },
        "network_config": {
            "target": SGM + "diffusionmodules.openaimodel.UNetModel",
            "params": {
                "adm_in_channels": unet["projection_class_embeddings_input_dim"], "num_classes": "sequential",
                "use_checkpoint": False, "in_channels": unet["in_channels"], "out_channels": 4,
                "model_channels": unet["block_out_channels"][0],
                "attention_resolutions": [4, 2], "num_res_blocks": 2, "channel_mult": [1, 2, 4],
                "num_head_channels": HEAD_WIDTH, "use_spatial_transformer": True, "use_linear_in_transformer": True,
                "transformer_depth": list(unet["transformer_layers_per_block"]), "context_dim": unet["cross_attention_dim"],
                "spatial_transformer_attn_type": "softmax-xformers", "legacy": False,
            },
        },
        "conditioner_config": {"target": "sgm.modules.GeneralConditioner", "params": {"emb_models": embedders}},
        "first_stage_config": {
            "target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper",
            "params": {
                **ldm_config(weights, Path("clip"))["model"]["params"]["first_stage_config"]["params"]
            },
        },
    }  # fmt: skip
    config = {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}}
    checkpoint.with_suffix(".yaml").write_text(yaml.safe_dump(config))
