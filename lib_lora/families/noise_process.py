"""The protocol of a noise process: adding noise to latents, the prediction target, and sampling."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class NoiseProcess(Protocol):
    """A noise process. It may be on another device than its arguments.

    Shapes:
        latents, noise, predicted: `[B, C, h, w]`; timesteps: `[B]` int64, from 0 to `steps` - 1
    """

    @property
    def steps(self) -> int:
        """The number of timesteps."""

    def to(self, device: torch.device) -> Any:
        """The same process on `device`."""

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Its tensors, which are on its device."""

    def with_zero_terminal_snr(self) -> Any:
        """The same process with an SNR of 0 at the last timestep."""

    def draw_timesteps(self, count: int, generator: torch.Generator, low: int, high: int) -> torch.Tensor:
        """`count` timesteps over low … high - 1, int64 on the CPU."""

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Noisy latents."""

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, *, velocity: bool) -> torch.Tensor:
        """What the model should predict. `velocity`: the model predicts v instead of its family's usual target."""

    def snr(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Signal-to-noise ratio of every sample, `[B]`."""

    def sigmas(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Standard deviation of the noise relative to latents of factor 1, `[B]`."""

    def denoised_step(
        self, latents: torch.Tensor, predicted: torch.Tensor, t: int, after: int, *, velocity: bool
    ) -> torch.Tensor:
        """Latents at timestep `after` from those at `t`, by a deterministic sampler."""
