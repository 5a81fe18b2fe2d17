"""Rules over several options of images."""

from __future__ import annotations

from lib_lora.config.groups import Rule, TrainConfig, problem, title
from lib_lora.errors import Problem
from lib_lora.families.known import SIDE_STEP

SMALLEST_SIDE = 64


def resolution_multiple(config: TrainConfig) -> Problem | None:
    value = config.data.resolution
    if value % SIDE_STEP == 0:
        return None
    near = value // SIDE_STEP * SIDE_STEP
    return problem("resolution", f"got {value}, must be a multiple of {SIDE_STEP}, such as {near}.")


def height_multiple(config: TrainConfig) -> Problem | None:
    value = config.data.resolution_height
    if value == 0 or (value >= SMALLEST_SIDE and value % SIDE_STEP == 0):
        return None
    near = max(value // SIDE_STEP * SIDE_STEP, SMALLEST_SIDE)
    return problem(
        "resolution_height",
        f"got {value}, must be 0, or a multiple of {SIDE_STEP}, at least {SMALLEST_SIDE}, such as {near}.",
    )


def bucket_step_multiple(config: TrainConfig) -> Problem | None:
    value = config.data.bucket_reso_steps
    if not config.data.enable_bucket or value % SIDE_STEP == 0:
        return None
    return problem("bucket_reso_steps", f"got {value}, must be a multiple of {SIDE_STEP}.")


def bucket_range(config: TrainConfig) -> Problem | None:
    """As sd-scripts `adjust_min_max_bucket_reso_by_steps`: the range is widened to multiples of the step before the check."""
    data = config.data
    if not data.enable_bucket:
        return None
    low, high = data.bucket_range
    if low <= min(data.resolution, data.height) and max(data.resolution, data.height) <= high:
        return None
    got = f"got {data.resolution}" if data.height == data.resolution else f"got {data.resolution} by {data.height}"
    between = f"between {title('min_bucket_reso')}, {low}, and {title('max_bucket_reso')}, {high}"
    return problem("resolution", f"{got}, must be {between}.")


def smallest_side_has_a_step(config: TrainConfig) -> Problem | None:
    data = config.data
    if not data.enable_bucket or data.min_bucket_reso >= data.bucket_reso_steps:
        return None
    least = f"{title('bucket_reso_steps')}, {data.bucket_reso_steps}"
    return problem("min_bucket_reso", f"got {data.min_bucket_reso}, must be at least {least}.")


def changing_pictures_are_not_kept(config: TrainConfig) -> Problem | None:
    data = config.data
    wanted = " and ".join(title(name) for name in ("random_crop", "color_aug") if getattr(data, name))
    if not wanted or not data.cache_latents:
        return None
    kept = title("cache_latents")
    return Problem("cache_latents", f"{wanted}: images change every time, but {kept} is on; turn it off.")


def one_kind_of_mask(config: TrainConfig) -> Problem | None:
    if not (config.data.masked_loss and config.data.mask_data and config.data.alpha_mask):
        return None
    both = f"{title('alpha_mask')} and {title('masked_loss')}"
    return Problem("alpha_mask", f"{both}: both are on; turn one off, or leave {title('mask_data')} empty.")


RULES: tuple[Rule, ...] = (
    resolution_multiple,
    height_multiple,
    bucket_step_multiple,
    bucket_range,
    smallest_side_has_a_step,
    changing_pictures_are_not_kept,
    one_kind_of_mask,
)
