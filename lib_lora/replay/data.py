"""Compares our data path with a recorded table of sd-scripts: buckets, sizes, crops, token ids and pixels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lib_lora.data.buckets import BucketRule, Placement, crop_in_bucket, place, place_fixed
from lib_lora.data.images import fit, load_pixels
from lib_lora.data.sizes import Size
from lib_lora.data.tokens import caption_ids, load_tokenizer
from lib_lora.errors import ConfigError, DatasetError

MAX_TABLE_BYTES, MAX_SIDE, MAX_SIDES = 64 * 2**20, 2**16, 1024
_PAD_IDS = {"sd1": None, "sd2": 0, "sdxl_te1": None, "sdxl_te2": 0}
_BUCKETED = re.compile(r"bucket (\d+)x(\d+) min (\d+) max (\d+) step (\d+)( no_upscale)?")
_FIXED = re.compile(r"fixed (\d+)x(\d+)")


def replay_data(table: Path, pixels: Path | None, photos: Path | None) -> dict[str, float]:
    """Number of entries that differ from the table, and differences of pixels (0 to 255).

    Raises:
        ConfigError: the table or the pixels do not have the expected form.
    """
    start = f"The table {str(table)!r} cannot be compared with"
    try:
        if table.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError(f"it is larger than {MAX_TABLE_BYTES // 2**20} MB")
        report = _compare_table(json.loads(table.read_text(encoding="utf-8")))
        report["pixels_max_diff"], report["pixels_mean_diff"] = _compare_pixels(pixels, photos)
    except DatasetError:
        raise
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError([f"{start} ({type(error).__name__}: {str(error)[:200]}); record it again."]) from error
    return report


def _compare_table(recorded: dict[str, Any]) -> dict[str, float]:
    report: dict[str, float] = {"buckets_wrong": 0, "sizes_wrong": 0, "crops_wrong": 0, "tokens_wrong": 0}
    rules = {setting["id"]: _rule(setting) for setting in recorded["bucket_settings"]}
    for setting, width, height, bucket, resized, crop in recorded["buckets"]:
        image = _size(width, height)
        placement = place(image, rules[setting])
        report["buckets_wrong"] += [placement.bucket.width, placement.bucket.height] != bucket
        report["sizes_wrong"] += [placement.resized.width, placement.resized.height] != resized
        report["crops_wrong"] += list(crop_in_bucket(image, _size(*bucket))) != crop
    tokenizer = load_tokenizer()
    for row in recorded["tokens"]:
        length = _side(row["max_token_length"] or 75)
        ids = caption_ids(tokenizer, row["caption"], length, _PAD_IDS[row["family"]])
        report["tokens_wrong"] += [token for chunk in ids for token in chunk] != row["ids"]
    return report


def _side(value: Any) -> int:
    """`value`, if it is an integer that an image's side can have.

    Raises:
        ValueError: it is not.
    """
    if type(value) is not int or not 1 <= value <= MAX_SIDE:
        raise ValueError(f"got {str(value)[:40]!r}, must be a whole number from 1 to {MAX_SIDE}")
    return value


def _size(width: Any, height: Any) -> Size:
    return Size(_side(height), _side(width))


def _rule(setting: dict[str, Any]) -> BucketRule:
    low, high, step = (_side(setting[name]) for name in ("min", "max", "steps"))
    if (high - low) // step > MAX_SIDES:
        raise ValueError(f"sides from {low} to {high} by {step} are more than {MAX_SIDES}")
    return BucketRule(_size(*setting["max_reso"]), low, high, step, bool(setting["no_upscale"]))


def _compare_pixels(pixels: Path | None, photos: Path | None) -> tuple[float, float]:
    """Largest and mean difference over all recorded images; 0, 0 if none are given."""
    if pixels is None or photos is None:
        return 0.0, 0.0
    files = {path.name: path for path in photos.rglob("*")}
    differences = []
    for key, wanted in load_file(pixels).items():
        name, _, how = key.partition("|")
        image = load_pixels(files[name])
        ours = fit(image, _placement(Size(*image.shape[:2]), how))
        differences.append(np.abs(ours.astype(np.int16) - wanted.astype(np.int16)).ravel())
    joined = np.concatenate(differences)
    return float(joined.max()), float(joined.mean())


def _placement(image: Size, how: str) -> Placement:
    if match := _BUCKETED.fullmatch(how):
        width, height, low, high, step = (_side(int(text)) for text in match.groups()[:5])
        return place(image, BucketRule(Size(height, width), low, high, step, match[6] is not None))
    if match := _FIXED.fullmatch(how):
        return place_fixed(image, _size(int(match[1]), int(match[2])))
    raise ValueError(f"unknown way of fitting in the table: {how!r}")
