"""Rules over several options of the optimizer and number formats."""

from __future__ import annotations

from lib_lora.config.groups import Rule, TrainConfig, is_read
from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.errors import Problem

_DIVIDES_BY_SQUARES = {"AdamW", "Adam", "NAdam", "Adagrad", "RMSprop"}  # of torch.optim, whose state has the weights' dtype


def full_precision_fits(config: TrainConfig) -> Problem | None:
    precision = config.precision
    for label, name, wanted, on in (("LoRA in fp16", "full_fp16", "fp16", precision.full_fp16),
                                    ("LoRA in bf16", "full_bf16", "bf16", precision.full_bf16)):  # fmt: skip
        if on and precision.mixed_precision != wanted:
            return Problem(
                "mixed_precision",
                f"{label} ({name}): is on, but Mixed precision (mixed_precision) is {precision.mixed_precision}; "
                f"choose {wanted} there, or turn it off.",
            )
    return None


def fp16_holds_the_squares(config: TrainConfig) -> Problem | None:
    """Torch's Adam and its relatives divide by √v + eps; in fp16 the v of usual gradients is 0.

    No usual eps helps: at β₂ = 0.999 a gradient of up to 5e-3 leaves v = 0, and the update is gradient / eps. With
    eps = 1e-6 on a GPU the loss was NaN within 8 steps.
    """
    spec = optimizer_spec(config.optimizer.optimizer)
    if not config.precision.full_fp16 or spec.module != "torch.optim" or spec.attribute not in _DIVIDES_BY_SQUARES:
        return None
    return Problem(
        "full_fp16",
        f"LoRA in fp16 (full_fp16): {spec.attribute} keeps squared gradients in fp16, where they become 0 and the loss soon is "
        "not a number; choose AdamW8bit or Lion, or use LoRA in bf16 (full_bf16).",
    )


def something_is_left_to_train(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    stops = optimizer.stop_text_encoder_training and is_read(config, "stop_text_encoder_training")
    if not stops or optimizer.unet_lr > 0:
        return None
    return Problem(
        "stop_text_encoder_training",
        "Stop the text encoder (stop_text_encoder_training): nothing else is trained, since Learning rate, U-Net (unet_lr) is 0; "
        "set that above 0, or this to 0.",
    )


RULES: tuple[Rule, ...] = (full_precision_fits, fp16_holds_the_squares, something_is_left_to_train)
