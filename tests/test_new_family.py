"""A new family needs its own module and its place in the list, and no other change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from lib_lora.events import Finished, Planned, StepDone
from lib_lora.families.ddpm import Ddpm, scaled_linear
from lib_lora.families.family import TextEncoder
from lib_lora.families.known import FAMILIES, LAYOUTS, SIDE_STEP, TRAINABLE
from lib_lora.families.noise_process import NoiseProcess
from lib_lora.families.sd1 import SD1
from lib_lora.files.lora_file import read
from lib_lora.hosts import architecture
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.model.base import is_linear
from lib_lora.model.layer_names import families
from lib_lora.model.targets import unet_targets
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.latent_cache import LatentCache
from lib_lora.training.vae import posteriors
from tests.conftest import small_config
from tests.synthetic import SHAPES, _mini_shape, _tensor

CHANNELS, FACTOR = 6, 4
TEXT = "cond_stage_model.toy."


@dataclass(frozen=True, eq=False)
class Shifted(Ddpm):
    """A process of its own, that counts what is asked of it."""

    asked: tuple[list[int], ...] = ([0],)

    def to(self, device: torch.device) -> Shifted:
        return Shifted(self.alphas_cumprod.to(device), self.asked)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        self.asked[0][0] += 1
        return super().add_noise(latents, noise, timesteps) / 2


PROCESS = Shifted(scaled_linear().alphas_cumprod)
TOY = replace(
    SD1,
    id="toy",
    name="Toy",
    unet=replace(SD1.unet, context=64),
    text_encoders=(TextEncoder("lora_te", TEXT, layers=2, width=64),),
    latent_scale=0.5,
    noise_process=lambda: PROCESS,
    latent_channels=CHANNELS,
    vae_factor=FACTOR,
    base_versions=("toy", "toy_v"),
    architectures=("toy", "toy"),
    version_starts=("toy",),
    sd_version="Unknown",
)


def toy_shape(key: str, shape: list[int]) -> list[int] | None:
    """Of the miniature with other latents: the VAE has three levels."""
    if key.startswith(("first_stage_model.encoder.down.3.", "first_stage_model.encoder.down.2.downsample.")):
        return None
    small = None if key.startswith("first_stage_model.decoder.up.3.") else _mini_shape(key, shape)
    ends = ("quant_conv", "encoder.conv_out", "decoder.conv_in", "diffusion_model.input_blocks.0.0", "diffusion_model.out.2")
    if small is not None and any(end in key for end in ends):
        return [{4: CHANNELS, 8: 2 * CHANNELS}.get(side, side) for side in small]
    return small


def test_families_are_told_apart_and_their_processes_can_be_undone() -> None:
    assert len({family.id for family in FAMILIES}) == len(FAMILIES) > 2
    assert {family.unet.layout for family in FAMILIES} == set(LAYOUTS) and len(set(LAYOUTS)) == len(LAYOUTS)
    latents, noise, timesteps = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([3, 900])
    for family in FAMILIES:
        process: NoiseProcess = family.noise_process()
        noisy = process.add_noise(latents, noise, timesteps)
        velocity = process.target(latents, noise, timesteps, velocity=True)
        weight = process.snr(timesteps).view(-1, 1, 1, 1)
        clean = (weight / (1 + weight)).sqrt() * noisy - (1 / (1 + weight)).sqrt() * velocity  # ᾱ = SNR / (1 + SNR)
        torch.testing.assert_close(clean, latents, rtol=1e-4, atol=1e-4)
        assert SIDE_STEP % family.vae_factor == 0 and family.name in TRAINABLE


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the family, which is added to the list."""
    for room in (architecture, families):
        monkeypatch.setattr(room, "FAMILIES", (*architecture.FAMILIES, TOY))
    shapes = {key: toy_shape(key, shape) for key, shape in json.loads(SHAPES.read_text()).items()}
    named = {key.replace("cond_stage_model.transformer.", TEXT): shape for key, shape in shapes.items() if shape is not None}
    path = tmp_path / "toy.safetensors"
    save_file({key: _tensor(key, shape) for key, shape in named.items()}, path)
    return path


@pytest.mark.skipif(not __import__("importlib.util").util.find_spec("diffusers"), reason="needs diffusers")
def test_a_whole_run(toy: Path, photos: Path, tmp_path: Path) -> None:
    """Steps, a preview, a measurement of memory-sized latents, a file that is read again; by its own process and channels."""
    host, before = StandaloneHost(toy, tmp_path / "out"), PROCESS.asked[0][0]
    with host.borrow_model() as base:
        mean, _ = base.encode_image(torch.zeros(1, 3, 64, 96))
        assert base.family is TOY and mean.shape == (1, CHANNELS, 64 // FACTOR, 96 // FACTOR)
        assert base.decode_latents(mean).shape == (1, 3, 64, 96)
        pixels, cache = np.zeros((64, 96, 3), dtype=np.uint8), LatentCache(base.vae, base.family)
        cache.keep(tmp_path / "a.png", pixels, posteriors(base, [pixels])[0])
        assert cache.load(tmp_path / "a.png", pixels) is not None
    config = small_config(photos, tmp_path, preview_steps=2, cache_latents_to_disk=True, flip_aug=True)
    events = list(train(config, host, RunControl()))
    assert [event for event in events if isinstance(event, Planned)]
    assert sum(isinstance(event, StepDone) for event in events) == 3 and PROCESS.asked[0][0] == before + 3
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    state, metadata = read(events[-1].path)
    assert metadata["ss_base_model_version"] == "toy" and metadata["modelspec.architecture"] == "toy/lora"
    assert json.loads(events[-1].path.with_suffix(".json").read_text())["sd version"] == "Unknown"
    again = small_config(photos, tmp_path, name="again", network_weights=str(events[-1].path), cache_latents_to_disk=True)
    done = list(train(again, host, RunControl()))[-1]
    assert isinstance(done, Finished) and done.path is not None and read(done.path)[0].keys() == state.keys()


def test_a_file_with_other_latents_is_refused(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert StandaloneHost(toy, toy.parent).problems() == []
    monkeypatch.setattr(architecture, "FAMILIES", (*architecture.FAMILIES[:-1], replace(TOY, vae_factor=8)))
    (problem,) = StandaloneHost(toy, toy.parent).problems()
    assert "is incomplete" in problem and "6 channels and 4 pixels" in problem


class OtherLinear(nn.Module):
    """As some webuis have it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = in_features, out_features, None
        self.weight = nn.Parameter(torch.randn(out_features, in_features))


class SpatialTransformer(nn.Module):
    """Named as ldm's, with one layer of the same name."""

    def __init__(self, layer: Callable[[int, int], Any]) -> None:
        super().__init__()
        self.proj_in = layer(4, 4)


def test_a_linear_layer_need_not_be_torchs() -> None:
    found = []
    for layer in (nn.Linear, OtherLinear):
        unet = nn.Module()
        unet.input_blocks = nn.ModuleList([nn.ModuleList(), nn.ModuleList([nn.Identity(), SpatialTransformer(layer)])])
        found.append([target.name for target in unet_targets(unet, SD1)])
    assert found == [["lora_unet_down_blocks_0_attentions_0_proj_in"]] * 2
    assert not any(is_linear(module) for module in (None, nn.Conv2d(1, 1, 1), nn.Embedding(2, 2), nn.LayerNorm(2)))
