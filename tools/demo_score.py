"""The demo's measures: the loss on held-out pictures, and the share of drawn pictures that are nearest to the concept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lib_lora.config.objective import ObjectiveConfig
from lib_lora.config.precision import PrecisionConfig
from lib_lora.data.images import Pixels
from lib_lora.data.sizes import Size
from lib_lora.data.tokens import caption_ids
from lib_lora.hosts.standalone import DiffusersModel
from lib_lora.model.base import BaseModel, networks
from lib_lora.model.conditioning import TextInputs
from lib_lora.output.preview import PreviewRequest, sample
from lib_lora.randomness import normal
from lib_lora.training.precision import choose_precision
from lib_lora.training.step import StepInputs, compute_loss
from lib_lora.training.vae import image_tensor
from tools.demo_pictures import SIDE
from tools.tiny.pictures import BACKGROUNDS, COLOURS, PLACES, THINGS, Scene, paint

SEEDS = 16
SAMPLING_STEPS = 20
NOISES = 12  # per held-out picture, with timesteps spread evenly over the schedule
PER_CLASS = 12  # reference pictures of each class that the tiny checkpoint knows
FEATURE_SIDE = 16


@torch.no_grad()
def heldout_loss(base: BaseModel, pictures: Sequence[Pixels], caption: str) -> float:
    """Mean loss over fixed noise and timesteps, with the adapters that are attached."""
    ids = torch.tensor([caption_ids(base.tokenizer, caption, 75)] * NOISES)
    timesteps = torch.linspace(0, base.noise_process.steps - 1, NOISES + 2)[1:-1].long()
    losses = []
    for number, picture in enumerate(pictures):
        posterior_mean, _ = base.encode_image(image_tensor(picture)[None])
        latents = (posterior_mean * base.family.latent_scale).expand(NOISES, -1, -1, -1)
        noise = normal(tuple(latents.shape), 1, "heldout", number)
        noisy = base.noise_process.add_noise(latents, noise, timesteps)
        losses.append(float(compute_loss(base, StepInputs(noisy, noise, timesteps, TextInputs((ids,))), ObjectiveConfig(), 1)))
    return float(np.mean(losses))


def draw(base: BaseModel, prompt: str, seeds: int = SEEDS) -> list[Pixels]:
    """One picture per seed, with the adapters that are attached."""
    precision = choose_precision(PrecisionConfig(mixed_precision="no"), base.device)
    requests = [PreviewRequest(prompt, Size(SIDE, SIDE), SAMPLING_STEPS, seed, guidance=4.0) for seed in range(seeds)]
    return [sample(base, request, precision) for request in requests]


def concept_score(drawn: Sequence[Pixels], heldout: Sequence[Pixels]) -> float:
    """Share of the drawn pictures whose nearest reference is a held-out picture of the concept.

    The other references are new pictures of all that the tiny checkpoint knows: each thing and each background. Distance is
    Euclidean between pictures averaged down to 16×16.
    """
    concept = [_feature(picture) for picture in heldout]
    others = [_feature(picture) for picture in known_pictures()]
    nearer = [_nearest(_feature(picture), concept) < _nearest(_feature(picture), others) for picture in drawn]
    return sum(nearer) / len(nearer)


def known_pictures() -> list[Pixels]:
    """New pictures of every class that the tiny checkpoint was trained on."""
    rng = np.random.default_rng(2**20)
    scenes = [Scene(thing, str(rng.choice(list(COLOURS))), str(rng.choice(BACKGROUNDS)), str(rng.choice(list(PLACES))))
              for thing in THINGS for _ in range(PER_CLASS)]  # fmt: skip
    scenes += [Scene("", "", background, "") for background in BACKGROUNDS for _ in range(PER_CLASS)]
    return [paint(scene, rng) for scene in scenes]


def fingerprint(base: DiffusersModel) -> str:
    """SHA-256 over every weight and buffer of the three networks."""
    digest = hashlib.sha256()
    for module in (*networks(base), base.vae):
        for tensor in [*module.parameters(), *module.buffers()]:
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _feature(picture: Pixels) -> NDArray[np.float32]:
    small = cv2.resize(picture, (FEATURE_SIDE, FEATURE_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / 255


def _nearest(feature: NDArray[np.float32], references: Sequence[NDArray[np.float32]]) -> float:
    return min(float(np.square(feature - reference).sum()) for reference in references)
