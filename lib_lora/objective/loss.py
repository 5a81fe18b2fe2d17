"""Error and weights, from tensors alone. To add a weight: a function here, one line in `sample_weights`, an option."""

from __future__ import annotations

import torch

from lib_lora.config.groups import ObjectiveConfig
from lib_lora.objective.noise import snr


def squared_error(model_pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each sample, in fp32. Shapes: `[B, 4, h, w]` twice -> `[B]`."""
    return (model_pred.float() - target.float()).square().mean(dim=(1, 2, 3))


def min_snr_weight(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor, gamma: float) -> torch.Tensor:
    """min(SNR, γ) / SNR for noise prediction, `[B]` (Hang et al. 2023, "Min-SNR Weighting Strategy", section 3.4)."""
    ratio = snr(timesteps, alphas_cumprod)
    return ratio.clamp(max=gamma) / ratio


def sample_weights(objective: ObjectiveConfig, timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The product of all weights that `objective` asks for, `[B]` fp32."""
    weights = torch.ones(len(timesteps), device=timesteps.device)
    if objective.min_snr_gamma > 0:
        weights = weights * min_snr_weight(timesteps, alphas_cumprod, objective.min_snr_gamma)
    return weights
