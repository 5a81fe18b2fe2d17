"""What an inpainting model's U-Net reads beside the noisy latents: a mask, and the latents of what the mask leaves.

The whole picture counts as masked, so that nothing of it is left: a mask of ones, and the latents of a grey picture. The webui
gives an inpainting model the same when it draws from a prompt alone (`txt2img_image_conditioning`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lib_lora.model.autocast import without_autocast

if TYPE_CHECKING:
    from lib_lora.model.base import BaseModel


class Surroundings:
    """The mask and the latents of grey, by size; computed once each."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._kept: dict[torch.Size, torch.Tensor] = {}

    def beside(self, noisy_latents: torch.Tensor) -> torch.Tensor:
        """Shapes: `[B, C, h, w]` -> `[B, 2C + 1, h, w]` for a model that inpaints (latents, mask, the rest), else unchanged."""
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
