"""Pixels -> latents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lib_lora.data.images import Pixels
from lib_lora.model.base import BaseModel
from lib_lora.randomness import normal


@dataclass(frozen=True)
class Posterior:
    """The VAE's posterior of one image, unscaled. Shapes: `[C, h, w]` twice, fp32 on the CPU."""

    mean: torch.Tensor
    logvar: torch.Tensor

    def sample(self, scale: float, seed: int, *labels: str | int) -> torch.Tensor:
        """Scaled latents z = s · (μ + σ ε), `[C, h, w]`; ε is a function of (seed, labels)."""
        noise = normal(tuple(self.mean.shape), seed, "posterior", *labels)
        return (self.mean + torch.exp(0.5 * self.logvar) * noise) * scale


def posteriors(base: BaseModel, pictures: Sequence[Pixels]) -> list[Posterior]:
    """The posterior of every image, in one call of the VAE. Shapes: `[H, W, 3]` each, all of one size."""
    means, logvars = base.encode_image(torch.stack([image_tensor(pixels) for pixels in pictures]).to(base.device))
    return [Posterior(mean, logvar) for mean, logvar in zip(means.float().cpu(), logvars.float().cpu().clamp(-30.0, 20.0))]


def image_tensor(pixels: Pixels) -> torch.Tensor:
    """`[H, W, 3]` 0..255 -> `[3, H, W]` fp32 in -1..1."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1.0


def pixels_hash(pixels: Pixels) -> str:
    """SHA-256 of an image's pixel values."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()
