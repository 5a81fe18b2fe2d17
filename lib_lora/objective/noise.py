"""Diffusion schedule, timesteps, noising and the target (Ho et al. 2020, "Denoising Diffusion Probabilistic Models")."""

from __future__ import annotations

import torch

TIMESTEPS = 1000


def scaled_linear_alphas_cumprod() -> torch.Tensor:
    """ᾱ_t of Stable Diffusion, `[1000]` fp32: β_t is linear in √β from 0.00085 to 0.012 (ldm `make_beta_schedule`, "linear")."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def with_zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """ᾱ whose last value is 0: √ᾱ shifted down and stretched so that its first value stays (Lin et al. 2023, algorithm 1).

    Shapes:
        alphas_cumprod: `[1000]` -> `[1000]`
    """
    root = alphas_cumprod.sqrt()
    shifted = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return shifted**2


def add_noise(latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """z_t = √ᾱ_t z + √(1 − ᾱ_t) ε (equation 4).

    Shapes:
        latents, noise: `[B, 4, h, w]`; timesteps: `[B]` int64; alphas_cumprod: `[1000]` -> `[B, 4, h, w]`
    """
    alpha_bar = _alpha_bar(timesteps, alphas_cumprod, latents)
    return alpha_bar.sqrt() * latents + (1.0 - alpha_bar).sqrt() * noise


def velocity(latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The velocity v = √ᾱ_t ε − √(1 − ᾱ_t) z (Salimans & Ho 2022, appendix D). Shapes as `add_noise`."""
    alpha_bar = _alpha_bar(timesteps, alphas_cumprod, latents)
    return alpha_bar.sqrt() * noise - (1.0 - alpha_bar).sqrt() * latents


def snr(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Signal to noise ratio ᾱ_t / (1 − ᾱ_t), `[B]`."""
    alpha_bar = alphas_cumprod.to(timesteps.device)[timesteps]
    return alpha_bar / (1.0 - alpha_bar)


def draw_timesteps(count: int, generator: torch.Generator, low: int = 0, high: int = TIMESTEPS) -> torch.Tensor:
    """`count` timesteps, uniform over low … high - 1, int64 on the CPU."""
    return torch.randint(low, high, (count,), generator=generator)


def _alpha_bar(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """ᾱ_t of every sample, `[B, 1, 1, 1]`, of the device and dtype of `like`."""
    return alphas_cumprod.to(like.device)[timesteps].to(like.dtype).reshape(-1, 1, 1, 1)
