"""Latents of a batch: cached, mirrored, encoded anew, from disk; and the validation loss."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_lora.check import look
from lib_lora.data.augmentation import PLAIN, Augmentation, drawn_augmentation
from lib_lora.data.example import load_example
from lib_lora.errors import ConfigError, DatasetError
from lib_lora.events import Encoded, HeldOut, StepDone
from lib_lora.files.lora_file import read
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.jobs.job import Job
from lib_lora.jobs.queue_listing import job_json
from lib_lora.model.adapter import state_dict
from lib_lora.plan import Batch, Plan
from lib_lora.run_control import RunControl
from lib_lora.settle import settle
from lib_lora.train import train
from lib_lora.training import latent_cache
from lib_lora.training.latent_cache import FOLDER, LatentCacheError, encoder_fingerprint
from lib_lora.training.latents import LatentSource, latent_mask
from lib_lora.training.precision import choose_precision
from lib_lora.training.trainer import Trainer
from lib_lora.training.vae import image_tensor, pixels_hash, posteriors
from tests.conftest import small_config, write_picture
from tests.models import shared_host


@pytest.fixture
def host(mini_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    return shared_host(mini_checkpoint, tmp_path / "out")


@pytest.fixture
def base(host: StandaloneHost) -> Iterator[DiffusersModel]:
    with host.borrow_model() as model:
        yield model


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Four pictures larger than the training size."""
    for number in range(4):
        write_picture(tmp_path / "squares" / f"{number}.png", 150, 100, seed=number)
    return tmp_path / "squares"


def pictures_of(folder: Path, host: StandaloneHost, base: DiffusersModel, **flat: object) -> tuple[LatentSource, Plan, Any]:
    config = small_config(folder, host.lora_folder(), enable_bucket=False, **flat)
    plan = look(config, host).checked()
    return LatentSource(config, plan, base), plan, config


def everything(pictures: LatentSource, count: int) -> torch.Tensor:
    """Plain latents of all images."""
    return pictures.without_augmentation(range(count)).latents


