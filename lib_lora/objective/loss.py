"""The loss and its weights, from tensors. To add a weight: a function here, one line in `sample_weights`, an option."""

from __future__ import annotations

import math

import torch

from lib_lora.config.objective import BENT, LossType, ObjectiveConfig
from lib_lora.families.noise_process import NoiseProcess

LARGEST_SNR = 1000.0  # sd-scripts' bound in all weights but min-SNR


def noise_schedule(objective: ObjectiveConfig, process: NoiseProcess) -> NoiseProcess:
    """The process that adds noise to latents: the model's own, or the same with zero terminal SNR."""
    found: NoiseProcess = process.with_zero_terminal_snr() if objective.zero_terminal_snr else process
    return found


def batch_loss(
    model_pred: torch.Tensor,
    target: torch.Tensor,
    timesteps: torch.Tensor,
    objective: ObjectiveConfig,
    process: NoiseProcess,
    mask: torch.Tensor | None = None,
    loss_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The scalar loss: mean over each sample, weighted, mean over the batch (sd-scripts `process_batch`).

    Args:
        model_pred: the U-Net's output.
        target: noise or velocity.
        timesteps: of every sample.
        objective: which error, which weights.
        process: the model's own, whose SNR the weights use even with zero terminal SNR, as sd-scripts.
        mask: factors on the error, 0 to 1; the mean is still over all elements.
        loss_weights: weight of each sample.

    Shapes:
        model_pred, target: `[B, C, h, w]`; timesteps, loss_weights: `[B]`; mask: `[B, 1, h, w]`
        -> `[]` fp32
    """
    thresholds = torch.ones(len(timesteps), device=timesteps.device)  # only for huber and smooth_l1
    if objective.loss_type in BENT:
        thresholds = huber_thresholds(objective, timesteps, noise_schedule(objective, process))
    error = elementwise_error(model_pred.float(), target.float(), objective.loss_type, thresholds)
    if mask is not None:
        error = error * mask
    weights = sample_weights(objective, timesteps, process)
    return (error.mean(dim=(1, 2, 3)) * (weights if loss_weights is None else weights * loss_weights)).mean()


def elementwise_error(
    model_pred: torch.Tensor, target: torch.Tensor, loss_type: LossType, thresholds: torch.Tensor
) -> torch.Tensor:
    """The error of every element, in the shape of `target`; thresholds `[B]` are used by huber and smooth_l1.

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


def huber_thresholds(objective: ObjectiveConfig, timesteps: torch.Tensor, process: NoiseProcess) -> torch.Tensor:
    """The threshold c of every sample, `[B]` fp32 (sd-scripts `get_huber_threshold_if_needed`; Khrapov et al. 2024).

    constant: s · c; exponential: s · c^(t / 1000); snr: (1 − c) / (1 + σ)² + c with σ = √((1 − ᾱ) / ᾱ).
    """
    c, scale = objective.huber_c, objective.huber_scale
    if objective.huber_schedule == "constant":
        return torch.full((len(timesteps),), c * scale, device=timesteps.device)
    if objective.huber_schedule == "exponential":
        return torch.exp(timesteps * (math.log(c) / process.steps)) * scale
    return (1 - c) / (1 + process.sigmas(timesteps)) ** 2 + c


def min_snr_weight(timesteps: torch.Tensor, process: NoiseProcess, gamma: float, *, velocity: bool) -> torch.Tensor:
    """min(SNR, γ) / SNR for noise, / (SNR + 1) for velocity, `[B]` (Hang et al. 2023, "Min-SNR Weighting Strategy", 3.4)."""
    ratio = process.snr(timesteps)
    return ratio.clamp(max=gamma) / (ratio + 1 if velocity else ratio)


def debiased_weight(timesteps: torch.Tensor, process: NoiseProcess, *, velocity: bool) -> torch.Tensor:
    """1 / √SNR for noise, 1 / (SNR + 1) for velocity, `[B]` (Yu et al. 2023, "Debias the Training of Diffusion Models")."""
    ratio = process.snr(timesteps).clamp(max=LARGEST_SNR)
    return 1 / (ratio + 1) if velocity else ratio.rsqrt()


def velocity_scale(timesteps: torch.Tensor, process: NoiseProcess) -> torch.Tensor:
    """SNR / (SNR + 1), `[B]`: turns a velocity loss into a noise loss (sd-scripts `get_snr_scale`)."""
    ratio = process.snr(timesteps).clamp(max=LARGEST_SNR)
    return ratio / (ratio + 1)


def sample_weights(objective: ObjectiveConfig, timesteps: torch.Tensor, process: NoiseProcess) -> torch.Tensor:
    """The product of all weights that `objective` selects, `[B]` fp32."""
    weights = torch.ones(len(timesteps), device=timesteps.device)
    velocity = objective.v_parameterization
    if objective.min_snr_gamma > 0:
        weights = weights * min_snr_weight(timesteps, process, objective.min_snr_gamma, velocity=velocity)
    if objective.scale_v_pred_loss_like_noise_pred:
        weights = weights * velocity_scale(timesteps, process)
    if objective.v_pred_like_loss > 0:
        weights = weights * (1 + objective.v_pred_like_loss / velocity_scale(timesteps, process))
    if objective.debiased_estimation_loss:
        weights = weights * debiased_weight(timesteps, process, velocity=velocity)
    return weights
