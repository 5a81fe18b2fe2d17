"""Buckets, sizes, crops, token ids and pixels equal sd-scripts' for the same input."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from PIL import Image

from lib_lora.replay.data import replay_data

DATA = Path(__file__).parent / "data"
NOTHING_WRONG = {"buckets_wrong": 0, "sizes_wrong": 0, "crops_wrong": 0, "tokens_wrong": 0}


def test_table_of_sd_scripts() -> None:
    report = replay_data(DATA / "kohya-data.json", None, None)
    assert {key: report[key] for key in NOTHING_WRONG} == NOTHING_WRONG


def test_pixels_of_sd_scripts(tmp_path: Path) -> None:
    photographs = pytest.importorskip("skimage.data")
    for name in ("astronaut", "chelsea", "coffee"):
        Image.fromarray(getattr(photographs, name)()).save(tmp_path / f"{name}.png")
    report = replay_data(DATA / "kohya-data.json", DATA / "kohya-pixels.safetensors", tmp_path)
    assert report["pixels_max_diff"] <= 2 and report["pixels_mean_diff"] <= 0.1


def test_differences_are_counted(tmp_path: Path) -> None:
    table = json.loads((DATA / "kohya-data.json").read_text())
    wrong = copy.deepcopy(table)
    wrong["buckets"][0][3][0] += 64
    wrong["buckets"][1][4][1] += 1
    wrong["buckets"][2][5][2] += 1
    wrong["tokens"][3]["ids"][5] += 1
    (tmp_path / "table.json").write_text(json.dumps(wrong))
    report = replay_data(tmp_path / "table.json", None, None)
    assert report["buckets_wrong"] == 1 and report["sizes_wrong"] == 1 and report["tokens_wrong"] == 1
    assert report["crops_wrong"] == 2  # a wrong bucket moves its crop too