class Counted:
    """A model that notes how many pictures each call of its VAE got."""

    def __init__(self, base: DiffusersModel) -> None:
        self._base, self.calls = base, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def encode_image(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls.append(len(pixels))
        return self._base.encode_image(pixels)


def test_latents_are_one_posterior_sample_of_seed_and_image(squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    results = []
    for seed in (1, 1, 2):
        pictures, plan, config = pictures_of(squares, host, base, seed=seed)
        assert list(pictures.encode()) == [1, 2, 3, 4] and pictures.total == 4
        results.append(everything(pictures, 4))
    first, same, other = results
    pixels = load_example(config.data, plan.samples[0], plan.placements[0], PLAIN).pixels
    mean, logvar = base.encode_image(image_tensor(pixels)[None])
    assert torch.equal(first, same) and not torch.equal(first, other) and first.shape == (4, 4, 8, 8)
    sigma = ((first[0] / base.family.latent_scale - mean[0]) / torch.exp(0.5 * logvar[0])).abs()
    assert float(sigma.max()) < 6 and 0.5 < float(sigma.mean()) < 1.1


def test_mirror_images_are_shown_half_of_the_time(squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    pictures, plan, config = pictures_of(squares, host, base, flip_aug=True)
    counted = Counted(base)
    pictures = LatentSource(config, plan, counted)
    assert list(pictures.encode()) == [1, 2, 3, 4] and len(counted.calls) == 8
    plain = everything(pictures, 4)
    mirrored = load_example(config.data, plan.samples[1], plan.placements[1], Augmentation(mirrored=True)).pixels
    wanted = posteriors(base, [mirrored])[0].sample(base.family.latent_scale, config.run.seed, pixels_hash(mirrored))
    seen = 0
    for step in range(40):
        latents = pictures.batch(Batch(step, 0, [0, 1], first=2)).latents
        turned = drawn_augmentation(config.data, config.run.seed, step, 3).mirrored
        assert torch.equal(latents[1], wanted if turned else plain[1])
        seen += turned
    assert 10 < seen < 30
    without, _, _ = pictures_of(squares, host, base)
    list(without.encode())
    assert all(torch.equal(without.batch(Batch(step, 0, [1])).latents, plain[1:2]) for step in range(20))


def test_live_latents_are_a_function_of_seed_step_and_place(squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    pictures, plan, config = pictures_of(squares, host, base, cache_latents=False)
    assert pictures.total == 0 and list(pictures.encode()) == []
    first = pictures.batch(Batch(3, 0, [0, 1])).latents
    assert torch.equal(first, LatentSource(config, plan, base).batch(Batch(3, 1, [0, 1])).latents)
    for other in (Batch(4, 0, [0, 1]), Batch(3, 0, [0, 1], first=1)):
        assert not torch.equal(first[0], pictures.batch(other).latents[0])
    place = pictures.batch(Batch(3, 0, [1], first=1)).latents
    assert float((place - first[1:]).abs().max()) < 1e-5, "an image of a step does not depend on the others"
    pixels = load_example(config.data, plan.samples[0], plan.placements[0], PLAIN).pixels
    assert torch.equal(first[0], posteriors(base, [pixels])[0].sample(base.family.latent_scale, config.run.seed, "step", 3, 0))


@pytest.mark.parametrize("option", ["random_crop", "color_aug", "flip_aug"])
def test_live_pictures_are_changed_as_drawn(option: str, squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    pictures, plan, config = pictures_of(squares, host, base, cache_latents=False, **{option: True})
    changed = 0
    for step in range(12):
        augmentation = drawn_augmentation(config.data, config.run.seed, step, 0)
        pixels = load_example(config.data, plan.samples[2], plan.placements[2], augmentation).pixels
        wanted = posteriors(base, [pixels])[0].sample(base.family.latent_scale, config.run.seed, "step", step, 0)
        assert torch.equal(pictures.batch(Batch(step, 0, [2])).latents[0], wanted)
        changed += not np.array_equal(pixels, load_example(config.data, plan.samples[2], plan.placements[2], PLAIN).pixels)
    assert changed >= 1


def test_pictures_encoded_together_are_as_one_by_one(photos: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    results, calls = [], []
    for at_once in (1, 3):
        config = small_config(photos, host.lora_folder(), flip_aug=True, vae_batch_size=at_once, enable_bucket=False)
        counted = Counted(base)
        pictures = LatentSource(config, look(config, host).checked(), counted)
        assert list(pictures.encode()) == [1, 2, 3, 4]
        results.append(torch.cat([pictures.batch(Batch(step, 0, [0, 1, 2, 3])).latents for step in range(4)]))
        calls.append(counted.calls)
    assert calls == [[1] * 8, [3, 3, 1, 1]]
    assert float((results[0] - results[1]).abs().max()) < 1e-5


def test_only_pictures_of_one_size_are_encoded_together(photos: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    config = small_config(photos, host.lora_folder(), vae_batch_size=8, resolution=128)
    plan, counted = look(config, host).checked(), Counted(base)
    assert list(LatentSource(config, plan, counted).encode()) == [1, 2, 3, 4]
    assert sorted(counted.calls) == sorted(len(set(members)) for members in plan.buckets.values()) != [4]


def files_in(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).iterdir())


def test_latents_on_disk_are_found_again(squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    def encoded(**flat: object) -> tuple[int, torch.Tensor]:
        _, plan, config = pictures_of(squares, host, base, cache_latents_to_disk=True, **flat)
        counted = Counted(base)
        pictures = LatentSource(config, plan, counted)
        assert list(pictures.encode()) == [1, 2, 3, 4]
        return sum(counted.calls), everything(pictures, 4)

    fresh, first = encoded()
    kept, again = encoded()
    assert (fresh, kept) == (4, 0) and torch.equal(first, again) and len(files_in(squares)) == 4
    without, _, _ = pictures_of(squares, host, base)
    list(without.encode())
    assert torch.equal(everything(without, 4), first)
    other_seed, other = encoded(seed=77)
    assert other_seed == 0 and not torch.equal(other, first)
    assert encoded(resolution=72, min_bucket_reso=64)[0] == 4, "another size"
    assert encoded(flip_aug=True)[0] == 4, "the mirror images alone"
    assert encoded(resize_interpolation="nearest")[0] == 4, "another filter"
    write_picture(squares / "2.png", 150, 100, seed=50)
    changed, third = encoded()
    assert changed == 1 and not torch.equal(third[2], first[2]) and torch.equal(third[3], first[3])
    with torch.no_grad():
        weight = next(base.vae.encoder.parameters())
        weight.flatten()[0] += 0.01
        assert encoded()[0] == 4, "another VAE"
        weight.flatten()[0] -= 0.01


def test_the_decoder_has_no_part_in_it(mini_checkpoint: Path, tmp_path: Path) -> None:
    with StandaloneHost(mini_checkpoint, tmp_path).borrow_model() as base:  # its own: it is changed for good
        before = encoder_fingerprint(base.vae)
    with torch.no_grad():
        next(base.vae.decoder.parameters()).flatten()[0] += 1
        next(base.vae.post_quant_conv.parameters()).flatten()[0] += 1
        assert encoder_fingerprint(base.vae) == before
        next(base.vae.quant_conv.parameters()).flatten()[0] += 1
        assert encoder_fingerprint(base.vae) != before


@pytest.mark.parametrize("harm", ["cut", "empty", "foreign", "swapped", "bits", "half", "other"])
def test_damaged_and_foreign_files_are_written_anew(harm: str, squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    def encoded() -> tuple[int, torch.Tensor]:
        _, plan, config = pictures_of(squares, host, base, cache_latents_to_disk=True)
        counted = Counted(base)
        pictures = LatentSource(config, plan, counted)
        list(pictures.encode())
        return sum(counted.calls), everything(pictures, 4)

    first = encoded()[1]
    one, two = files_in(squares)[:2]
    content = one.read_bytes()
    if harm == "cut":
        one.write_bytes(content[: len(content) // 2])
    elif harm == "empty":
        one.write_bytes(b"")
    elif harm == "foreign":
        save_file({"mean": torch.zeros(4, 8, 8), "logvar": torch.zeros(4, 8, 8)}, one)
    elif harm == "swapped":
        shutil.copy(two, one)
    elif harm == "bits":
        one.write_bytes(content[:-3] + bytes([content[-3] ^ 64]) + content[-2:])
    elif harm == "half":
        save_file({key: value.half() for key, value in load_file(one).items()}, one)
    else:
        save_file({"other": torch.zeros(1)}, one)
    count, again = encoded()
    assert count == 1 and torch.equal(again, first) and encoded()[0] == 0


def test_a_full_disk_is_one_sentence(
    squares: Path, host: StandaloneHost, base: DiffusersModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(latent_cache, "write_atomically", full)
    pictures, _, _ = pictures_of(squares, host, base, cache_latents_to_disk=True)
    with pytest.raises(LatentCacheError, match="No space left on device"):
        list(pictures.encode())


def test_a_place_that_is_no_folder_is_told_before(squares: Path, host: StandaloneHost) -> None:
    (squares / FOLDER).write_text("in the way")
    with pytest.raises(ConfigError, match=r"Cache latents to disk \(cache_latents_to_disk\).*cannot be written to"):
        look(small_config(squares, host.lora_folder(), cache_latents_to_disk=True), host).checked()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_cannot_be_written_is_told_before(squares: Path, host: StandaloneHost) -> None:
    squares.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written to"):
        look(small_config(squares, host.lora_folder(), cache_latents_to_disk=True), host).checked()


def test_hidden_latents_are_no_images(squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    list(pictures_of(squares, host, base, cache_latents_to_disk=True)[0].encode())
    assert len(look(small_config(squares, host.lora_folder()), host).checked().samples) == 4
    assert len(look(small_config(squares.parent, host.lora_folder()), host).checked().samples) == 4


def test_masks_are_averaged_over_latent_pixels(squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    mask = np.zeros((100, 150), dtype=np.uint8)
    mask[:, :75] = 255
    (squares.parent / "masks").mkdir()
    for number in range(4):
        Image.fromarray(mask).save(squares.parent / "masks" / f"{number}.png")
    flat = {"masked_loss": True, "mask_data": str(squares.parent / "masks"), "flip_aug": True}
    pictures, plan, config = pictures_of(squares, host, base, **flat)
    list(pictures.encode())
    still = pictures.without_augmentation([0]).mask
    assert still is not None and still.shape == (1, 1, 8, 8)
    pixels = load_example(config.data, plan.samples[0], plan.placements[0], PLAIN).mask
    assert pixels is not None and torch.equal(still[0], latent_mask(pixels, 8))
    block = torch.tensor(pixels[:8, 24:32] / 255.0).float().mean()
    assert float(still[0, 0, 0, 3]) == pytest.approx(float(block), abs=1e-6)
    assert (still[..., :3] == 1).all() and (still[..., 5:] == 0).all()
    turned = next(step for step in range(20) if drawn_augmentation(config.data, config.run.seed, step, 0).mirrored)
    shown = pictures.batch(Batch(turned, 0, [0])).mask
    assert shown is not None and torch.allclose(shown, still.flip(-1))
    assert pictures_of(squares, host, base)[0].without_augmentation([0]).mask is None


def losses(folder: Path, host: StandaloneHost, **flat: object) -> list[float]:
    config = small_config(folder, host.lora_folder(), **{"name": "x", "overwrite": True, "batch_size": 2, **flat})
    return [event.loss for event in train(config, host, RunControl()) if isinstance(event, StepDone)]


def test_what_is_masked_does_not_count(squares: Path, host: StandaloneHost) -> None:
    (squares.parent / "masks").mkdir()
    for number in range(4):
        Image.new("L", (150, 100), 51).save(squares.parent / "masks" / f"{number}.png")  # a fifth everywhere
    plain = losses(squares, host, enable_bucket=False, steps=1)
    masked = losses(squares, host, enable_bucket=False, steps=1, masked_loss=True, mask_data=str(squares.parent / "masks"))
    assert masked[0] == pytest.approx(plain[0] / 5, rel=1e-5)


def test_transparency_is_a_mask(squares: Path, host: StandaloneHost) -> None:
    for number in range(4):
        write_picture(squares / f"{number}.png", 64, 64, seed=number)
        with Image.open(squares / f"{number}.png") as image:
            layer = image.convert("RGBA")
        layer.putalpha(Image.new("L", (64, 64), 0))
        layer.save(squares / f"{number}.png")
    assert losses(squares, host, steps=1, alpha_mask=True) == [0.0]
    assert losses(squares, host, steps=1)[0] > 0


def test_regularisation_images_have_a_weight_of_their_own(squares: Path, host: StandaloneHost, tmp_path: Path) -> None:
    for number in range(4):
        write_picture(tmp_path / "reg" / "1_blob" / f"{number}.png", 64, 64, seed=9)
    flat = {
        "reg_data": [str(tmp_path / "reg")],
        "enable_bucket": False,
        "steps": 8,
        "batch_size": 1,
        "repeats": 1,
        "unet_lr": 1e-9,
    }
    flat["text_encoder_lr"] = 0
    config = small_config(squares, host.lora_folder(), **flat)
    plan = look(config, host).checked()
    is_reg = [plan.samples[update[0].indices[0]].is_reg for update in plan.updates(config.run.seed)]
    assert sum(is_reg) == 4
    one, tenth = losses(squares, host, **flat), losses(squares, host, **flat, prior_loss_weight=0.1)
    assert [small / whole for small, whole in zip(tenth, one)] == pytest.approx([0.1 if reg else 1.0 for reg in is_reg], rel=1e-3)


def test_missing_and_wrong_masks_are_told(squares: Path, host: StandaloneHost, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (150, 100)).save(masks / "0.png")
    Image.new("L", (99, 100)).save(masks / "1.jpg")
    (masks / "2.png").write_text("x")
    with pytest.raises(ConfigError) as caught:
        look(small_config(squares, host.lora_folder(), masked_loss=True, mask_data=str(masks)), host).checked()
    assert caught.value.problems == [
        "Mask folder (mask_data): has no mask for '3.png'; add one with the same name.",
        "Mask folder (mask_data): '1.jpg' is 99x100, but its image is 150x100; make them the same size.",
        "Mask folder (mask_data): Image '2.png' is not a readable PNG, JPEG, WEBP or BMP file; replace or remove it.",
    ]
    with pytest.raises(ConfigError, match=r"Mask folder \(mask_data\): '/no' does not exist"):
        look(small_config(squares, host.lora_folder(), masked_loss=True, mask_data="/no"), host).checked()


def test_masks_in_a_folder_of_the_image_folders_name(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    write_picture(photos / "2_other" / "0.png", 70, 70)
    (photos / "2_other" / "0.txt").write_text("x")
    for folder in ("3_blob", "2_other"):
        for path in (photos / folder).glob("*.png"):
            with Image.open(path) as image:
                (tmp_path / "masks" / folder).mkdir(parents=True, exist_ok=True)
                Image.new("L", image.size).save(tmp_path / "masks" / folder / path.name)
    plan = look(small_config(photos, host.lora_folder(), masked_loss=True, mask_data=str(tmp_path / "masks")), host).checked()
    assert {(sample.path.parent.name, sample.mask.parent.name) for sample in plan.samples if sample.mask} == {
        ("3_blob", "3_blob"), ("2_other", "2_other")}  # fmt: skip


def test_a_mask_exchanged_after_the_check_is_noticed(squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    (squares.parent / "masks").mkdir()
    for number in range(4):
        Image.new("L", (150, 100)).save(squares.parent / "masks" / f"{number}.png")
    pictures, _, _ = pictures_of(squares, host, base, masked_loss=True, mask_data=str(squares.parent / "masks"))
    Image.new("L", (100, 150)).save(squares.parent / "masks" / "2.png")
    with pytest.raises(DatasetError, match=r"'2\.png' has changed since it was checked"):
        list(pictures.encode())


def test_height_is_trained_at(squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    for bucket in (True, False):
        config = small_config(squares, host.lora_folder(), resolution=64, resolution_height=128, enable_bucket=bucket)
        pictures = LatentSource(config, look(config, host).checked(), base)
        if not bucket:
            list(pictures.encode())
            assert pictures.without_augmentation([0]).latents.shape == (1, 4, 16, 8)
    run = list(train(dataclasses.replace(config, run=dataclasses.replace(config.run, steps=1)), host, RunControl()))
    metadata = read(run[-1].path)[1]
    assert (metadata["ss_resolution"], metadata["modelspec.resolution"]) == ("(64, 128)", "64x128")


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_that_holds_images_out(cached: bool, squares: Path, host: StandaloneHost) -> None:
    flat = {"validation_split": 0.25, "repeats": 1, "steps": 6, "enable_bucket": False, "cache_latents": cached, "batch_size": 1}
    config = small_config(squares, host.lora_folder(), **flat)
    events = list(train(config, host, RunControl()))
    assert [event.step for event in events if isinstance(event, HeldOut)] == [3, 6]
    assert [event.total for event in events if isinstance(event, Encoded)] == ([4] * 4 if cached else [])
    job = Job(config, torch.device("cpu"))
    for event in events:
        job.apply(event)
    measured = [[event.step, event.loss] for event in events if isinstance(event, HeldOut)]
    assert job_json(job)["held_out"] == measured and json.dumps(job_json(job)["held_out"])
    metadata = read(events[-1].path)[1]
    assert (metadata["ss_num_validation_images"], metadata["ss_cache_latents"]) == ("1", str(cached))


def test_measuring_changes_nothing_and_is_the_same_each_time(squares: Path, host: StandaloneHost, base: DiffusersModel) -> None:
    results, plain = [], None
    for measured in (False, True):
        _, plan, config = pictures_of(squares, host, base, validation_split=0.5, batch_size=2, repeats=1, flip_aug=True,
                                      caption_dropout_rate=0.5, shuffle_caption=True)  # fmt: skip
        pictures = LatentSource(config, plan, base)
        list(pictures.encode())
        trainer = Trainer(settle(config, base.detected), plan, base, pictures, choose_precision(config.precision, base.device))
        for update in plan.updates(config.run.seed):
            trainer.step(update)
            if measured:
                plain = trainer.heldout_loss()
                assert plain == trainer.heldout_loss()
        results.append(state_dict(trainer.adapters))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
    assert plain is not None and 0.1 < plain < 5


def test_what_is_measured_is_what_would_be_saved_and_shown_in_full(
    squares: Path, host: StandaloneHost, base: DiffusersModel
) -> None:
    def measured(steps: int, **flat: object) -> float:
        _, plan, config = pictures_of(squares, host, base, validation_split=0.5, repeats=1, steps=3, unet_lr=1e-2, **flat)
        pictures = LatentSource(config, plan, base)
        list(pictures.encode())
        trainer = Trainer(settle(config, base.detected), plan, base, pictures, choose_precision(config.precision, base.device))
        for update in list(plan.updates(config.run.seed))[:steps]:
            trainer.step(update)
        return trainer.heldout_loss()

    assert measured(0) == measured(0, caption_dropout_every_n_epochs=1), "no caption is dropped"
    assert measured(0) != measured(0, caption_prefix="a cup of coffee", text_encoder_lr=0)
    assert measured(3) != measured(3, ema_decay=0.9), "the moving average is what is saved"
    assert measured(1) != measured(3, stop_text_encoder_training=1)


def test_the_held_out_loss_falls_while_it_learns(tmp_path: Path, host: StandaloneHost) -> None:
    for number in range(6):
        write_picture(tmp_path / "same" / f"{number}.png", 64, 64, seed=1)
    flat = {
        "validation_split": 0.2,
        "repeats": 1,
        "steps": 40,
        "rank": 8,
        "alpha": 8,
        "unet_lr": 1e-2,
        "validate_every_n_epochs": 0,
    }
    flat["validate_every_n_steps"] = 5
    events = list(train(small_config(tmp_path / "same", host.lora_folder(), **flat), host, RunControl()))
    found = [event.loss for event in events if isinstance(event, HeldOut)]
    assert len(found) == 8 and found[-1] < 0.9 * found[0]


def test_one_image_cannot_be_held_out(tmp_path: Path, host: StandaloneHost) -> None:
    write_picture(tmp_path / "one" / "0.png")
    with pytest.raises(ConfigError, match=r"Validation split \(validation_split\): there is only one image"):
        look(small_config(tmp_path / "one", host.lora_folder(), validation_split=0.1), host).checked()
