"""Write diffusers' modules as one file in ldm's layout.

The mapping of names is diffusers' own conversion (file -> modules), applied to marker tensors and inverted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import save_file
from torch import nn

Weights = dict[str, torch.Tensor]
_SHAPES = Path(__file__).resolve().parents[2] / "tests" / "data" / "sd15_shapes.json"


def write_checkpoint(path: Path, unet: Any, text_encoder: nn.Module, vae: Any) -> None:
    """Write the three networks as a Stable Diffusion 1.x checkpoint in fp16."""
    keys = list(json.loads(_SHAPES.read_text()))
    unet_keys = [key for key in keys if key.startswith("model.diffusion_model.")]
    blocks = [key.removesuffix("out_layers.3.weight") for key in unet_keys if key.endswith("out_layers.3.weight")]
    unet_keys += [f"{block}skip_connection.{leaf}" for block in blocks for leaf in ("weight", "bias")]  # where widths differ
    vae_keys = [key for key in keys if key.startswith("first_stage_model.")]
    weights = _backwards(unet_keys, dict(unet.config), convert_ldm_unet_checkpoint, unet.state_dict())
    weights.update(_backwards(vae_keys, dict(vae.config), convert_ldm_vae_checkpoint, vae.state_dict()))
    prefix = "cond_stage_model.transformer.text_model."
    weights.update({prefix + key.removeprefix("text_model."): value for key, value in text_encoder.state_dict().items()})
    weights[prefix + "embeddings.position_ids"] = torch.arange(77)[None]  # older transformers keep it with the weights
    shrunk = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file({key: value.contiguous() for key, value in shrunk.items()}, path)


def _backwards(keys: Iterable[str], config: dict[str, Any], convert: Callable[..., Weights], trained: Weights) -> Weights:
    """The trained tensors under the file's keys; keys that these networks lack are left out."""
    markers = {key: torch.full((1, 1, 1, 1), float(number)) for number, key in enumerate(dict.fromkeys(keys))}
    names = {int(marker.flatten()[0]): name for name, marker in convert(dict(markers), config).items() if name in trained}
    if missing := set(trained) - set(names.values()):
        raise ValueError(f"no key of the file holds {sorted(missing)[:3]}")
    found = {key: trained[names[number]] for number, key in enumerate(markers) if number in names}
    # in the file, the VAE's attention is 1×1 convolutions
    is_projection = [f"mid.attn_1.{letter}.weight" for letter in ("q", "k", "v", "proj_out")]
    return {
        key: value[..., None, None] if any(key.endswith(end) for end in is_projection) else value for key, value in found.items()
    }
