"""Error and weights, from tensors alone. To add a weight: a function here, one line in `sample_weights`, an option."""

from __future__ import annotations

import math

import torch

from lib_lora.config.objective import BENT, LossType, ObjectiveConfig
from lib_lora.objective.noise import TIMESTEPS, snr, with_zero_terminal_snr

LARGEST_SNR = 1000.0  # sd-scripts bounds it in all weights but min-SNR


def schedule(objective: ObjectiveConfig, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """ᾱ that latents are noised with, `[1000]`: the model's own, or with its last value 0."""
    return with_zero_terminal_snr(alphas_cumprod) if objective.zero_terminal_snr else alphas_cumprod


def batch_loss(
    model_pred: torch.Tensor,
    target: torch.Tensor,
    timesteps: torch.Tensor,
    objective: ObjectiveConfig,
    alphas_cumprod: torch.Tensor,
    mask: torch.Tensor | None = None,
    loss_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The scalar that backward is called on: mean over each sample, weighted, mean over the batch (sd-scripts `process_batch`).

    Args:
        model_pred: what the U-Net says.
        target: noise or velocity.
        timesteps: of every sample.
        objective: which error, which weights.
        alphas_cumprod: the model's own ᾱ; weights take the SNR from it also with zero terminal SNR, as sd-scripts.
        mask: what counts, 0 to 1; the mean is over everything all the same.
        loss_weights: how much each sample counts.

    Shapes:
        model_pred, target: `[B, 4, h, w]`; timesteps, loss_weights: `[B]`; alphas_cumprod: `[1000]`; mask: `[B, 1, h, w]`
        -> `[]` fp32
    """
    thresholds = torch.ones(len(timesteps), device=timesteps.device)  # of huber and smooth_l1 alone
    if objective.loss_type in BENT:
        thresholds = huber_thresholds(objective, timesteps, schedule(objective, alphas_cumprod))
    error = elementwise_error(model_pred.float(), target.float(), objective.loss_type, thresholds)
    if mask is not None:
        error = error * mask
    weights = sample_weights(objective, timesteps, alphas_cumprod)
    return (error.mean(dim=(1, 2, 3)) * (weights if loss_weights is None else weights * loss_weights)).mean()


def elementwise_error(
    model_pred: torch.Tensor, target: torch.Tensor, loss_type: LossType, thresholds: torch.Tensor
) -> torch.Tensor:
    """The error at every place, in the shape of `target`; thresholds `[B]` count for huber and smooth_l1.

    l2 d²; l1 |d|; huber 2c(√(d² + c²) − c); smooth_l1 2(√(d² + c²) − c)  (sd-scripts `conditional_loss`: pseudo-Huber).
    """
    difference = model_pred - target
    if loss_type == "l2":
        return difference.square()
    if loss_type == "l1":
        return difference.abs()
    c = thresholds.view(-1, *(1 for _ in target.shape[1:]))
    bent = 2 * ((difference.square() + c**2).sqrt() - c)
    return c * bent if loss_type == "huber" else bent


def huber_thresholds(objective: ObjectiveConfig, timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The threshold c of every sample, `[B]` fp32 (sd-scripts `get_huber_threshold_if_needed`; Khrapov et al. 2024).

    constant: s · c; exponential: s · c^(t / 1000); snr: (1 − c) / (1 + σ)² + c with σ = √((1 − ᾱ) / ᾱ).
    """
    c, scale = objective.huber_c, objective.huber_scale
    if objective.huber_schedule == "constant":
        return torch.full((len(timesteps),), c * scale, device=timesteps.device)
    if objective.huber_schedule == "exponential":
        return torch.exp(timesteps * (math.log(c) / TIMESTEPS)) * scale
    alpha_bar = alphas_cumprod.to(timesteps.device)[timesteps]
    sigmas = ((1.0 - alpha_bar) / alpha_bar).sqrt()
    return (1 - c) / (1 + sigmas) ** 2 + c


def min_snr_weight(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor, gamma: float, *, velocity: bool) -> torch.Tensor:
    """min(SNR, γ) / SNR for noise, / (SNR + 1) for velocity, `[B]` (Hang et al. 2023, "Min-SNR Weighting Strategy", 3.4)."""
    ratio = snr(timesteps, alphas_cumprod)
    return ratio.clamp(max=gamma) / (ratio + 1 if velocity else ratio)


def debiased_weight(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor, *, velocity: bool) -> torch.Tensor:
    """1 / √SNR for noise, 1 / (SNR + 1) for velocity, `[B]` (Yu et al. 2023, "Debias the Training of Diffusion Models")."""
    ratio = snr(timesteps, alphas_cumprod).clamp(max=LARGEST_SNR)
    return 1 / (ratio + 1) if velocity else ratio.rsqrt()


def velocity_scale(timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """SNR / (SNR + 1), `[B]`: by it a velocity loss becomes a noise loss (sd-scripts `get_snr_scale`)."""
    ratio = snr(timesteps, alphas_cumprod).clamp(max=LARGEST_SNR)
    return ratio / (ratio + 1)


def sample_weights(objective: ObjectiveConfig, timesteps: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The product of all weights that `objective` asks for, `[B]` fp32."""
    weights = torch.ones(len(timesteps), device=timesteps.device)
    velocity = objective.v_parameterization
    if objective.min_snr_gamma > 0:
        weights = weights * min_snr_weight(timesteps, alphas_cumprod, objective.min_snr_gamma, velocity=velocity)
    if objective.scale_v_pred_loss_like_noise_pred:
        weights = weights * velocity_scale(timesteps, alphas_cumprod)
    if objective.v_pred_like_loss > 0:
        weights = weights * (1 + objective.v_pred_like_loss / velocity_scale(timesteps, alphas_cumprod))
    if objective.debiased_estimation_loss:
        weights = weights * debiased_weight(timesteps, alphas_cumprod, velocity=velocity)
    return weights
