"""The demo's measures on real pictures, and that they do not rise for a LoRA that learned nothing."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")
pytest.importorskip("skimage")

from tools import demo, demo_score  # noqa: E402
from tools.demo_pictures import CENTRES, REGION_PX, concept_pictures, write_training_folder  # noqa: E402
from tools.demo_score import concept_score, known_pictures  # noqa: E402


def test_regions_of_the_photograph_do_not_overlap() -> None:
    for a, b in combinations(CENTRES, 2):
        assert abs(a[0] - b[0]) >= REGION_PX or abs(a[1] - b[1]) >= REGION_PX


def test_nothing_held_out_is_trained_on(tmp_path: Path) -> None:
    from PIL import Image

    heldout = {picture.tobytes() for picture in concept_pictures()[1]}
    files = list(write_training_folder(tmp_path / "pictures", 10, "ohwx").rglob("*.png"))
    assert len(files) >= 6 and len(heldout) >= 6
    assert not heldout & {np.asarray(Image.open(file)).tobytes() for file in files}


def test_score_tells_the_concept_from_what_is_known() -> None:
    trained_on, heldout = concept_pictures()
    assert concept_score(trained_on, heldout) > 0.9
    fresh = [np.ascontiguousarray(picture[:, ::-1]) for picture in known_pictures()]
    assert concept_score(fresh, heldout) < 0.1


def test_without_learning_nothing_rises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_score, "SAMPLING_STEPS", 8)
    report = demo.main(tmp_path / "demo", {"steps": 4, "unet_lr": 1e-12, "text_encoder_lr": 1e-12, "preview_steps": 0})
    assert report["concept_with"] - report["concept_without"] < 0.05
    assert report["heldout_after"] > 0.999 * report["heldout_before"]
    assert report["base_unchanged"] is True
