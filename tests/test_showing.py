"""Scaling, cropping, colours, mirroring and masks of one example, against numbers of sd-scripts' own functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from lib_lora.config.data import DataConfig
from lib_lora.data.augmentation import COLOUR_SHARE, PLAIN, Augmentation, drawn_augmentation, with_colours
from lib_lora.data.buckets import Placement
from lib_lora.data.dataset import Sample
from lib_lora.data.example import load_example
from lib_lora.data.images import fit, load_alpha
from lib_lora.data.sizes import Size
from tests.conftest import write_picture

RECORDED = load_file(Path(__file__).parent / "data" / "kohya-augment.safetensors")
SCALED = sorted(key for key in RECORDED if key.startswith("scaled/"))


@pytest.mark.parametrize("key", SCALED)
def test_scaling_as_sd_scripts(key: str) -> None:
    wanted, name = RECORDED[key], key.split("/")[2]
    size = Size(*wanted.shape[:2])
    difference = fit(RECORDED["picture"], Placement(size, size), name).astype(int) - wanted
    assert np.abs(difference).max() <= 1
    others = [other for other in SCALED if other.split("/")[1] == key.split("/")[1]]
    assert sum(np.abs(RECORDED[other].astype(int) - wanted).max() <= 1 for other in others) <= 2, "filters differ, but for auto"


@pytest.mark.parametrize("key", sorted(key for key in RECORDED if key.startswith("colours/")))
def test_colours_as_sd_scripts(key: str) -> None:
    _, kind, amount = key.split("/")
    augmentation = Augmentation(hue=float(amount)) if kind == "hue" else Augmentation(gamma=float(amount))
    difference = with_colours(RECORDED["picture"], augmentation).astype(int) - RECORDED[key]
    assert np.abs(difference).max() <= 1
    assert np.abs(RECORDED[key].astype(int) - RECORDED["picture"]).max() > 3


@pytest.mark.parametrize("augmentation", [Augmentation(hue=8.0), Augmentation(hue=-8.0)])
def test_a_turned_hue_is_not_cut_off(augmentation: Augmentation) -> None:
    red = np.full((1, 1, 3), (255, 0, 0), dtype=np.uint8)
    assert with_colours(red, augmentation)[0, 0, 0] == 255


def test_looks_are_drawn_as_asked_for() -> None:
    assert {drawn_augmentation(DataConfig(), 1, step, 0) for step in range(50)} == {PLAIN}
    flips = [drawn_augmentation(DataConfig(flip_aug=True), 1, step, 0).mirrored for step in range(400)]
    assert 160 < sum(flips) < 240
    cuts = [drawn_augmentation(DataConfig(random_crop=True), 1, step, 0).cut for step in range(400)]
    assert len(set(cuts)) == 400 and np.abs(np.mean(cuts, axis=0) - 0.5).max() < 0.05
    augmentations = [drawn_augmentation(DataConfig(color_aug=True), 1, step, 0) for step in range(900)]
    hues, gammas = (
        [augmentation.hue for augmentation in augmentations if augmentation.hue],
        [augmentation.gamma for augmentation in augmentations if augmentation.gamma != 1],
    )
    assert abs(len(hues) + len(gammas) - 900 * COLOUR_SHARE) < 50 and min(len(hues), len(gammas)) > 100
    assert -8 <= min(hues) < -7 and 7 < max(hues) <= 8 and 0.95 <= min(gammas) < 0.96 and 1.04 < max(gammas) <= 1.05


def test_looks_are_a_function_of_seed_step_and_place() -> None:
    data = DataConfig(flip_aug=True, random_crop=True, color_aug=True)
    assert drawn_augmentation(data, 1, 2, 3) == drawn_augmentation(data, 1, 2, 3)
    assert len({drawn_augmentation(data, *at) for at in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4


def test_where_the_cut_lies() -> None:
    pixels = np.arange(40 * 20, dtype=np.uint16).reshape(40, 20).astype(np.uint8)
    placement = Placement(Size(16, 16), Size(40, 20))
    for cut, (top, left) in (((0.0, 0.0), (0, 0)), ((0.999, 0.999), (24, 4)), ((1.0, 1.0), (24, 4)), ((0.5, 0.5), (12, 2))):
        assert np.array_equal(fit(pixels, placement, "auto", cut), pixels[top : top + 16, left : left + 16])
    tops = {int(share / 100 * 25) for share in range(100)}
    assert tops == set(range(25)), "every place is possible, the last one too"


def test_masks_follow_their_image(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", 40, 24)
    with Image.open(path) as image:
        red = np.asarray(image)[..., 0]
    grey = tmp_path / "masks" / "a.png"
    grey.parent.mkdir()
    Image.fromarray(red).save(grey)
    sample = Sample(path, "x", 1, Size(24, 40), False, mask=grey)
    data = DataConfig(masked_loss=True)
    for augmentation in (PLAIN, Augmentation(mirrored=True), Augmentation(cut=(0.2, 0.9)), Augmentation(True, (0.9, 0.1))):
        shown = load_example(data, sample, Placement(Size(16, 16), Size(20, 33)), augmentation)
        assert shown.mask is not None and np.abs(shown.mask.astype(int) - shown.pixels[..., 0]).max() <= 1
    coloured = load_example(data, sample, Placement(Size(16, 16), Size(20, 33)), Augmentation(gamma=1.05))
    assert np.array_equal(coloured.mask, load_example(data, sample, Placement(Size(16, 16), Size(20, 33)), PLAIN).mask)
    unmasked = load_example(
        data, Sample(path, "x", 1, Size(24, 40), False, is_reg=True), Placement(Size(16, 16), Size(20, 33)), PLAIN
    )
    assert (unmasked.mask == 255).all()
    assert load_example(DataConfig(), sample, Placement(Size(16, 16), Size(20, 33)), PLAIN).mask is None


def test_a_mirrored_showing_is_the_mirror_image(tmp_path: Path) -> None:
    sample = Sample(write_picture(tmp_path / "a.png", 16, 16), "x", 1, Size(16, 16), False)
    plain, mirrored = (
        load_example(DataConfig(), sample, Placement(Size(16, 16), Size(16, 16)), Augmentation(turn)) for turn in (False, True)
    )
    assert np.array_equal(mirrored.pixels, plain.pixels[:, ::-1]) and not np.array_equal(mirrored.pixels, plain.pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_alpha_of_every_kind(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 4, 8))
    if mode == "P":
        palette = Image.new("P", (8, 8), 1)
        palette.putpalette([200, 0, 0, 0, 200, 0])
        palette.paste(0, (0, 0, 4, 8))
        palette.save(tmp_path / "a.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "a.png")
    alpha = load_alpha(tmp_path / "a.png")
    assert (alpha[:, :4] == 255).all() and (alpha[:, 4:] == (255 if mode == "RGB" else 0)).all()


def test_alpha_turns_with_its_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 4))
    image.save(tmp_path / "a.png", exif=exif)
    alpha = load_alpha(tmp_path / "a.png")
    assert alpha.shape == (8, 4) and (alpha[:4] == 255).all() and (alpha[4:] == 0).all()
    sample = Sample(tmp_path / "a.png", "x", 1, Size(8, 4), False)
    shown = load_example(DataConfig(alpha_mask=True), sample, Placement(Size(8, 4), Size(8, 4)), PLAIN)
    assert np.array_equal(shown.mask, alpha) and (shown.pixels[4:] == 255).all() and (shown.pixels[:4] == 0).all()
