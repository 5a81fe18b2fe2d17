"""Checkpoints with reproducible random weights: Stable Diffusion 1.5 in full shape, or in miniature with the same layout.

    python -m tests.synthetic full|mini|inpainting|sd2|sdxl DIR

writes DIR/sd15-full.safetensors, or a miniature of that family, with a .yaml and, if needed, a text encoder folder beside it, so
that a webui can load it. Tensors of miniatures are cached in build/checkpoints, by a hash of all that makes them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from lib_lora.hosts.ldm_config import write_beside
from tests.webui_configs import write_refiner, write_sd2, write_sdxl, write_unclip

SHAPES = Path(__file__).parent / "data" / "sd15_shapes.json"
SDXL_SHAPES = SHAPES.with_name("sdxl_shapes.json")
KEPT = Path(__file__).parents[1] / "build" / "checkpoints"
MINI_CLIP_LAYERS = 2
# open_clip's ViT-S-32-alt, the smallest that it knows by name
MINI_OPEN_CLIP = {"layers": 10, "width": 256}
MINI_SDXL_DEPTH = 2  # transformers in the lowest level, which has 10

Reshape = Callable[[str, list[int]], "list[int] | None"]


def write_full(folder: Path) -> Path:
    """SD 1.5 in full shape, fp16, 2.1 GB."""
    return _write(folder / "sd15-full.safetensors", lambda key, shape: shape, keep=False)


def write_mini(folder: Path) -> Path:
    """A miniature (35 MB): U-Net a tenth as wide, text encoder 64 wide with two layers, VAE a quarter as wide."""
    path = _write(folder / "sd15-mini.safetensors", _mini_shape)
    write_beside(path, load_file(path))
    return path


def write_mini_inpainting(folder: Path) -> Path:
    """The same as an inpainting model: its first convolution reads nine channels."""
    path = _write(folder / "sd15-inpainting-mini.safetensors", _nine_channels(_mini_shape))
    write_beside(path, load_file(path))
    return path


def write_mini_sd2(folder: Path, *, velocity: bool = False, inpaints: bool = False) -> Path:
    """A miniature of SD 2.x (130 MB): a fifth as wide, since its heads are 64 wide everywhere."""
    reshape = _nine_channels(_mini_sd2_shape) if inpaints else _mini_sd2_shape
    name = f"sd2{'-inpainting' if inpaints else ''}{'-v' if velocity else ''}-mini.safetensors"
    path = _write(folder / name, reshape, _open_clip_shapes("cond_stage_model.model."))
    write_sd2(path, load_file(path), velocity=velocity)
    return path


def write_mini_sdxl(folder: Path, *, velocity: bool = False, inpaints: bool = False) -> Path:
    """A miniature of SDXL (70 MB): U-Net a tenth as wide, with two transformers in its lowest level."""
    reshape = _nine_channels(_mini_sdxl_shape) if inpaints else _mini_sdxl_shape
    name = f"sdxl{'-inpainting' if inpaints else ''}{'-v' if velocity else ''}-mini.safetensors"
    path = _write(folder / name, reshape, shapes_of=SDXL_SHAPES)
    write_sdxl(path, load_file(path), velocity=velocity)
    return path


def write_mini_unclip(folder: Path) -> Path:
    """A miniature of SD 2.x UnCLIP, which cannot be trained: its U-Net is told of a picture, too."""
    path = _write(
        folder / "unclip-mini.safetensors", _mini_sd2_shape, _open_clip_shapes("cond_stage_model.model.") | _of_pictures()
    )
    write_unclip(path, load_file(path))
    return path


def write_mini_refiner(folder: Path) -> Path:
    """A miniature of an SDXL refiner, which cannot be trained: the second text encoder alone, and a score among its numbers."""
    shapes = {
        key.replace("embedders.1", "embedders.0"): shape
        for key, shape in _shapes(_mini_refiner_shape, SDXL_SHAPES).items()
        if not key.startswith("conditioner.embedders.0")
    }
    path = _write(folder / "refiner-mini.safetensors", lambda *_: None, shapes)
    write_refiner(path, load_file(path))
    return path


def _write(
    path: Path,
    reshape: Reshape,
    more: dict[str, list[int]] | None = None,
    shapes_of: Path = SHAPES,
    *,
    keep: bool = True,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = _shapes(reshape, shapes_of) | (more or {})
    if keep:
        shutil.copyfile(_kept(shapes), path)
    else:
        _save(shapes, path)
    return path


def _save(shapes: dict[str, list[int]], path: Path) -> None:
    save_file({key: _tensor(key, shape) for key, shape in shapes.items()}, path)


def _kept(shapes: dict[str, list[int]]) -> Path:
    """The file of these tensors in `KEPT`, made where it is not there; whole whenever it is there, whoever else makes it."""
    made_by = json.dumps([shapes, Path(__file__).read_text(encoding="utf-8"), np.__version__])
    path = KEPT / f"{hashlib.sha256(made_by.encode()).hexdigest()}.safetensors"
    if not path.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder:
            part = Path(folder) / path.name
            _save(shapes, part)
            part.replace(path)
    return path


def _shapes(reshape: Reshape, shapes_of: Path) -> dict[str, list[int]]:
    found = {key: reshape(key, shape) for key, shape in json.loads(shapes_of.read_text()).items()}
    return {key: shape for key, shape in found.items() if shape is not None}


def _mini_shape(key: str, shape: list[int]) -> list[int] | None:
    if key.startswith("cond_stage_model"):
        _, _, layer = key.partition(".layers.")
        if layer and int(layer.split(".")[0]) >= MINI_CLIP_LAYERS:
            return None
        return [{768: 64, 3072: 256}.get(side, side) for side in shape]
    if key.startswith("first_stage_model"):
        return [side // 4 if side >= 128 else side for side in shape]
    return [64 if side == 768 else side // 10 if side % 320 == 0 else side for side in shape]


def _nine_channels(reshape: Reshape) -> Reshape:
    """The same for an inpainting model: its first convolution reads a mask and latents beside the noisy ones."""

    def shape_of(key: str, shape: list[int]) -> list[int] | None:
        small = reshape(key, shape)
        return [small[0], 9, *small[2:]] if small and key == "model.diffusion_model.input_blocks.0.0.weight" else small

    return shape_of


def _mini_sd2_shape(key: str, shape: list[int]) -> list[int] | None:
    if key.startswith("cond_stage_model"):
        return None
    if key.startswith("first_stage_model"):
        return _mini_shape(key, shape)
    if key.endswith(("proj_in.weight", "proj_out.weight")):
        shape = shape[:2]  # Linear in SD 2.x
    return [MINI_OPEN_CLIP["width"] if side == 768 else side // 5 if side % 320 == 0 else side for side in shape]


def _mini_sdxl_shape(key: str, shape: list[int]) -> list[int] | None:
    if key.startswith("conditioner.embedders.0"):
        return _mini_shape(key.replace("conditioner.embedders.0", "cond_stage_model"), shape)
    if key.startswith("conditioner.embedders.1"):
        _, _, layer = key.partition(".resblocks.")
        if layer and int(layer.split(".")[0]) >= MINI_OPEN_CLIP["layers"]:
            return None
        return [side * MINI_OPEN_CLIP["width"] // 1280 if side % 1280 == 0 else side for side in shape]
    if key.startswith("first_stage_model"):
        return _mini_shape(key, shape)
    _, _, block = key.partition(".transformer_blocks.")
    if block and int(block.split(".")[0]) >= MINI_SDXL_DEPTH:
        return None
    width = MINI_OPEN_CLIP["width"]
    told = {2048: 64 + width, 2816: width + 6 * 256}
    return [told.get(side, side // 10 if side % 320 == 0 else side) for side in shape]


def _mini_refiner_shape(key: str, shape: list[int]) -> list[int] | None:
    """No first text encoder beside the second, and a score instead of the size of the bucket."""
    small, width = _mini_sdxl_shape(key, shape), MINI_OPEN_CLIP["width"]
    fewer = {64 + width: width, width + 6 * 256: width + 5 * 256}
    return small and [fewer.get(side, side) if key.startswith("model.") else side for side in small]


def _of_pictures() -> dict[str, list[int]]:
    """What tells UnCLIP's U-Net of a picture, and the end of the encoder that reads it (the rest is not needed to load it)."""
    width, told = 4 * 64, "model.diffusion_model.label_emb.0."
    return {
        told + "0.weight": [width, 2 * MINI_OPEN_CLIP["width"]], told + "0.bias": [width],
        told + "2.weight": [width, width], told + "2.bias": [width],
        "embedder.model.ln_final.weight": [MINI_OPEN_CLIP["width"]], "embedder.model.ln_final.bias": [MINI_OPEN_CLIP["width"]],
    }  # fmt: skip


