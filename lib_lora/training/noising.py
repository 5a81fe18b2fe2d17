"""Random draws of a step: noise, timesteps and extra noise, as pure functions of (seed, step, place in the step)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lib_lora.config.objective import ObjectiveConfig
from lib_lora.data.sizes import Size
from lib_lora.families.noise_process import NoiseProcess
from lib_lora.objective.extra_noise import multires_sizes, with_offset, with_resolutions
from lib_lora.objective.loss import noise_schedule
from lib_lora.randomness import generator, normal, uniform


@dataclass(frozen=True)
class Drawn:
    """The U-Net's inputs for a batch, and its target. Shapes: `[B, C, h, w]` twice, timesteps `[B]` int64."""

    noisy_latents: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor


def draw(
    objective: ObjectiveConfig,
    latents: torch.Tensor,
    process: NoiseProcess,
    seed: int,
    step: int | str,
    first: int = 0,
    timesteps: torch.Tensor | None = None,
) -> Drawn:
    """Noisy latents, target and timesteps of a batch of `step`.

    Args:
        objective: settings of noise, timesteps and target.
        latents: scaled, `[B, C, h, w]` on the CPU.
        process: the model's noise process.
        seed: of the run.
        step: counts from 0; or the name of a draw that belongs to no step.
        first: place of the first sample in the step, if a step has several batches.
        timesteps: `[B]` int64; drawn if None.
    """
    noised, places = noise_schedule(objective, process), range(first, first + len(latents))
    noise = step_noise(objective, latents, seed, step, first)
    low, high = objective.min_timestep, objective.max_timestep
    if timesteps is None:
        timesteps = noised.draw_timesteps(first + len(latents), generator(seed, "timesteps", step), low, high)[first:]
    seen = noise
    if objective.ip_noise_gamma > 0:
        random = objective.ip_noise_gamma_random_strength
        strength = objective.ip_noise_gamma * (uniform(seed, "perturbation strength", step) if random else 1.0)
        seen = noise + strength * _per_sample(latents.shape[1:], places, seed, "perturbation", step)
    target = noised.target(latents, noise, timesteps, velocity=objective.v_parameterization)
    return Drawn(noised.add_noise(latents, seen, timesteps), target, timesteps)


def step_noise(objective: ObjectiveConfig, latents: torch.Tensor, seed: int, step: int | str, first: int = 0) -> torch.Tensor:
    """The noise of a batch of `step`, with offset and multiresolution noise if configured, `[B, C, h, w]`."""
    places, (channels, height, width) = range(first, first + len(latents)), latents.shape[1:]
    noise = _per_sample(latents.shape[1:], places, seed, "noise", step)
    if objective.noise_offset > 0:
        random = objective.noise_offset_random_strength
        strength = objective.noise_offset * (uniform(seed, "offset strength", step) if random else 1.0)
        drawn = _per_sample((channels, 1, 1), places, seed, "offset", step)
        noise = with_offset(noise, latents, drawn, strength, objective.adaptive_noise_scale)
    if objective.multires_noise_iterations > 0:
        uniforms = [uniform(seed, "multires size", step, i) for i in range(objective.multires_noise_iterations)]
        layers = [_per_sample((channels, *size), places, seed, "multires", step, i)
                  for i, size in enumerate(multires_sizes(Size(height, width), uniforms))]  # fmt: skip
        noise = with_resolutions(noise, layers, objective.multires_noise_discount)
    return noise


def _per_sample(shape: tuple[int, ...], places: range, seed: int, *labels: str | int) -> torch.Tensor:
    """Standard normal numbers for every place in the step, `[len(places), *shape]`."""
    return torch.stack([normal(tuple(shape), seed, *labels, place) for place in places])
