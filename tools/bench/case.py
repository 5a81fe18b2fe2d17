"""The measured cases, the same for us and for sd-scripts. Add cases to `CASES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Case:
    """A run, with options under sd-scripts' names, which our configuration accepts too."""

    side: int
    steps: int
    images: int
    options: Mapping[str, Any]


CASES = {
    "sd15-256": Case(
        side=256,
        steps=6,
        images=6,
        options={
            "network_dim": 8,
            "network_alpha": 8,
            "train_batch_size": 1,
            "unet_lr": 1e-4,
            "text_encoder_lr": 5e-5,
            "lr_scheduler": "constant",
            "mixed_precision": "no",
            "save_precision": "fp16",
            "seed": 1,
        },
    ),
}


def write_pictures(folder: Path, case: Case) -> Path:
    """Write smooth random pictures with captions in kohya's layout; returns the parent folder."""
    rng = np.random.default_rng(0)
    target = folder / "1_thing"
    target.mkdir(parents=True, exist_ok=True)
    for number in range(case.images):
        small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        small.resize((case.side, case.side), Image.Resampling.BICUBIC).save(target / f"{number}.png")
        (target / f"{number}.txt").write_text(f"a photo of a thing, number {number}")
    return folder