def _open_clip_shapes(prefix: str) -> dict[str, list[int]]:
    """The text half of open_clip's CLIP."""
    width, layers = MINI_OPEN_CLIP["width"], MINI_OPEN_CLIP["layers"]
    shapes = {
        "positional_embedding": [77, width], "token_embedding.weight": [49408, width], "text_projection": [width, width],
        "ln_final.weight": [width], "ln_final.bias": [width], "logit_scale": [],
    }  # fmt: skip
    layer = {
        "attn.in_proj_weight": [3 * width, width], "attn.in_proj_bias": [3 * width],
        "attn.out_proj.weight": [width, width], "attn.out_proj.bias": [width],
        "ln_1.weight": [width], "ln_1.bias": [width], "ln_2.weight": [width], "ln_2.bias": [width],
        "mlp.c_fc.weight": [4 * width, width], "mlp.c_fc.bias": [4 * width],
        "mlp.c_proj.weight": [width, 4 * width], "mlp.c_proj.bias": [width],
    }  # fmt: skip
    for number in range(layers):
        shapes.update({f"transformer.resblocks.{number}.{part}": shape for part, shape in layer.items()})
    return {prefix + key: shape for key, shape in shapes.items()}


def _tensor(key: str, shape: list[int]) -> np.ndarray:
    """One weight, from its key alone: norms near 1, biases near 0, matrices scaled so that activations keep their size."""
    if key.endswith("position_ids"):
        return np.arange(shape[-1], dtype=np.int64).reshape(shape)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if len(shape) <= 1:
        is_norm = any(part in key for part in ("norm", "ln_", ".in_layers.0.", ".out_layers.0.", ".out.0."))
        noise = 1.0 + 0.05 * noise if is_norm and key.endswith("weight") else 0.02 * noise
    else:
        noise = noise * (0.02 if "embedding" in key else 0.5 / np.sqrt(np.prod(shape[1:])))
    return np.asarray(noise, dtype=np.float16)


if __name__ == "__main__":
    made = {
        "full": write_full, "mini": write_mini, "inpainting": write_mini_inpainting, "sd2": write_mini_sd2,
        "sdxl": write_mini_sdxl,
    }  # fmt: skip
    if len(sys.argv) != 3 or sys.argv[1] not in made:
        sys.exit(f"python -m tests.synthetic FAMILY DIR, where FAMILY is one of {', '.join(made)}")
    print(made[sys.argv[1]](Path(sys.argv[2])))
