"""Checkpoints with reproducible random weights: Stable Diffusion 1.5 in full shape, or in miniature with the same layout.

    python -m tests.synthetic full|mini DIR

writes DIR/sd15-full.safetensors or DIR/sd15-mini.safetensors; the miniature gets a sidecar .yaml and a text encoder folder
beside it, with which a webui loads it.
"""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

SHAPES = Path(__file__).parent / "data" / "sd15_shapes.json"
CLIP_FILES = Path(__file__).parent.parent / "lib_lora" / "assets" / "clip"
MINI_CLIP_LAYERS = 2


def write_full(folder: Path) -> Path:
    """SD 1.5 in full shape, fp16, 2.1 GB."""
    return _write(folder / "sd15-full.safetensors", lambda key, shape: shape)


def write_mini(folder: Path) -> Path:
    """A miniature (35 MB): U-Net a tenth as wide, text encoder 64 wide with two layers, VAE a quarter as wide."""
    path = _write(folder / "sd15-mini.safetensors", _mini_shape)
    clip = folder / "clip-mini"
    shutil.copytree(CLIP_FILES, clip, dirs_exist_ok=True)
    (clip / "config.json").write_text(
        json.dumps({"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], **_CLIP_CONFIG})
    )
    path.with_suffix(".yaml").write_text(yaml.safe_dump(ldm_config(clip)))
    return path


def ldm_config(clip: Path) -> dict[str, object]:
    """The miniature's configuration as ldm instantiates it."""
    vae = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    unet = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "attention_resolutions": [4, 2, 1],
        "num_res_blocks": 2,
        "channel_mult": [1, 2, 4, 4],
        "num_heads": 8,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": 64,
        "use_checkpoint": False,
        "legacy": False,
    }
    return {
        "model": {
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "linear_start": 0.00085,
                "linear_end": 0.012,
                "num_timesteps_cond": 1,
                "timesteps": 1000,
                "first_stage_key": "jpg",
                "cond_stage_key": "txt",
                "image_size": 64,
                "channels": 4,
                "cond_stage_trainable": False,
                "conditioning_key": "crossattn",
                "monitor": "val/loss_simple_ema",
                "scale_factor": 0.18215,
                "use_ema": False,
                "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
                "first_stage_config": {
                    "target": "ldm.models.autoencoder.AutoencoderKL",
                    "params": {
                        "embed_dim": 4,
                        "monitor": "val/rec_loss",
                        "ddconfig": vae,
                        "lossconfig": {"target": "torch.nn.Identity"},
                    },
                },
                "cond_stage_config": {
                    "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                    "params": {"version": str(clip), "device": "cpu"},
                },
            },
        }
    }


_CLIP_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": MINI_CLIP_LAYERS,
    "num_attention_heads": 1,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 64,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}


def _write(path: Path, reshape: Callable[[str, list[int]], list[int] | None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {key: reshape(key, shape) for key, shape in json.loads(SHAPES.read_text()).items()}
    save_file({key: _tensor(key, shape) for key, shape in shapes.items() if shape is not None}, path)
    return path


def _mini_shape(key: str, shape: list[int]) -> list[int] | None:
    if key.startswith("cond_stage_model"):
        _, _, layer = key.partition(".layers.")
        if layer and int(layer.split(".")[0]) >= MINI_CLIP_LAYERS:
            return None
        return [{768: 64, 3072: 256}.get(side, side) for side in shape]
    if key.startswith("first_stage_model"):
        return [side // 4 if side >= 128 else side for side in shape]
    return [64 if side == 768 else side // 10 if side % 320 == 0 else side for side in shape]


def _tensor(key: str, shape: list[int]) -> np.ndarray:
    """One weight, from its key alone: norms near 1, biases near 0, matrices scaled so that activations keep their size."""
    if key.endswith("position_ids"):
        return np.arange(shape[-1], dtype=np.int64).reshape(shape)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        is_norm = any(part in key for part in ("norm", ".in_layers.0.", ".out_layers.0.", ".out.0."))
        noise = 1.0 + 0.05 * noise if is_norm and key.endswith("weight") else 0.02 * noise
    else:
        noise = noise * (0.02 if "embedding" in key else 0.5 / np.sqrt(np.prod(shape[1:])))
    return noise.astype(np.float16)


if __name__ == "__main__":
    print({"full": write_full, "mini": write_mini}[sys.argv[1]](Path(sys.argv[2])))
