"""Tests that need CUDA; docs/gpu.md says which were run."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lib_lora.events import Finished, Planned, StepDone
from lib_lora.families.family import DetectedModel, Family
from lib_lora.families.sd1 import SD1
from lib_lora.families.sdxl import SDXL
from lib_lora.files.lora_file import read
from lib_lora.hosts.architecture import family_of, text_config, unet_config, vae_config
from lib_lora.hosts.checkpoint import Modules
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.model.embeddings import bundled
from lib_lora.replay.step import load_recording, replay
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.embedding import start_word
from tests.conftest import small_config
from tests.recorded import RECORDED
from tests.synthetic import SDXL_SHAPES, SHAPES, write_mini_sd2, write_mini_sdxl

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


@pytest.fixture
def host(mini_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    return StandaloneHost(mini_checkpoint, tmp_path / "out", torch.device("cuda"))


def trained(host: StandaloneHost, photos: Path, **flat: object) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of a run on the GPU, and its LoRA."""
    config = small_config(photos, host.lora_folder(), **flat)
    events = list(train(config, host, RunControl()))
    assert isinstance(events[0], Planned) and isinstance(events[-1], Finished) and events[-1].path
    return [event.loss for event in events if isinstance(event, StepDone)], read(events[-1].path)[0]


@pytest.mark.parametrize(
    "flat",
    [
        {"mixed_precision": "fp16"},
        {"mixed_precision": "bf16"},
        {"mixed_precision": "bf16", "full_bf16": True},
        {"mixed_precision": "fp16", "gradient_accumulation_steps": 2, "gradient_checkpointing": "on"},
        {"mixed_precision": "fp16", "network_dropout": 0.1, "rank_dropout": 0.1, "ema_decay": 0.9},
    ],
    ids=str,
)
def test_number_formats(flat: dict[str, object], host: StandaloneHost, photos: Path) -> None:
    losses, state = trained(host, photos, **flat, steps=8)
    assert all(math.isfinite(loss) for loss in losses)
    assert any(float(value.abs().max()) > 0 for key, value in state.items() if "lora_up" in key)


@pytest.mark.parametrize("flat", [{"mixed_precision": "fp16", "text_encoder_lr": 0}, {"mixed_precision": "bf16", "full_bf16": True},
                                  {"mixed_precision": "fp16", "gradient_checkpointing": "on", "preview_steps": 1}], ids=str)  # fmt: skip
@pytest.mark.parametrize("family", ["mini_checkpoint", "mini_sdxl"])
def test_an_embedding(family: str, flat: dict[str, object], request: pytest.FixtureRequest, photos: Path, tmp_path: Path) -> None:
    """On weights in half precision: the first loss is that of a run without, since it begins as the trigger; then it moves."""
    host = StandaloneHost(request.getfixturevalue(family), tmp_path / "out", torch.device("cuda"))
    plain, _ = trained(host, photos, name="plain", steps=1, **flat)
    losses, state = trained(host, photos, steps=6, embedding_vectors=1, embedding_lr=0.01, **flat)
    assert all(math.isfinite(loss) for loss in losses) and losses[0] == pytest.approx(plain[0], rel=1e-3)
    (word,) = bundled(state)
    with host.borrow_model() as base:
        start = start_word(small_config(photos, tmp_path, embedding_vectors=1), base)
    assert start is not None
    moved = [float((now - then.detach().cpu()).abs().max()) for now, then in zip(word.vectors, start.vectors)]
    assert all(0.01 < distance < 0.1 for distance in moved), moved


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_a_lora_in_fp16(host: StandaloneHost, photos: Path) -> None:
    losses, state = trained(host, photos, optimizer="AdamW8bit", mixed_precision="fp16", full_fp16=True, steps=8)
    assert all(math.isfinite(loss) for loss in losses)
    assert any(float(value.abs().max()) > 0 for key, value in state.items() if "lora_up" in key)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW8bit", "PagedAdamW", "Lion8bit", "SGDNesterov8bit"])
