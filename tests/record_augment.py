"""Record the outputs of sd-scripts' own functions for small inputs: scaling, colours, masks in the loss, counts of images.

    PYTHONPATH=SD_SCRIPTS python tests/record_augment.py OUT.safetensors

Runs with sd-scripts' interpreter and imports nothing of this project.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from library.config_util import BlueprintGenerator, ConfigSanitizer, generate_dataset_group_by_blueprint
from library.custom_train_functions import apply_masked_loss
from library.train_util import AugHelper
from library.utils import resize_image
from PIL import Image
from safetensors.numpy import save_file

SIZES = {"shrunk": (17, 13), "enlarged": (40, 33), "mixed": (30, 15)}  # width, height; from 24 by 20
FILTERS = [None, "area", "lanczos", "bicubic", "bilinear", "nearest", "box"]
# repeats of the image folder and its images; (repeats, images) of regularisation folders
COUNTS = [((3, 4), [(1, 3)]), ((3, 4), [(2, 5)]), ((1, 2), [(1, 7)]), ((5, 2), [(3, 2), (2, 1)]), ((2, 5), [(4, 4)])]


def main(out: Path) -> None:
    """Write everything to `out`."""
    picture = np.random.default_rng(3).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    tensors = {"picture": picture}
    for name, (width, height) in SIZES.items():
        for wanted in FILTERS:
            tensors[f"scaled/{name}/{wanted or 'auto'}"] = resize_image(picture, 24, 20, width, height, wanted)
    for hue in (-7.5, 3.25):
        tensors[f"colours/hue/{hue}"] = _coloured(picture, 0.9, hue)
    for gamma in (0.96, 1.04):
        tensors[f"colours/gamma/{gamma}"] = _coloured(picture, 0.1, gamma)
    loss = np.random.default_rng(4).random((2, 4, 3, 2), dtype=np.float32)
    mask = np.random.default_rng(5).integers(0, 256, (2, 24, 16), dtype=np.uint8)
    batch = {"alpha_masks": torch.from_numpy(mask.astype(np.float32) / 255.0)}
    tensors.update({"loss": loss, "mask": mask, "masked": apply_masked_loss(torch.from_numpy(loss), batch).numpy()})
    counts = [_counts(trained, regularising) for trained, regularising in COUNTS]
    save_file(tensors, out, {"counts": json.dumps(counts)})


def _coloured(picture: np.ndarray, kind: float, amount: float) -> np.ndarray:
    """`color_aug` with its draws given; it takes a picture for BGR."""
    flipped = np.ascontiguousarray(picture[..., ::-1])
    with mock.patch.object(random, "random", side_effect=[0.1, kind]), mock.patch.object(random, "uniform", return_value=amount):
        return np.ascontiguousarray(AugHelper().color_aug(flipped)["image"][..., ::-1])


def _counts(trained: tuple[int, int], regularising: list[tuple[int, int]]) -> dict[str, object]:
    """How often each image is shown per epoch."""
    with tempfile.TemporaryDirectory() as folder:
        subsets = [_subset(Path(folder) / "train", *trained, is_reg=False)]
        subsets += [_subset(Path(folder) / f"reg{i}", *sizes, is_reg=True) for i, sizes in enumerate(regularising)]
        datasets = {"datasets": [{"resolution": 64, "batch_size": 2, "enable_bucket": False, "subsets": subsets}]}
        blueprint = BlueprintGenerator(ConfigSanitizer(True, True, False, True)).generate(
            datasets, argparse.Namespace(debug_dataset=False)
        )
        group, _ = generate_dataset_group_by_blueprint(blueprint.dataset_group)
        infos = group.datasets[0].image_data.values()
        shown = {str(Path(info.absolute_path).relative_to(folder)): info.num_repeats for info in infos}
        return {"trained": trained, "regularising": regularising, "shown": shown, "num_reg_images": group.num_reg_images,
                "batches": len(group.datasets[0])}  # fmt: skip


def _subset(folder: Path, repeats: int, images: int, *, is_reg: bool) -> dict[str, object]:
    folder.mkdir()
    for number in range(images):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
    return {"image_dir": str(folder), "num_repeats": repeats, "is_reg": is_reg, "class_tokens": "x"}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
