"""Options of the optimizer and the learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib_lora.config.declaration import ReadIf, above_zero, option
from lib_lora.config.optimizer_specs import OPTIMIZERS, optimizer_spec

Scheduler = Literal[
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "cosine_with_min_lr",
    "inverse_sqrt",
    "warmup_stable_decay",
    "piecewise_constant",
    "adafactor",
]
OTHER_SCHEDULE = "the learning rate schedule does not use it"
WITH_TEXT_ENCODER = ReadIf(lambda optimizer: optimizer.text_encoder_lr != 0, "{text_encoder_lr} is 0")


def of_schedules(*names: str) -> ReadIf:
    """Read by the learning rate schedules `names`."""
    return ReadIf(lambda optimizer: optimizer.own_schedule in names, OTHER_SCHEDULE)


def not_of_schedule(name: str) -> ReadIf:
    """Read by all learning rate schedules but `name`."""
    return ReadIf(lambda optimizer: optimizer.has_schedule and optimizer.own_schedule != name, OTHER_SCHEDULE)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and the learning rates."""

    unet_lr: float = option(
        1e-4,
        label="Learning rate, U-Net",
        between=(0.0, 100.0),
        row=(6, 1),
        metadata="ss_unet_lr",
        help="Learning rate of the U-Net. 0.0001 is usual, 1 for Prodigy and D-Adaptation; 0 does not train it.",
    )
    text_encoder_lr: float | None = option(
        None,
        label="Learning rate, text encoder",
        between=(0.0, 100.0),
        unset="0.00005; 0 for SDXL",
        row=(6, 2),
        metadata="ss_text_encoder_lr",
        help="Learning rate of the text encoder. Half of the U-Net's is usual; 0 does not train it and saves time. Empty: "
        "0.00005, and 0 for SDXL, where training only the U-Net is usual.",
    )
    optimizer: str = option(
        "AdamW",
        label="Optimizer",
        kohya="optimizer_type",
        suggestions=tuple(OPTIMIZERS),
        row=(7, 1),
        help="AdamW is the safe choice, AdamW8bit needs less memory, Prodigy finds the learning rate itself. Or any "
        "package.Class.",
    )
    optimizer_args: tuple[str, ...] = option(
        (),
        label="Optimizer arguments",
        help="In the form name=value, such as weight_decay=0.1 betas=(0.9,0.99).",
    )
    lr_scheduler: Scheduler = option(
        "constant",
        label="Learning rate schedule",
        row=(7, 2),
        metadata="ss_lr_scheduler",
        read_if=ReadIf(
            lambda optimizer: optimizer.has_schedule and not optimizer.lr_scheduler_type,
            "the optimizer takes no schedule, or {lr_scheduler_type} is given",
        ),
        help="How the learning rates change during the run. cosine falls gently to 0; constant is easiest to compare.",
    )
    lr_warmup_steps: float = option(
        0.0,
        label="Warm-up steps",
        between=(0.0, 1000000.0),
        read_if=not_of_schedule("piecewise_constant"),
        help="The learning rates rise from 0 over this many steps, or this share of all steps if below 1. Not with the schedule "
        "constant.",
    )
    lr_decay_steps: float = option(
        0.0,
        label="Decay steps",
        between=(0.0, 1000000.0),
        in_kohya_form=False,
        read_if=of_schedules("warmup_stable_decay"),
        help="warmup_stable_decay falls over this many last steps, or this share of all steps if below 1.",
    )
    lr_scheduler_num_cycles: int = option(
        1,
        label="Cycles",
        between=(1, 100),
        read_if=of_schedules("cosine_with_restarts", "cosine_with_min_lr", "warmup_stable_decay"),
        help="Number of cycles of cosine_with_restarts, cosine_with_min_lr and warmup_stable_decay.",
    )
    lr_scheduler_power: float = option(
        1.0,
        label="Polynomial power",
        between=(0.1, 10.0),
        read_if=of_schedules("polynomial"),
        help="Exponent of the schedule polynomial.",
    )
    lr_scheduler_timescale: int = option(
        0,
        label="Inverse root scale",
        between=(0, 10000000),
        in_kohya_form=False,
        read_if=of_schedules("inverse_sqrt"),
        help="Time scale of the schedule inverse_sqrt in steps; 0 uses Warm-up steps.",
    )
    lr_scheduler_min_lr_ratio: float = option(
        0.0,
        label="Smallest rate",
        between=(0.0, 1.0),
        in_kohya_form=False,
        read_if=of_schedules("cosine_with_min_lr", "warmup_stable_decay"),
        help="cosine_with_min_lr and warmup_stable_decay end at this share of the learning rate.",
    )
    lr_scheduler_type: str = option(
        "",
        label="Other schedule",
        read_if=ReadIf(lambda optimizer: optimizer.has_schedule, "the optimizer takes no schedule"),
        help="A class of torch.optim.lr_scheduler, or package.module.Class; replaces Learning rate schedule.",
    )
    lr_scheduler_args: tuple[str, ...] = option(
        (),
        label="Schedule arguments",
        read_if=not_of_schedule("adafactor"),
        help="In the form name=value, for Other schedule; or step_rules='1:100,0.1' for piecewise_constant.",
    )
    max_grad_norm: float = option(
        1.0,
        label="Gradient clipping",
        between=(0.0, 1000.0),
        metadata="ss_max_grad_norm",
        help="Largest norm of the gradient at each step; 0 turns clipping off.",
    )
    gradient_accumulation_steps: int = option(
        1,
        label="Gradient accumulation",
        between=(1, 1024),
        metadata="ss_gradient_accumulation_steps",
        help="Accumulates the gradients of this many batches for each step: like a larger batch, without its memory.",
    )
    stop_text_encoder_training: float = option(
        0.0,
        label="Stop the text encoder",
        kohya=None,
        between=(0.0, 10000000.0),
        read_if=WITH_TEXT_ENCODER,
        help="Stops training the text encoder after this many steps, or this share of all steps if below 1; 0 never stops it.",
    )
    ema_decay: float = option(
        0.0,
        label="EMA decay",
        kohya=None,
        between=(0.0, 0.99999),
        help="Saves an exponential moving average (EMA) of the LoRA, which is smoother. 0.999 for long runs, 0.99 for short "
        "ones, 0 is off.",
    )
    loraplus_lr_ratio: float = option(
        0.0,
        label="LoRA+",
        kohya="network_args.loraplus_lr_ratio",
        between=(0.0, 1000.0),
        help="Factor on the learning rate of the up matrices, which can learn faster; 4 to 16 is usual, 0 is off.",
    )
    loraplus_unet_lr_ratio: float = option(
        0.0,
        label="LoRA+, U-Net",
        kohya="network_args.loraplus_unet_lr_ratio",
        between=(0.0, 1000.0),
        read_if=above_zero("unet_lr"),
        help="LoRA+ for the U-Net only; 0 uses LoRA+.",
    )
    loraplus_text_encoder_lr_ratio: float = option(
        0.0,
        label="LoRA+, text encoder",
        kohya="network_args.loraplus_text_encoder_lr_ratio",
        between=(0.0, 1000.0),
        read_if=WITH_TEXT_ENCODER,
        help="LoRA+ for the text encoder only; 0 uses LoRA+.",
    )

    @property
    def has_schedule(self) -> bool:
        """Whether the optimizer takes a learning rate schedule."""
        return not optimizer_spec(self.optimizer).schedule_free

    @property
    def own_schedule(self) -> str:
        """The schedule of `lr_scheduler`; empty if the optimizer takes none, or a class replaces it."""
        return self.lr_scheduler if self.has_schedule and not self.lr_scheduler_type else ""
