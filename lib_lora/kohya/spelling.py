"""kohya's spelling of values -> ours: percent, "512,512", empty fields, zeros that mean the default, lists as one text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lib_lora.config.keyword_arguments import argument_problem, split_arguments
from lib_lora.config.options import Option
from lib_lora.kohya.files import Form

BLANK: tuple[Any, ...] = (None, "", [], {}, ())
FALSE_WORDS = ("false", "none", "0", "0.0", "no", "off")
# 0 means the default if an option has no value 0
ZERO_IS: dict[str, Any] = {
    "clip_skip": 1,
    "vae_batch_size": 1,
    "max_timestep": 1000,
    "lr_scheduler_num_cycles": 1,
    "lr_scheduler_power": 1.0,
    "token_warmup_min": 1,
}
# kohya_ss omits every 0 from its command, so that sd-scripts uses its default
ZERO_DROPPED: dict[str, str] = {
    "max_grad_norm": "gradients would have been clipped at 1",
    "prior_loss_weight": "the weight would have been 1",
    "multires_noise_discount": "the discount would have been 0.3",
    "seed": "a random seed would have been used",
}
ALL_STEPS = 0.999999  # a share of 1 would be one step
NEVER = 100000  # epochs
MOST_KEPT = 255  # of tags
TRIGGER_KEPT = "trigger_kept"  # in our section: one of keep_tokens is for the trigger
OWN_TEXT_RATE = "text_encoder_lr_of_family"  # in our section: the rate written for one that was not given


def number(value: Any) -> float | None:
    """`value` as a number, or None."""
    if isinstance(value, (list, tuple)):
        return number(value[0]) if value else None
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def is_off(value: Any, more: Sequence[object] = ()) -> bool:
    """Whether `value` means off: empty, false, 0, or one of `more`."""
    if value in BLANK or value is False or (isinstance(value, str) and value.strip().lower() in ("", *FALSE_WORDS)):
        return True
    return number(value) == 0 or any(value == other or number(value) == other for other in more)


def truth(value: Any) -> bool:
    """The value of a switch in any spelling."""
    return not is_off(value)


def is_never_reached(opt: Option, value: Any) -> bool:
    """Whether an interval, or a number to keep, is beyond every run, such as 999999 epochs; here 0 means that."""
    interval = "_every_n_" in opt.name or opt.name.startswith("save_last_n_") or opt.name == "max_validation_steps"
    most = opt.declaration.between[1] if opt.declaration.between else math.inf
    return interval and (number(value) or 0) > most


def spelled(opt: Option, value: Any) -> Any:
    """`value` in our option's spelling, ready to be parsed."""
    if opt.name in ZERO_IS and number(value) == 0:
        return ZERO_IS[opt.name]
    if opt.name == "gradient_checkpointing":
        return value if value in (opt.choices or ()) else "on" if truth(value) else "off"
    if is_never_reached(opt, value):
        return 0
    if opt.name == "resize_interpolation" and isinstance(value, str):
        return {"linear": "bilinear", "cubic": "bicubic"}.get(value, value)
    if opt.type is bool and isinstance(value, (int, float)):
        return bool(value)
    if opt.type is tuple:
        return _texts(opt, value)
    if opt.type is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}"
    if opt.type is str and opt.name not in ("sample_prompts", "optimizer") and isinstance(value, list):
        return ",".join(str(item) for item in value)
    return value


def unclear_argument(opt: Option, value: Any) -> str | None:
    """What is wrong with an optimizer's or a schedule's arguments, as the end of a sentence."""
    if not opt.name.endswith("_args") or not isinstance(value, list):
        return None
    return argument_problem([str(item) for item in value])


def _texts(opt: Option, value: Any) -> Any:
    if opt.name.endswith("_args") and isinstance(value, (str, list)):  # kohya_ss puts quotes around each, and strips them
        texts = [value] if isinstance(value, str) else value
        return [part for text in texts for part in split_arguments(str(text).replace('"', ""))]
    if isinstance(value, str):  # lora-scripts writes one per line
        return [line.strip() for line in value.splitlines() if line.strip()]
    return [f"{item:g}" if isinstance(item, float) else str(item) for item in value] if isinstance(value, list) else value


def sides(value: Any) -> tuple[Any, Any]:
    """Width and height of "512", "512,768", [512, 768] or 512; the height is 0 for a square."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        return parts, 0
    if len(parts) == 1:
        return parts[0], 0
    if len(parts) != 2:
        return value, 0
    return parts[0], 0 if number(parts[0]) == number(parts[1]) else parts[1]


def steps_or_share(value: Any, form: Form) -> Any:
    """In sd-scripts a float is a share of all steps, an integer is steps; the form writes integers as floats too."""
    if form == "sd-scripts" and isinstance(value, float) and value == 1.0:
        return ALL_STEPS
    return value


def percent(value: Any) -> Any:
    """Percent of all steps -> a share below 1."""
    found = number(value)
    return value if found is None else min(round(found / 100, 12), ALL_STEPS)


def with_trigger_prefix(prefix: str, trigger: str) -> str:
    """sd-scripts' prefix with the trigger word in front of every caption."""
    return f"{prefix} {trigger},".strip() if trigger else prefix


def without_trigger_prefix(prefix: str, trigger: str) -> str:
    """The prefix that `with_trigger_prefix` was given."""
    return prefix.removesuffix(f"{trigger},").rstrip() if trigger else prefix
