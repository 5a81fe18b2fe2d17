"""Shared fixtures: photos, miniature checkpoints, settings."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib_lora.config.groups import TrainConfig, build_config
from tests import models
from tests.synthetic import write_mini, write_mini_inpainting, write_mini_sd2, write_mini_sdxl

torch.set_num_threads(1)  # the miniatures gain nothing from more, and a busy machine loses much

# the development lane has diffusers, the pins lane has ldm; each runs what it can
collect_ignore = []
if importlib.util.find_spec("diffusers") is None:
    collect_ignore += [
        "test_preview.py",
        "test_standalone.py",
        "test_diffusers_load.py",
        "test_train.py",
        "test_families.py",
        "test_session.py",
        "test_gpu.py",
        "test_pictures.py",
        "test_adapter_options.py",
        "test_jobs.py",
        "test_cases.py",
        "test_cli.py",
        "test_between.py",
        "test_ends.py",
        "test_resume.py",
        "test_estimate.py",
        "test_embedding.py",
        "test_loan.py",
        "test_rates.py",
        "test_unread.py",
        "test_full_size.py",
        "test_foreign_loras.py",
    ]
if importlib.util.find_spec("ldm") is None:
    collect_ignore += ["pins"]


IMPORTS = 50  # modules; so many new ones are worth a look through all objects
_frozen = 0  # modules at the last look


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """A run collects garbage twice, and what imports left is most of what is looked through: it is not garbage, and set aside."""
    global _frozen
    yield
    if len(sys.modules) >= _frozen + IMPORTS:
        _frozen = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def models_as_before() -> Iterator[None]:
    """Checks that shared models are bit for bit as they were loaded."""
    yield
    changed = models.take_back()
    assert not changed, f"the test left other weights, hooks or forwards in the model of {', '.join(changed)}"


@pytest.fixture(scope="session")
def mini_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 1.x of the real layout, a tenth as wide."""
    return write_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="session")
def mini_inpainting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as an inpainting model."""
    return write_mini_inpainting(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="session")
def mini_sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 2.x in miniature."""
    return write_mini_sd2(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="session")
def mini_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDXL in miniature."""
    return write_mini_sdxl(tmp_path_factory.mktemp("mini"))


def write_picture(path: Path, width: int = 96, height: int = 96, seed: int = 0, **save: object) -> Path:
    """A colourful smooth picture at `path`."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((width, height), Image.Resampling.BICUBIC).save(path, **save)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A kohya folder `3_blob` with four pictures, three of them captioned; returns its parent."""
    folder = tmp_path / "photos"
    sizes = [(96, 96), (160, 96), (96, 160), (120, 90)]
    for number, (width, height) in enumerate(sizes):
        write_picture(folder / "3_blob" / f"{number}.png", width, height, seed=number)
    for number in range(3):
        (folder / "3_blob" / f"{number}.txt").write_text(f"a blob, number {number}")
    return folder


def small_config(photos: Path, out: Path, **changes: object) -> TrainConfig:
    """Settings of a run that takes seconds."""
    flat = {
        "data": [str(photos)], "out": str(out), "name": "blob", "trigger": "ohwx", "resolution": 64, "min_bucket_reso": 64,
        "rank": 2, "alpha": 2, "steps": 3, "preview_steps": 0, "unet_lr": 1e-3, "text_encoder_lr": 1e-3, "save_precision": "float",
        **changes,
    }  # fmt: skip
    return build_config(flat)
