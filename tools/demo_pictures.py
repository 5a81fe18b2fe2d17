"""Real pictures for the demo: regions of a photograph that scikit-image carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from lib_lora.data.images import Pixels

REGION_PX = 128  # side of a region


def concept_regions() -> tuple[list[Pixels], list[Pixels]]:
    """Regions of a microscope picture for training and, none overlapping with these, held out: `[128, 128, 3]` each."""
    regions = _regions(data.immunohistochemistry())
    return [r for i, r in enumerate(regions) if (i // 4 + i) % 2 == 0], [r for i, r in enumerate(regions) if (i // 4 + i) % 2]


def write_training_folder(folder: Path, repeats: int, concept: str) -> Path:
    """In kohya's layout: `folder/REPEATS_CONCEPT/*.png`; returns `folder`."""
    target = folder / f"{repeats}_{concept}"
    target.mkdir(parents=True)
    for number, region in enumerate(concept_regions()[0]):
        Image.fromarray(region).save(target / f"{number:02}.png")
    return folder


def _regions(picture: Pixels) -> list[Pixels]:
    """The picture cut into whole squares."""
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    rows, columns = picture.shape[0] // REGION_PX, picture.shape[1] // REGION_PX
    return [picture[y * REGION_PX : (y + 1) * REGION_PX, x * REGION_PX : (x + 1) * REGION_PX]
            for y in range(rows) for x in range(columns)]  # fmt: skip
