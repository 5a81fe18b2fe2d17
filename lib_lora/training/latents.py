"""Images -> latents: each image is encoded once, before the first step, and kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch

from lib_lora.data.buckets import Placement
from lib_lora.data.images import Pixels, fit, load_pixels
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError
from lib_lora.model.base import BaseModel
from lib_lora.plan import Plan
from lib_lora.randomness import normal
from lib_lora.training.failures import explained


def encode_samples(base: BaseModel, plan: Plan, seed: int) -> Iterator[torch.Tensor]:
    """The scaled latents of every sample of `plan`, in order, fp32 on the CPU, `[4, h, w]` each.

    Raises:
        DatasetError: a file changed since it was checked, or its latents are not finite.
    """
    for sample, placement in zip(plan.samples, plan.placements):
        base.verify()
        with explained(base, f"encoding {sample.path.name!r}"):
            latents = encode_file(base, sample.path, placement, seed, sample.size)
        yield latents


def encode_file(base: BaseModel, path: Path, placement: Placement, seed: int, size: Size) -> torch.Tensor:
    """One posterior sample z = s · (μ + σ ε), scaled by s: a pure function of (seed, pixels).

    Raises:
        DatasetError: the picture is not of `size` any more, or its latents are not finite.
    """
    whole = load_pixels(path)
    if whole.shape[:2] != size:
        raise DatasetError([f"Image {path.name!r} was changed after it was checked; start again."])
    pixels = fit(whole, placement)
    mean, logvar = base.encode_image(image_tensor(pixels)[None].to(base.device))
    mean, logvar = mean[0].float().cpu(), logvar[0].float().cpu().clamp(-30.0, 20.0)
    label = hashlib.sha256(pixels.tobytes()).hexdigest()
    noise = normal(tuple(mean.shape), seed, "posterior", label)
    latents = (mean + torch.exp(0.5 * logvar) * noise) * base.latent_scale
    if not bool(torch.isfinite(latents).all()):
        raise DatasetError([f"Image {path.name!r} gives latents that are not finite; the VAE cannot encode it."])
    return latents


def image_tensor(pixels: Pixels) -> torch.Tensor:
    """`[H, W, 3]` 0..255 -> `[3, H, W]` fp32 in -1..1."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1.0
