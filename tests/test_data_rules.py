"""Rules over several options of images."""

from __future__ import annotations

import pytest

from lib_lora.config.data_rules import RULES
from lib_lora.config.groups import build_config
from lib_lora.config.rules import config_problems


def problems(**flat: object) -> list[str]:
    return config_problems(build_config({"name": "my_cat", **flat}))


CASES = [
    ({"resolution": 500}, "Resolution (resolution): got 500"),
    ({"resolution_height": 500}, "Height (resolution_height): got 500"),
    ({"resolution_height": 32, "enable_bucket": False}, "such as 64"),
    ({"bucket_reso_steps": 12, "min_bucket_reso": 240}, "bucket_reso_steps"),
    ({"resolution": 128}, "min_bucket_reso"),
    ({"resolution": 1536}, "max_bucket_reso"),
    ({"resolution_height": 128}, "got 512 by 128"),
    ({"resolution": 768, "resolution_height": 1536}, "max_bucket_reso"),
    ({"min_bucket_reso": 64, "bucket_reso_steps": 128}, "must be at least Bucket step"),
    ({"random_crop": True}, "Random crop (random_crop): images change every time"),
    ({"color_aug": True, "random_crop": True}, "Random crop (random_crop) and Colour augmentation (color_aug)"),
    ({"masked_loss": True, "mask_data": "x", "alpha_mask": True}, "both are on"),
]


@pytest.mark.parametrize(("flat", "said"), CASES)
def test_each_rule_speaks(flat: dict[str, object], said: str) -> None:
    found = problems(**flat)
    assert len(found) == 1 and said in found[0] and found[0].endswith(".")


def test_the_cases_above_cover_every_rule() -> None:
    assert {rule for flat, _ in CASES for rule in RULES if rule(build_config(flat))} == set(RULES)


def test_rules_are_silent_where_all_is_well() -> None:
    assert problems(resolution=512, resolution_height=768, cache_latents=False, random_crop=True, color_aug=True) == []
    assert problems(resolution=128, bucket_reso_steps=12, enable_bucket=False) == []
    assert problems(bucket_reso_steps=0, min_bucket_reso=-1, max_bucket_reso=5, enable_bucket=False) == []
    assert problems(cache_latents=False, cache_latents_to_disk=True) == []


def test_transparency_is_the_mask_where_no_folder_of_masks_is_named() -> None:
    """As in sd-scripts' `apply_masked_loss`, which takes what there is."""
    assert problems(masked_loss=True, alpha_mask=True) == []


def test_the_range_of_buckets_moves_outwards_to_whole_steps_before_it_is_checked() -> None:
    assert problems(resolution=256, min_bucket_reso=300, bucket_reso_steps=64) == []
    assert problems(resolution=1024, max_bucket_reso=1000) == []
    assert len(problems(resolution=256, min_bucket_reso=320, bucket_reso_steps=64)) == 1
