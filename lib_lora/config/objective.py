"""Options of the objective: noise, timesteps, the loss and its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib_lora.config.declaration import ReadIf, above_zero, option

LossType = Literal["l2", "l1", "huber", "smooth_l1"]
BENT = ("huber", "smooth_l1")  # losses that have a threshold
HuberSchedule = Literal["snr", "exponential", "constant"]
WITH_HUBER = ReadIf(lambda objective: objective.loss_type in BENT, "{loss_type} is neither huber nor smooth_l1")
WITH_OFFSET = above_zero("noise_offset")


@dataclass(frozen=True)
class ObjectiveConfig:
    """The objective."""

    min_snr_gamma: float = option(
        0.0,
        label="Min-SNR gamma",
        between=(0.0, 1000.0),
        metadata="ss_min_snr_gamma",
        none_by_default=True,
        help="Gives less weight to timesteps with little noise, which often trains faster; 5 is usual, 0 is off.",
    )
    debiased_estimation_loss: bool = option(
        False,
        label="Debiased estimation",
        metadata="ss_debiased_estimation",
        help="Gives more weight to timesteps with much noise, which helps shape and composition.",
    )
    loss_type: LossType = option(
        "l2",
        label="Loss",
        metadata="ss_loss_type",
        help="The loss function. l2 is usual; huber and smooth_l1 are robust against outliers, such as unusual images in the "
        "dataset.",
    )
    huber_schedule: HuberSchedule = option(
        "snr",
        label="Huber schedule",
        metadata="ss_huber_schedule",
        read_if=WITH_HUBER,
        help="How the threshold of huber and smooth_l1 depends on the noise.",
    )
    huber_c: float = option(
        0.1,
        label="Huber threshold",
        between=(0.0001, 1.0),
        metadata="ss_huber_c",
        read_if=WITH_HUBER,
        help="With huber and smooth_l1, errors above this count less; with a schedule it is the smallest threshold.",
    )
    huber_scale: float = option(
        1.0,
        label="Huber scale",
        between=(0.0001, 1000.0),
        metadata="ss_huber_scale",
        read_if=ReadIf(
            lambda objective: objective.loss_type in BENT and objective.huber_schedule != "snr",
            "only huber and smooth_l1 with {huber_schedule} exponential or constant use it",
        ),
        help="Factor on the threshold with the schedules exponential and constant.",
    )
    noise_offset: float = option(
        0.0,
        label="Noise offset",
        between=(0.0, 1.0),
        metadata="ss_noise_offset",
        none_by_default=True,
        help="Shifts the brightness of the noise, so that very dark and very bright images can be learned; 0.05 to 0.1 is usual, "
        "0 is off.",
    )
    noise_offset_random_strength: bool = option(
        False,
        label="Random noise offset",
        metadata="ss_noise_offset_random_strength",
        read_if=WITH_OFFSET,
        help="Draws the noise offset at random for each step, from 0 to Noise offset.",
    )
    adaptive_noise_scale: float = option(
        0.0,
        label="Adaptive noise scale",
        between=(-1.0, 1.0),
        metadata="ss_adaptive_noise_scale",
        none_by_default=True,
        read_if=WITH_OFFSET,
        help="Adds this times the latents' mean to the noise offset; 0 is off.",
    )
    multires_noise_iterations: int = option(
        0,
        label="Multires noise layers",
        between=(0, 64),
        metadata="ss_multires_noise_iterations",
        none_by_default=True,
        help="Adds noise of this many lower resolutions; 6 to 10 is usual, 0 is off.",
    )
    multires_noise_discount: float = option(
        0.3,
        label="Multires noise discount",
        between=(0.0, 1.0),
        metadata="ss_multires_noise_discount",
        read_if=above_zero("multires_noise_iterations"),
        help="Strength of each layer relative to the one before it.",
    )
    ip_noise_gamma: float = option(
        0.0,
        label="Input perturbation",
        between=(0.0, 1.0),
        metadata="ss_ip_noise_gamma",
        none_by_default=True,
        help="Adds a little more noise than the model has to predict, against errors that accumulate; 0.1 is usual, 0 is off.",
    )
    ip_noise_gamma_random_strength: bool = option(
        False,
        label="Random input perturbation",
        metadata="ss_ip_noise_gamma_random_strength",
        read_if=above_zero("ip_noise_gamma"),
        help="Draws the input perturbation at random for each step, from 0 to Input perturbation.",
    )
    min_timestep: int = option(
        0,
        label="First timestep",
        between=(0, 999),
        help="Trains on timesteps from this one; low ones have little noise (details).",
    )
    max_timestep: int = option(
        1000,
        label="Last timestep",
        between=(1, 1000),
        help="Trains on timesteps below this one; high ones are almost pure noise (composition).",
    )
    v_parameterization: bool = option(
        False,
        label="Checkpoint predicts v",
        help="Only for v-prediction checkpoints; a LoRA for any other would produce noise.",
    )
    zero_terminal_snr: bool = option(
        False,
        label="Zero terminal SNR",
        in_kohya_form=False,
        metadata="ss_zero_terminal_snr",
        help="Makes the last timestep pure noise, as some v-prediction checkpoints expect.",
    )
    scale_v_pred_loss_like_noise_pred: bool = option(
        False,
        label="Scale v like noise",
        help="Weights the timesteps of a v-prediction checkpoint as noise prediction would.",
    )
    v_pred_like_loss: float = option(
        0.0,
        label="v-like loss",
        between=(0.0, 10.0),
        help="Adds this share of a v-prediction loss if the checkpoint predicts noise; 0 is off.",
    )
