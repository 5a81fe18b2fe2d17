"""A small deterministic sampler for previews, on the loaded model with its adapters.

Does not touch the host's checkpoint, caches or global random state.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from lib_lora.config.objective import ObjectiveConfig
from lib_lora.data.images import Pixels
from lib_lora.data.sizes import Size
from lib_lora.data.tokens import caption_ids
from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import Conditioning, TextInputs, encode
from lib_lora.objective.loss import noise_schedule
from lib_lora.randomness import normal
from lib_lora.training.precision import Precision


@dataclass(frozen=True)
class PreviewRequest:
    """A picture to draw; `size` in pixels."""

    prompt: str
    size: Size
    steps: int
    seed: int
    guidance: float
    clip_skip: int = 1
    negative: str = ""
    max_token_length: int = 75
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


@torch.no_grad()
def sample(base: BaseModel, request: PreviewRequest, precision: Precision) -> Pixels:
    """The picture, `[height, width, 3]`, drawn with classifier-free guidance."""
    process = noise_schedule(request.objective, base.noise_process)
    velocity, shape = request.objective.v_parameterization, base.family.latent_shape(*request.size)
    latents = normal((1, *shape), request.seed, "sample").to(base.device)
    conditioning = _conditioning(base, request, precision)
    timesteps = [round(t) for t in torch.linspace(process.steps - 1, 0, request.steps + 1).tolist()][:-1]
    for position, t in enumerate(timesteps):
        after = timesteps[position + 1] if position + 1 < len(timesteps) else 0
        predicted = _guided(base, latents, t, conditioning, request.guidance, precision)
        latents = process.denoised_step(latents, predicted, t, after, velocity=velocity)
    pixels = base.decode_latents(latents / base.family.latent_scale)[0].float().cpu()
    scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0)  # [H, W, 3]
    return scaled.nan_to_num().numpy().astype(np.uint8)


def _conditioning(base: BaseModel, request: PreviewRequest, precision: Precision) -> Conditioning:
    """Conditioning of the negative prompt and the prompt, in this order, for an uncropped picture."""
    texts, length, size = (request.negative, request.prompt), request.max_token_length, request.size
    ids = tuple(
        torch.tensor([caption_ids(base.tokenizer, text, length, encoder.pad_id) for text in texts], device=base.device)
        for encoder in base.text_encoders
    )
    sizes = torch.tensor([[*size, 0, 0, *size]] * 2, device=base.device)
    with precision.autocast(base.device):
        return replace(encode(base.text_encoders, TextInputs(ids), request.clip_skip), sizes=sizes)


def _guided(
    base: BaseModel, latents: torch.Tensor, t: int, conditioning: Conditioning, guidance: float, precision: Precision
) -> torch.Tensor:
    timesteps = torch.tensor([t, t], device=base.device)
    with precision.autocast(base.device):
        without, with_prompt = base.predict(latents.repeat(2, 1, 1, 1), timesteps, conditioning).float().chunk(2)
    return without + guidance * (with_prompt - without)
