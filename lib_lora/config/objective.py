"""Options of the objective: noise, timesteps, the loss and its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib_lora.config.declaration import ReadIf, option

LossType = Literal["l2", "l1", "huber", "smooth_l1"]
BENT = ("huber", "smooth_l1")  # losses that have a threshold
HuberSchedule = Literal["snr", "exponential", "constant"]
WITH_HUBER = ReadIf(lambda objective: objective.loss_type in BENT, "Loss (loss_type) is neither huber nor smooth_l1")
WITH_OFFSET = ReadIf(lambda objective: objective.noise_offset > 0, "Noise offset (noise_offset) is 0")


@dataclass(frozen=True)
class ObjectiveConfig:
    """The objective."""

    min_snr_gamma: float = option(
        0.0,
        label="Min-SNR gamma",
        kohya="min_snr_gamma",
        ge=0.0,
        le=1000.0,
        metadata="ss_min_snr_gamma",
        none_by_default=True,
        help="Weighs nearly clean pictures down, which often trains faster; 5 is usual, 0 turns it off.",
    )
    debiased_estimation_loss: bool = option(
        False,
        label="Debiased estimation",
        kohya="debiased_estimation_loss",
        metadata="ss_debiased_estimation",
        help="Weighs very noisy pictures up, which helps shape and composition.",
    )
    loss_type: LossType = option(
        "l2",
        label="Loss",
        kohya="loss_type",
        metadata="ss_loss_type",
        help="How an error counts. l2 is usual; huber and smooth_l1 forgive outliers such as odd pictures in the set.",
    )
    huber_schedule: HuberSchedule = option(
        "snr",
        label="Huber schedule",
        kohya="huber_schedule",
        metadata="ss_huber_schedule",
        read_if=WITH_HUBER,
        help="How the threshold of huber and smooth_l1 changes with the noise.",
    )
    huber_c: float = option(
        0.1,
        label="Huber threshold",
        kohya="huber_c",
        ge=0.0001,
        le=1.0,
        metadata="ss_huber_c",
        read_if=WITH_HUBER,
        help="Errors above it count less, with huber and smooth_l1; with a schedule, its smallest value.",
    )
    huber_scale: float = option(
        1.0,
        label="Huber scale",
        kohya="huber_scale",
        ge=0.0001,
        le=1000.0,
        metadata="ss_huber_scale",
        read_if=ReadIf(
            lambda objective: objective.loss_type in BENT and objective.huber_schedule != "snr",
            "only huber and smooth_l1 with Huber schedule (huber_schedule) exponential or constant use it",
        ),
        help="Factor on the threshold in the schedules exponential and constant.",
    )
    noise_offset: float = option(
        0.0,
        label="Noise offset",
        kohya="noise_offset",
        ge=0.0,
        le=1.0,
        metadata="ss_noise_offset",
        none_by_default=True,
        help="Shifts the brightness of the noise, so that very dark and bright pictures can be learned; 0.05 to 0.1 is usual.",
    )
    noise_offset_random_strength: bool = option(
        False,
        label="Random noise offset",
        kohya="noise_offset_random_strength",
        metadata="ss_noise_offset_random_strength",
        read_if=WITH_OFFSET,
        help="Draws the strength of the noise offset anew for each step, between 0 and Noise offset.",
    )
    adaptive_noise_scale: float = option(
        0.0,
        label="Adaptive noise scale",
        kohya="adaptive_noise_scale",
        ge=-1.0,
        le=1.0,
        metadata="ss_adaptive_noise_scale",
        none_by_default=True,
        read_if=WITH_OFFSET,
        help="Adds this times the picture's mean brightness to the noise offset; 0 turns it off.",
    )
    multires_noise_iterations: int = option(
        0,
        label="Multires noise layers",
        kohya="multires_noise_iterations",
        ge=0,
        le=64,
        metadata="ss_multires_noise_iterations",
        none_by_default=True,
        help="Adds noise of this many coarser resolutions; 6 to 10 is usual, 0 turns it off.",
    )
    multires_noise_discount: float = option(
        0.3,
        label="Multires noise discount",
        kohya="multires_noise_discount",
        ge=0.0,
        le=1.0,
        metadata="ss_multires_noise_discount",
        read_if=ReadIf(
            lambda objective: objective.multires_noise_iterations > 0, "Multires noise layers (multires_noise_iterations) is 0"
        ),
        help="Strength of each coarser layer against the one before it.",
    )
    ip_noise_gamma: float = option(
        0.0,
        label="Input perturbation",
        kohya="ip_noise_gamma",
        ge=0.0,
        le=1.0,
        metadata="ss_ip_noise_gamma",
        none_by_default=True,
        help="Shows the model a little more noise than it has to predict, against errors that add up; 0.1 is usual, 0 is off.",
    )
    ip_noise_gamma_random_strength: bool = option(
        False,
        label="Random input perturbation",
        kohya="ip_noise_gamma_random_strength",
        metadata="ss_ip_noise_gamma_random_strength",
        read_if=ReadIf(lambda objective: objective.ip_noise_gamma > 0, "Input perturbation (ip_noise_gamma) is 0"),
        help="Draws the strength of the input perturbation anew for each step.",
    )
    min_timestep: int = option(
        0,
        label="First timestep",
        kohya="min_timestep",
        ge=0,
        le=999,
        help="Train on timesteps from here on; small ones are nearly clean pictures (details).",
    )
    max_timestep: int = option(
        1000,
        label="Last timestep",
        kohya="max_timestep",
        ge=1,
        le=1000,
        help="Train on timesteps below this; large ones are nearly noise (composition).",
    )
    v_parameterization: bool = option(
        False,
        label="Checkpoint predicts v",
        kohya="v_parameterization",
        help="Only for checkpoints that were made for v-prediction; others turn to noise.",
    )
    zero_terminal_snr: bool = option(
        False,
        label="Zero terminal SNR",
        kohya="zero_terminal_snr",
        in_kohya_form=False,
        metadata="ss_zero_terminal_snr",
        help="Makes the last timestep pure noise, as some v-prediction checkpoints expect.",
    )
    scale_v_pred_loss_like_noise_pred: bool = option(
        False,
        label="Scale v like noise",
        kohya="scale_v_pred_loss_like_noise_pred",
        help="Weighs timesteps of a v-prediction checkpoint as noise prediction would.",
    )
    v_pred_like_loss: float = option(
        0.0,
        label="v-like loss",
        kohya="v_pred_like_loss",
        ge=0.0,
        le=10.0,
        help="Adds this share of a v-prediction loss when the checkpoint predicts noise; 0 turns it off.",
    )
