"""Regularisation images: how many, with which captions, and how they are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from lib_lora.check import find_images
from lib_lora.config.groups import build_config
from lib_lora.data.order import matched_repeats
from lib_lora.model.base import ModelInfo
from lib_lora.output.metadata import RunFacts, file_metadata
from lib_lora.plan import Plan, make_plan
from lib_lora.settle import settle
from lib_lora.training.precision import Precision
from lib_lora.ui.report import plan_html
from tests.conftest import write_picture

with safe_open(Path(__file__).parent / "data" / "kohya-augment.safetensors", framework="np") as file:
    COUNTS: list[dict[str, Any]] = json.loads(file.metadata()["counts"])


def folders(root: Path, trained: tuple[int, int], regularising: list[tuple[int, int]]) -> dict[str, Any]:
    """Folders with so many repeats and images, and the settings that name them."""
    for parent, number, (repeats, images) in [("data", 0, trained), *(("reg", i, sizes) for i, sizes in enumerate(regularising))]:
        for image in range(images):
            write_picture(root / parent / f"{repeats}_thing{number}" / f"{image}.png", 64, 64, seed=image)
    regs = [str(root / "reg" / f"{repeats}_thing{i}") for i, (repeats, _) in enumerate(regularising)] or [str(root / "reg")]
    return {"name": "x", "data": [str(root / "data")], "reg_data": regs, "resolution": 64, "min_bucket_reso": 64}


def planned(root: Path, trained: tuple[int, int], regularising: list[tuple[int, int]], **flat: object) -> Plan:
    config = build_config({**folders(root, trained, regularising), **flat})
    return make_plan(config, find_images(config))


@pytest.mark.parametrize("case", COUNTS)
def test_counts_as_sd_scripts(case: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(tmp_path, case["trained"], case["regularising"], batch_size=2)
    members = [index for bucket in plan.buckets.values() for index in bucket]
    names = [f"{'reg' + s.path.parent.name[-1] if s.is_reg else 'train'}/{s.path.name}" for s in plan.samples]
    assert {names[index]: members.count(index) for index in plan.trained} == case["shown"]
    assert plan.batches_per_epoch == case["batches"]
    assert len(list(plan.updates(1))) == plan.steps


def test_nothing_wanted_is_nothing_shown() -> None:
    assert matched_repeats([1, 2], 0) == [0, 0] and matched_repeats([1, 1, 1], 2) == [1, 1, 0]


def test_captions_are_of_the_class_without_the_trigger(tmp_path: Path) -> None:
    flat = folders(tmp_path, (2, 2), [(1, 2)])
    (tmp_path / "reg" / "1_thing0" / "0.txt").write_text("another thing")
    dataset = find_images(build_config({**flat, "trigger": "ohwx"}))
    assert [(s.caption, s.is_reg) for s in dataset.samples] == [
        ("ohwx, thing0", False), ("ohwx, thing0", False), ("another thing", True), ("thing0", True)]  # fmt: skip


def test_a_folder_without_captions_is_told_once(tmp_path: Path) -> None:
    flat = folders(tmp_path, (2, 2), [])
    for number in range(3):
        write_picture(tmp_path / "reg" / f"{number}.png")
    assert find_images(build_config({**flat, "trigger": "ohwx"})).problems == (
        "Regularisation folder (reg_data): images in 'reg' have no captions; rename their folder to 1_CLASS, such as 1_cat.",
    )


def test_a_folder_cannot_be_both(tmp_path: Path) -> None:
    flat = folders(tmp_path, (2, 2), [])
    problems = find_images(build_config({**flat, "reg_data": flat["data"]})).problems
    assert problems == ("Regularisation folder (reg_data): '2_thing0' is also an Image folder (data); choose another.",)


def test_a_missing_folder_is_told_under_its_own_name(tmp_path: Path) -> None:
    flat = folders(tmp_path, (2, 2), [])
    assert find_images(build_config(flat)).problems[0].startswith("Regularisation folder (reg_data): ")


def test_formula_report_and_metadata_tell_it(tmp_path: Path) -> None:
    flat = folders(tmp_path, (3, 4), [(1, 3), (1, 20)])
    config = build_config({"text_encoder_lr": 0, **flat, "prior_loss_weight": 0.5})
    dataset = find_images(config)
    plan = make_plan(config, dataset)
    assert plan.formula.startswith("4 images, 12 per epoch with repeats; plus 12 of 23 regularisation images, 12 per epoch;")
    html = plan_html(plan)
    assert "<th>Images</th><td>4</td>" in html and "1_thing1: 20 images × 1" in html
    facts = RunFacts(1e9, 5, 1, Precision("no", torch.float32), "AdamW")
    found = file_metadata(settle(config, None), plan, ModelInfo("m", None, None), facts, {})
    assert (found["ss_num_train_images"], found["ss_num_reg_images"], found["ss_prior_loss_weight"]) == ("12", "23", "0.5")
    assert json.loads(found["ss_dataset_dirs"]) == {"3_thing0": {"n_repeats": 3, "img_count": 4}}
    assert json.loads(found["ss_reg_dataset_dirs"]) == {
        "1_thing0": {"n_repeats": 1, "img_count": 3}, "1_thing1": {"n_repeats": 1, "img_count": 20}}  # fmt: skip
    assert json.loads(found["ss_bucket_info"])["buckets"]["0"]["count"] == 24
