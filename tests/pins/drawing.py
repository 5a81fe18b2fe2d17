"""A picture drawn from an ldm model by ldm's own sampler, as a webui does, without our code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ldm.models.diffusion.ddim import DDIMSampler


@torch.no_grad()
def draw(model: Any, prompt: str, *, seed: int, steps: int = 2) -> np.ndarray:
    """`[64, 64, 3]` uint8."""
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    conditioning, empty = (model.get_learned_conditioning([text]) for text in (prompt, ""))
    latents, _ = DDIMSampler(model).sample(
        steps, 1, (4, 8, 8), conditioning, verbose=False, x_T=noise, eta=0.0,
        unconditional_guidance_scale=7.0, unconditional_conditioning=empty,
    )  # fmt: skip
    pixels = ((model.decode_first_stage(latents)[0].float().permute(1, 2, 0) + 1) / 2).clamp(0, 1)
    return (pixels.numpy() * 255).round().astype(np.uint8)
