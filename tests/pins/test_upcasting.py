"""A webui with its model in fp16 (as without --no-half), with --upcast-sampling or without.

A CPU has no fp16 norms under torch 2.1.2: stand-ins compute them in fp32, as CUDA's autocast does. Linears and convolutions
compute in bf16 under autocast, from fp16 weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib_lora.errors import ConfigError
from lib_lora.events import Chosen, StepDone
from lib_lora.files.lora_file import read
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config
from tests.pins.test_webui_adapter import fingerprint
from tests.pins.webui_double import as_webui_holds_it, install, load_ldm


def norms_as_cuda_autocast(patch: pytest.MonkeyPatch) -> None:
    """Group and layer norms are in the list of operations that CUDA's autocast computes in fp32."""
    for name in ("group_norm", "layer_norm"):
        patch.setattr(nn.functional, name, _in_fp32(getattr(nn.functional, name)))


def _in_fp32(norm: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def answer(x: torch.Tensor, size: Any, *rest: Any) -> torch.Tensor:
        return norm(x.float(), size, *(item.float() if isinstance(item, torch.Tensor) else item for item in rest))

    return answer


def upcast_as_the_webui(patch: pytest.MonkeyPatch, devices: Any) -> list[str]:
    """What webui v1.10.1's `sd_hijack_unet` does to ldm's classes; returns a list of what was cast, as it grows."""
    from ldm.modules import attention
    from ldm.modules.diffusionmodules import openaimodel, util

    cast: list[str] = []
    norm, gated, embedded = util.GroupNorm32.forward, attention.GEGLU.forward, openaimodel.timestep_embedding

    def group_norm(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not devices.unet_needs_upcast:
            return norm(self, x)
        cast.append("norm")
        return norm(self.float(), x)

    def geglu(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not devices.unet_needs_upcast:
            return gated(self, x)
        cast.append("geglu")
        return gated(self.float(), x.float()).to(devices.dtype_unet)

    def timestep_embedding(timesteps: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        kept = devices.unet_needs_upcast and timesteps.dtype == torch.int64
        return embedded(timesteps, *args, **named).to(torch.float32 if kept else devices.dtype_unet)

    patch.setattr(util.GroupNorm32, "forward", group_norm)
    patch.setattr(attention.GEGLU, "forward", geglu)
    patch.setattr(openaimodel, "timestep_embedding", timestep_embedding)
    return cast


def in_half(model: Any) -> Any:
    """As `sd_models.load_model_weights` leaves it: all but ᾱ in fp16; the U-Net's own word for its format follows its settings."""
    original, model.alphas_cumprod = model.alphas_cumprod, None
    model.half()
    model.alphas_cumprod = model.alphas_cumprod_original = original
    model.model.diffusion_model.dtype = torch.float16
    return model


def trained(model: Any, photos: Path, out: Path, **changes: object) -> tuple[list[float], dict[str, torch.Tensor], list[str]]:
    from lib_lora.hosts.webui_host import WebuiHost

    rates = {"optimizer": "SGDNesterov", "unet_lr": 0.1, "text_encoder_lr": 0.1}  # a step is as long as its gradient
    flat = {"train_layers": "all", "preview_steps": 2, **rates, **changes}
    events = list(train(small_config(photos, out, **flat), WebuiHost(), RunControl()))
    told = [event.text for event in events if isinstance(event, Chosen)]
    return [event.loss for event in events if isinstance(event, StepDone)], read(events[-1].path)[0], told


@pytest.mark.parametrize("flag", [True, False], ids=["--upcast-sampling", "--no-half-vae"])
def test_a_model_in_fp16_is_trained_and_comes_back(
    flag: bool, mini_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and what is learned are those of full precision but for rounding; the upcasting has no part in it."""
    model = as_webui_holds_it(load_ldm(mini_checkpoint), mini_checkpoint)
    install(monkeypatch, model, tmp_path / "full")
    wanted, deltas, _ = trained(model, photos, tmp_path)
    webui = install(monkeypatch, in_half(model), tmp_path / "half")
    model.first_stage_model.to(torch.float16 if flag else torch.float32)
    webui.devices.unet_needs_upcast, webui.devices.dtype_unet = flag, torch.float16
    cast = upcast_as_the_webui(monkeypatch, webui.devices)
    norms_as_cuda_autocast(monkeypatch)
    before = fingerprint(model)
    losses, found, told = trained(model, photos, tmp_path)
    assert fingerprint(model) == before, "values, number formats and flags are those of before"
    assert webui.devices.unet_needs_upcast == flag and cast == []
    assert "Mixed precision: bf16, since the model is not loaded in full precision." in told
    assert losses == pytest.approx(wanted, rel=5e-3)
    ups = [key for key in deltas if key.endswith("lora_up.weight")]
    mine, theirs = (torch.cat([state[key].double().flatten() for key in ups]) for state in (found, deltas))
    assert bool(torch.isfinite(mine).all()) and float(mine @ theirs / mine.norm() / theirs.norm()) > 0.98


def test_full_precision_is_refused_of_it(
    mini_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = as_webui_holds_it(load_ldm(mini_checkpoint), mini_checkpoint)
    webui = install(monkeypatch, in_half(model), tmp_path)
    webui.devices.unet_needs_upcast = True
    before = fingerprint(model)
    with pytest.raises(ConfigError, match="the model is loaded in float16; choose fp16 or bf16"):
        trained(model, photos, tmp_path, mixed_precision="no")
    assert fingerprint(model) == before and webui.devices.unet_needs_upcast
