"""Real pictures for the demo: the coins of a photograph in scikit-image, one picture each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage import data

from lib_lora.data.images import Pixels

SIDE = 128
REGION_PX = 52  # side of a coin's region on the photograph; no two of them overlap
CENTRES = (  # row, column
    (54, 44), (56, 101), (51, 155), (51, 216), (52, 276), (43, 334),
    (124, 46), (126, 103), (124, 206), (120, 271), (125, 336),
    (197, 44), (195, 102), (198, 154), (193, 213), (194, 274), (186, 347),
    (260, 46), (266, 114), (262, 172), (264, 244), (264, 301), (268, 358),
)  # fmt: skip


def coins() -> list[Pixels]:
    """Every coin, `[128, 128, 3]`, grey."""
    photograph = data.coins()
    half = REGION_PX // 2
    pictures = []
    for row, column in CENTRES:
        region = photograph[row - half : row + half, column - half : column + half]
        large = cv2.resize(region, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        pictures.append(np.repeat(large[..., None], 3, axis=2))
    return pictures


def concept_pictures() -> tuple[list[Pixels], list[Pixels]]:
    """Coins for training, and held-out ones."""
    pictures = coins()
    return [p for i, p in enumerate(pictures) if i % 3 != 1], [p for i, p in enumerate(pictures) if i % 3 == 1]


def write_training_folder(folder: Path, repeats: int, concept: str) -> Path:
    """Write the training pictures as kohya's `folder/REPEATS_CONCEPT/*.png`; returns `folder`."""
    target = folder / f"{repeats}_{concept}"
    target.mkdir(parents=True)
    for number, picture in enumerate(concept_pictures()[0]):
        Image.fromarray(picture).save(target / f"{number:02}.png")
    return folder
