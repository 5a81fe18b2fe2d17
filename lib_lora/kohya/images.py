"""Keys of images and captions: sizes, buckets, lengths, folders; how sd-scripts rounds values that are illegal here.

Keys of its textual inversion become the embedding of the trigger word, trained together with the LoRA.
"""

from __future__ import annotations

import math
from typing import Any

from lib_lora.kohya.rules import Context, Finding, Rule, empty
from lib_lora.kohya.spelling import BLANK, is_off, number, sides, truth

LONGEST_SIDE = 2048  # of a training size
SMALLEST_STEP = 8  # of buckets
TOKENS = 75  # of a chunk of a caption
_VECTORS = "num_vectors_per_token"
_ALONE = "Belongs to token_string, which is not given."


def _resolution(value: Any, context: Context) -> Finding | None:
    if value in BLANK:
        return empty()
    if context.values.get("max_resolution") not in BLANK and value != context.values["max_resolution"]:
        return Finding("ignored", "Overridden by max_resolution.")
    width, height = sides(value)
    buckets = context.values.get("enable_bucket")
    if truth(buckets) and (same := same_area(width, height or width)):
        why = "With buckets only the area counts; these sides have the same."
        return Finding("used", why, {"resolution": same[0], "resolution_height": same[1]})
    if "enable_bucket" in context.values and is_off(buckets) and (cells := whole_cells(width, height or width)):
        why = "One latent cell covers 8 pixels; the remainder is cropped here, and lost in sd-scripts too."
        return Finding("used", why, {"resolution": cells[0], "resolution_height": cells[1]})
    return Finding("used", "Width and height.", {"resolution": width, "resolution_height": height})


def same_area(width: Any, height: Any) -> tuple[int, int] | None:
    """The squarest multiples of 8 with the same area; None if the sides are multiples of 8, or there are none."""
    found = _odd_sides(width, height)
    area = found[0] * found[1] if found else 0
    if area == 0 or area % 64:
        return None
    short = next((side for side in range(math.isqrt(area) // 8 * 8, 63, -8) if area % (side * 8) == 0), None)
    return None if short is None else (short, area // short)


def whole_cells(width: Any, height: Any) -> tuple[int, int] | None:
    """The sides rounded down to multiples of 8; None if both already are."""
    found = _odd_sides(width, height)
    return (found[0] // 8 * 8, found[1] // 8 * 8) if found else None


def _odd_sides(width: Any, height: Any) -> tuple[int, int] | None:
    """The sides as whole numbers; None if both are multiples of 8, or one is no legal side."""
    first, second = number(width), number(height)
    if first is None or second is None or not all(side == side // 1 and 8 <= side <= LONGEST_SIDE for side in (first, second)):
        return None
    return None if first % 8 == second % 8 == 0 else (int(first), int(second))


def _tokens(value: Any, context: Context) -> Finding | None:
    """sd-scripts rounds the length down to whole chunks of 75 tokens."""
    length = number(value)
    if length is None or not math.isfinite(length) or length < TOKENS or length % TOKENS == 0:
        return None
    whole = int(length // TOKENS) * TOKENS
    return Finding("used", f"sd-scripts uses whole chunks of 75 tokens: the same as {whole}.", {"max_token_length": str(whole)})


def _bucket_step(value: Any, context: Context) -> Finding | None:
    fine = (number(value) or 0) >= SMALLEST_STEP
    known = "enable_bucket" in context.values or context.form == "sd-scripts"
    if not fine and known and is_off(context.given("enable_bucket")):
        return Finding("ignored", "No effect, because Aspect ratio buckets (enable_bucket) is off.")
    return None


def _repeats(value: Any, context: Context) -> Finding | None:
    return empty() if value in BLANK else Finding("used", "For folders without a number in their name.", {"repeats": value})


def _image_dir(value: Any, context: Context) -> Finding | None:
    if not context.keep_names:
        return None
    data, reg = context.folders
    return Finding("used", "A folder of images.", {"data": data, "reg_data": reg})


def _is_reg(value: Any, context: Context) -> Finding | None:
    return Finding("used", "Belongs to its folder.") if context.keep_names else None


def _dataset_file(value: Any, context: Context) -> Finding | None:
    if value in BLANK:
        return empty()
    if any(key.startswith("dataset_config.") for key in context.last.values()):
        return Finding("used", "The file is read too.")
    return Finding("not_supported", f"The file {value!r} was not found; import it separately.")


def _token_string(value: Any, context: Context) -> Finding:
    if value in BLANK:
        return empty()
    count = context.given(_VECTORS) or 1  # sd-scripts' default
    return Finding("used", "The word whose embedding is trained.", {"trigger": value, "embedding_vectors": count})


def _of_the_word(name: str, why: str) -> Rule:
    def rule(value: Any, context: Context) -> Finding:
        if value in BLANK:
            return empty()
        if context.given("token_string") is None:
            return Finding("ignored", _ALONE)
        return Finding("used", why, {name: value})

    return rule


IMAGE_RULES: dict[str, Rule] = {
    "resolution": _resolution,
    "max_resolution": _resolution,
    "bucket_reso_steps": _bucket_step,
    "max_token_length": _tokens,
    **dict.fromkeys(("num_repeats", "dataset_repeats", "train_data_dir_repeat"), _repeats),
    "image_dir": _image_dir,
    "is_reg": _is_reg,
    "dataset_config": _dataset_file,
    "token_string": _token_string,
    _VECTORS: _of_the_word("embedding_vectors", "Number of vectors of the embedding."),
    "init_word": _of_the_word("init_word", "The words that the embedding starts from."),
}
