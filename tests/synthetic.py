"""Checkpoints with reproducible random weights: Stable Diffusion 1.5 in full shape, or in miniature with the same layout.

    python -m tests.synthetic full|mini DIR

writes DIR/sd15-full.safetensors or DIR/sd15-mini.safetensors; the miniature gets a sidecar .yaml and a text encoder folder
beside it, with which a webui loads it.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from lib_lora.hosts.ldm_config import write_beside

SHAPES = Path(__file__).parent / "data" / "sd15_shapes.json"
MINI_CLIP_LAYERS = 2


def write_full(folder: Path) -> Path:
    """SD 1.5 in full shape, fp16, 2.1 GB."""
    return _write(folder / "sd15-full.safetensors", lambda key, shape: shape)


def write_mini(folder: Path) -> Path:
    """A miniature (35 MB): U-Net a tenth as wide, text encoder 64 wide with two layers, VAE a quarter as wide."""
    path = _write(folder / "sd15-mini.safetensors", _mini_shape)
    write_beside(path, load_file(path))
    return path


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
