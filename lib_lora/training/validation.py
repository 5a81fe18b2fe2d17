"""Validation, the loss on held-out images: its batches, timesteps and noise, which are always the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lib_lora.config.data import DataConfig
from lib_lora.config.groups import TrainConfig
from lib_lora.config.objective import ObjectiveConfig
from lib_lora.families.noise_process import NoiseProcess
from lib_lora.plan import Plan
from lib_lora.training.noising import Drawn, draw

MEASURED = 4  # timesteps; by default 200, 400, 600 and 800 (sd-scripts' NUM_VALIDATION_TIMESTEPS)


@dataclass(frozen=True)
class HeldOutBatch:
    """Samples of one size that are measured together. `first`: place of the first one among all held-out samples."""

    indices: list[int]
    first: int


def heldout_batches(data: DataConfig, plan: Plan) -> Iterator[HeldOutBatch]:
    """The batches that are measured, sorted by size."""
    ordered = sorted(plan.heldout, key=lambda index: (plan.placements[index].bucket, index))
    first, count = 0, 0
    while first < len(ordered) and not (data.max_validation_steps and count == data.max_validation_steps):
        size = plan.placements[ordered[first]].bucket
        batch = [index for index in ordered[first : first + data.batch_size] if plan.placements[index].bucket == size]
        yield HeldOutBatch(batch, first)
        first, count = first + len(batch), count + 1


def heldout_timesteps(objective: ObjectiveConfig) -> list[int]:
    """Timesteps evenly spread between the first and the last one that is trained on, both excluded."""
    low, high = objective.min_timestep, objective.max_timestep
    return [int(low + (high - low) * i / (MEASURED + 1)) for i in range(1, MEASURED + 1)]


def draw_heldout(config: TrainConfig, latents: torch.Tensor, process: NoiseProcess, timestep: int, first: int) -> Drawn:
    """Noisy latents and target at `timestep`; the noise of an image is always the same. Shapes as in `draw`."""
    seed = config.data.validation_seed or config.run.seed
    timesteps = torch.full((len(latents),), timestep, dtype=torch.int64)
    return draw(config.objective, latents, process, seed, f"held out {timestep}", first, timesteps)
