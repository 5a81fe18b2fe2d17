"""The noise process of Stable Diffusion (Ho et al. 2020, "Denoising Diffusion Probabilistic Models")."""

from __future__ import annotations

from dataclasses import dataclass

import torch

STEPS = 1000
SMALLEST_ALPHA = 1e-4  # lower bound of ᾱ, which is 0 at the first sampling step with zero terminal SNR


@dataclass(frozen=True, eq=False)
class Ddpm:
    """See `NoiseProcess`. `alphas_cumprod`: ᾱ of every timestep, `[1000]` fp32."""

    alphas_cumprod: torch.Tensor

    @property
    def steps(self) -> int:
        return len(self.alphas_cumprod)

    def to(self, device: torch.device) -> Ddpm:
        return Ddpm(self.alphas_cumprod.to(device))

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.alphas_cumprod,)

    def with_zero_terminal_snr(self) -> Ddpm:
        """ᾱ rescaled to end at 0: √ᾱ is shifted and scaled so that its first value stays (Lin et al. 2023, algorithm 1)."""
        root = self.alphas_cumprod.sqrt()
        shifted = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        return Ddpm(shifted**2)

    def draw_timesteps(self, count: int, generator: torch.Generator, low: int, high: int) -> torch.Tensor:
        """`count` timesteps, uniform over low … high - 1, int64 on the CPU."""
        return torch.randint(low, high, (count,), generator=generator)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """z_t = √ᾱ_t z + √(1 − ᾱ_t) ε (equation 4)."""
        alpha_bar = self._alpha_bar(timesteps, latents)
        return alpha_bar.sqrt() * latents + (1.0 - alpha_bar).sqrt() * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, *, velocity: bool) -> torch.Tensor:
        """The noise, or the velocity v = √ᾱ_t ε − √(1 − ᾱ_t) z (Salimans & Ho 2022, appendix D)."""
        if not velocity:
            return noise
        alpha_bar = self._alpha_bar(timesteps, latents)
        return alpha_bar.sqrt() * noise - (1.0 - alpha_bar).sqrt() * latents

    def snr(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Signal-to-noise ratio ᾱ_t / (1 − ᾱ_t), `[B]`."""
        alpha_bar = self.alphas_cumprod.to(timesteps.device)[timesteps]
        return alpha_bar / (1.0 - alpha_bar)

    def sigmas(self, timesteps: torch.Tensor) -> torch.Tensor:
        """σ_t = √((1 − ᾱ_t) / ᾱ_t), `[B]`."""
        alpha_bar = self.alphas_cumprod.to(timesteps.device)[timesteps]
        return ((1.0 - alpha_bar) / alpha_bar).sqrt()

    def denoised_step(
        self, latents: torch.Tensor, predicted: torch.Tensor, t: int, after: int, *, velocity: bool
    ) -> torch.Tensor:
        """One step of DDIM with η = 0 (Song et al. 2020, equation 12)."""
        alpha, alpha_after = float(self.alphas_cumprod[t]), float(self.alphas_cumprod[after])
        if velocity:
            clean = alpha**0.5 * latents - (1 - alpha) ** 0.5 * predicted
            noise = alpha**0.5 * predicted + (1 - alpha) ** 0.5 * latents
        else:
            noise = predicted
            clean = (latents - (1 - alpha) ** 0.5 * noise) / max(alpha, SMALLEST_ALPHA) ** 0.5
        found: torch.Tensor = alpha_after**0.5 * clean + (1 - alpha_after) ** 0.5 * noise
        return found

    def _alpha_bar(self, timesteps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """ᾱ_t of every sample, `[B, 1, 1, 1]`, with the device and dtype of `like`."""
        return self.alphas_cumprod.to(like.device)[timesteps].to(like.dtype).reshape(-1, 1, 1, 1)


def scaled_linear() -> Ddpm:
    """The process of every Stable Diffusion: √β_t is linear, β_t from 0.00085 to 0.012 (ldm `make_beta_schedule`, "linear")."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float32) ** 2
    return Ddpm(torch.cumprod(1.0 - betas, dim=0))
