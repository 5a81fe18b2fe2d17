"""Additional inputs of an inpainting model's U-Net: a mask, and the latents of the masked image.

The whole image counts as masked: a mask of ones, and the latents of a grey image. The webui's txt2img gives an inpainting model
the same (`txt2img_image_conditioning`).
"""

from __future__ import annotations

import torch

from lib_lora.model.base import BaseModel
from lib_lora.model.meta_device import without_autocast


class Surroundings:
    """The mask and the grey image's latents, computed once per size."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._kept: dict[torch.Size, torch.Tensor] = {}

    def beside(self, noisy_latents: torch.Tensor) -> torch.Tensor:
        """Append mask and grey latents for an inpainting model. Shapes: `[B, C, h, w]` -> `[B, 2C + 1, h, w]`, else unchanged."""
        if not self._base.family.inpaints:
            return noisy_latents
        shape = noisy_latents.shape[2:]
        if shape not in self._kept:
            self._kept[shape] = self._grey(*shape)
        kept = self._kept[shape].to(noisy_latents)
        return torch.cat([noisy_latents, kept.expand(len(noisy_latents), -1, -1, -1)], dim=1)

    @torch.no_grad()
    def _grey(self, height: int, width: int) -> torch.Tensor:
        base = self._base
        factor = base.family.vae_factor
        grey = torch.zeros(1, 3, factor * height, factor * width, device=base.device)
        with without_autocast(grey):
            mean, _ = base.encode_image(grey)
        return torch.cat([torch.ones_like(mean[:, :1]), mean * base.family.latent_scale], dim=1)