def test_optimizers_of_bitsandbytes(name: str, host: StandaloneHost, photos: Path) -> None:
    _, state = trained(host, photos, optimizer=name, mixed_precision="bf16")
    assert any(float(value.abs().max()) > 0 for key, value in state.items() if "lora_up" in key)


def test_checkpointing_saves_memory(host: StandaloneHost, photos: Path) -> None:
    peaks = []
    for choice in ("off", "on"):
        trained(host, photos, name=f"c_{choice}", gradient_checkpointing=choice, mixed_precision="bf16")
        peaks.append(torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()
    assert peaks[1] < peaks[0]


@pytest.mark.case(70)
@pytest.mark.parametrize("recording", RECORDED, ids=lambda path: path.stem)
def test_replay_of_sd_scripts_on_the_gpu(recording: Path, mini_checkpoint: Path, tmp_path: Path) -> None:
    """Recorded runs in full precision, with TF32 off: losses within 1e-3, cosine above 0.999, since kernels add in another order."""
    host = StandaloneHost(mini_checkpoint, tmp_path, torch.device("cuda"), full_precision=True)
    with host.borrow_model() as base:
        report = replay(load_recording(recording), base)
    assert max(report["loss_rel_err"]) < 1e-3 and report["delta_cosine"] > 0.999


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("velocity", [False, True])
def test_sdxl(precision: str, velocity: bool, mini_sdxl: Path, photos: Path, tmp_path: Path) -> None:
    """Both text encoders and the U-Net, in half precision, from noise and from v; losses as a CPU's in full precision."""
    settings = {"mixed_precision": precision, "v_parameterization": velocity, "steps": 4, "gradient_checkpointing": "on"}
    losses, state = trained(StandaloneHost(mini_sdxl, tmp_path / "gpu", torch.device("cuda")), photos, **settings)
    exact = StandaloneHost(mini_sdxl, tmp_path / "cpu", torch.device("cpu"))
    wanted, _ = trained(exact, photos, **{**settings, "mixed_precision": "no"})
    assert losses == pytest.approx(wanted, rel=0.05)
    learned = {key.split("_")[1] for key, value in state.items() if "lora_up" in key and bool(value.any())}
    assert learned == {"te1", "te2", "unet"}


def test_text_outputs_of_sdxl_are_kept_on_the_gpu(mini_sdxl: Path, photos: Path, tmp_path: Path) -> None:
    """Without a rate for the text encoders."""
    host = StandaloneHost(mini_sdxl, tmp_path, torch.device("cuda"))
    losses, state = trained(host, photos, text_encoder_lr=0, mixed_precision="bf16")
    assert all(math.isfinite(loss) for loss in losses) and not any("_te" in key for key in state)


@pytest.mark.parametrize("write", [write_mini_sd2, write_mini_sdxl], ids=["SD 2.x", "SDXL"])
def test_inpainting_models(write: Callable[..., Path], photos: Path, tmp_path: Path) -> None:
    host = StandaloneHost(write(tmp_path, inpaints=True), tmp_path / "out", torch.device("cuda"))
    losses, state = trained(host, photos, mixed_precision="fp16")
    assert all(math.isfinite(loss) for loss in losses) and any(bool(v.any()) for k, v in state.items() if "lora_up" in k)


@pytest.mark.parametrize("flat", [{"mixed_precision": "bf16"}, {"mixed_precision": "fp16", "conv_dim": 2},
                                  {"mixed_precision": "bf16", "adapter_type": "lokr"}, {"mixed_precision": "bf16", "adapter_type": "dora"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("family", ["mini_checkpoint", "mini_sdxl"])
def test_a_base_stored_in_8_bits(
    flat: dict[str, object], family: str, request: pytest.FixtureRequest, photos: Path, tmp_path: Path
) -> None:
    """As the webui's setting "FP8 weight" leaves it: Linear and convolution of U-Net and text encoders in float8, the VAE not.

    Its losses are those of the same numbers stored in half precision, and the stored ones stay bit for bit.
    """
    losses, bits = [], []
    for kept in (True, False):
        host = StandaloneHost(request.getfixturevalue(family), tmp_path / str(kept), torch.device("cuda"))
        with host.borrow_model() as base:
            networks = [base.unet, *(encoder.module for encoder in base.text_encoders)]
            layers = [m for network in networks for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
            for layer in layers:
                layer.to(torch.float8_e4m3fn)
                if not kept:
                    layer.to(torch.float16)
        before = [layer.weight.detach().clone() for layer in layers]
        found, state = trained(host, photos, **flat)
        losses.append(found)
        assert any(
            bool(value.any()) for key, value in state.items() if "lora_unet" in key and ("_up." in key or "lokr_w2" in key)
        )
        bits.append(all(torch.equal(layer.weight.view(torch.uint8), old.view(torch.uint8)) for layer, old in zip(layers, before)))
    assert bits == [True, True] and losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("family", ["mini_checkpoint", "mini_sd2", "mini_sdxl", "mini_inpainting"])
def test_a_run_on_the_gpu_is_that_on_a_cpu(family: str, request: pytest.FixtureRequest, photos: Path, tmp_path: Path) -> None:
    """The first loss of a run in full precision; later ones part by rounding that AdamW makes much of."""
    losses = []
    for device in ("cpu", "cuda"):
        checkpoint = request.getfixturevalue(family)
        host = StandaloneHost(checkpoint, tmp_path / device, torch.device(device), full_precision=True)
        losses.append(trained(host, photos, mixed_precision="no")[0])
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-3) and losses[1] == pytest.approx(losses[0], rel=0.02)


def full_shape(shapes_of: Path, device: torch.device) -> DiffusersModel:
    """A model of full size with random weights, made where it computes: U-Net and text encoders in fp16, as a host holds them."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in json.loads(shapes_of.read_text()).items()}
    family = family_of({key: value.shape for key, value in weights.items()})
    assert isinstance(family, Family)
    kinds = [CLIPTextModel, CLIPTextModelWithProjection]
    with device:
        unet = UNet2DConditionModel(**unet_config(weights)).half().eval()
        vae = AutoencoderKL(**vae_config(weights)).eval()
        configs = [text_config(weights, prefix) for prefix in [encoder.weights for encoder in family.text_encoders]]
        encoders = [kind(CLIPTextConfig(**config)).half().eval() for kind, config in zip(kinds, configs)]
    return DiffusersModel(Modules(unet, vae, tuple(encoders), DetectedModel(family, "its shapes")), device)


@pytest.mark.parametrize(
    ("shapes_of", "side", "bound"), [(SHAPES, 512, SD1.enough_bytes), (SDXL_SHAPES, 1024, SDXL.enough_bytes)]
)
def test_what_auto_leaves_off_fits(
    shapes_of: Path, side: int, bound: int, mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    """A model of full size in its own resolution, both parts trained, without checkpointing: below the bound that `auto` goes by."""
    host = StandaloneHost(mini_checkpoint, tmp_path / "out", torch.device("cuda"))
    host._model = full_shape(shapes_of, torch.device("cuda"))
    peaks = {}
    for choice in ("on", "off"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        sizes = {"resolution": side, "min_bucket_reso": side // 2, "rank": 16, "alpha": 16, "steps": 2}
        trained(host, photos, name=choice, gradient_checkpointing=choice, mixed_precision="bf16", **sizes)
        peaks[choice] = torch.cuda.max_memory_reserved()
    print({choice: f"{peak / 2**30:.1f} GB" for choice, peak in peaks.items()}, "at", side)
    assert peaks["on"] < peaks["off"] < 0.9 * bound
