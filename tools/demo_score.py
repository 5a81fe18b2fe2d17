"""Two honest numbers: the loss on held-out pictures, and how often a picture looks like the concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lib_lora.config.groups import ObjectiveConfig
from lib_lora.data.images import Pixels
from lib_lora.data.tokens import caption_ids
from lib_lora.model.base import BaseModel
from lib_lora.objective.noise import TIMESTEPS, add_noise
from lib_lora.randomness import normal
from lib_lora.training.latents import image_tensor
from lib_lora.training.step import StepInputs, compute_loss

NOISES = 12  # per held-out picture, with timesteps spread evenly over the schedule


@torch.no_grad()
def heldout_loss(base: BaseModel, pictures: Sequence[Pixels], caption: str, side: int) -> float:
    """Mean loss over fixed noise and timesteps; whatever is attached to the model takes part."""
    ids = torch.tensor([caption_ids(base.tokenizer, caption, 75)] * NOISES)
    timesteps = torch.linspace(0, TIMESTEPS - 1, NOISES + 2)[1:-1].long()
    losses = []
    for number, picture in enumerate(pictures):
        mean, _ = base.encode_image(image_tensor(small(picture, side))[None])
        latents = (mean * base.latent_scale).expand(NOISES, -1, -1, -1)
        noise = normal(tuple(latents.shape), 1, "heldout", number)
        noisy = add_noise(latents, noise, timesteps, base.alphas_cumprod)
        losses.append(float(compute_loss(base, StepInputs(noisy, noise, timesteps, ids), ObjectiveConfig(), 1)))
    return sum(losses) / len(losses)


def concept_share(
    pictures: Sequence[Pixels], heldout: Sequence[Pixels], others: Mapping[str, Sequence[Pixels]], side: int
) -> float:
    """Share of `pictures` that are nearer to the held-out pictures' mean than to the mean of any other class."""
    groups = [np.stack([features(small(p, side)) for p in group]) for group in (heldout, *others.values())]
    spread = np.concatenate([group - group.mean(axis=0) for group in groups]).std(axis=0) + 1e-6
    centres = np.stack([group.mean(axis=0) for group in groups]) / spread
    nearest = [int(np.square(centres - features(small(p, side)) / spread).sum(axis=1).argmin()) for p in pictures]
    return nearest.count(0) / len(nearest)


def features(picture: Pixels) -> NDArray[np.float64]:
    """Colour in Lab and how busy it is, over a 2×2 grid, `[28]`: what a glance takes in."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float64)
    half = picture.shape[0] // 2
    cells = [lab[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    busy = [np.abs(np.diff(cell[..., 0], axis=0)).mean() for cell in cells]
    return np.concatenate([*(cell.mean(axis=(0, 1)) for cell in cells), *(cell.std(axis=(0, 1)) for cell in cells), busy])


def small(picture: Pixels, side: int) -> Pixels:
    """`picture` as `[side, side, 3]`."""
    return (
        picture
        if picture.shape[0] == side
        else np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    )
