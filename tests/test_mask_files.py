"""Masks as the decoder process makes and measures them, against Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_lora.data.mask_files import measured, written_mask


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """An image with a transparent left half, and a mask of its size."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (40, 60, 4), dtype=np.uint8)
    pixels[:, :30, 3], pixels[:, 30:, 3] = 0, 255
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 255, (40, 60), dtype=np.uint8)).save(tmp_path / "mask.png")
    return {"image": str(tmp_path / "a.png"), "mask": str(tmp_path / "mask.png"), "target": str(tmp_path / "made.png")}


def grey(path: str) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


@pytest.mark.parametrize("how", ["painted", "inverted", "transparency", "filled"])
def test_a_mask_is_made_in_each_way(how: str, files: dict[str, str]) -> None:
    mask, alpha = grey(files["mask"]), np.asarray(Image.open(files["image"]))[..., 3]
    expected = {"painted": mask, "inverted": 255 - mask, "transparency": alpha, "filled": np.full((40, 60), 255)}[how]
    answer = written_mask({**files, "how": how, "name": "a.png"})
    assert np.array_equal(grey(files["target"]), expected)
    assert answer == {"covered": pytest.approx(expected.mean() / 255)}


def test_a_mask_is_measured_whole_and_in_part(files: dict[str, str]) -> None:
    mask = grey(files["mask"])
    assert measured({"mask": files["mask"], "crop": None})["covered"] == pytest.approx(mask.mean() / 255)
    part = measured({"mask": files["mask"], "crop": [10, 5, 30, 25]})
    assert part["covered"] == pytest.approx(mask[5:25, 10:30].mean() / 255) and part["size"] == [40, 60]


def test_what_is_no_mask_is_told_and_nothing_is_written(files: dict[str, str]) -> None:
    def refused() -> str:
        problems: Any = written_mask({**files, "how": "painted", "name": "a.png"})["problems"]
        assert len(problems) == 1
        return str(problems[0])

    Image.new("L", (10, 10), 255).save(files["mask"])
    told = refused()
    assert "'a.png'" in told and "make them the same size" in told and not Path(files["target"]).exists()
    Image.new("L", (60, 40)).save(files["mask"])
    assert "black" in refused() and not Path(files["target"]).exists()
