"""The VAE's encoder on a CPU against ldm's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.model import frozen_layers as products
from lib_lora.model.frozen_layers import encoder_forwards
from lib_lora.model.patching import forwards_replaced
from tests.pins.webui_double import load_ldm

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae(mini_checkpoint: Path) -> Any:
    return load_ldm(mini_checkpoint).first_stage_model


def pictures() -> dict[str, torch.Tensor]:
    """`[2, 3, 64, 48]` each, -1..1; flat ones are hard for norms."""
    noise = torch.rand(2, 3, 64, 48) * 2 - 1
    half = noise.clone()
    half[..., :24] = 1.0
    return {"noise": noise, "half white": half, "white": torch.ones_like(noise), "grey": torch.zeros_like(noise)}


@pytest.mark.parametrize("onto", [True, False])
@torch.no_grad()
def test_encoder_gives_ldms_own_result(vae: Any, onto: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_ONEDNN_ONTO", onto and products._ONEDNN_ONTO)
    for name, pixels in pictures().items():
        before, plain = pixels.clone(), vae.encoder(pixels)
        with forwards_replaced(encoder_forwards(vae, CPU)):
            lean = vae.encoder(pixels)
        assert float((lean - plain).norm() / plain.norm()) < 1e-4, name
        assert torch.equal(pixels, before) and torch.equal(vae.encoder(pixels), plain), "the encoder is not as it was"


@torch.no_grad()
def test_the_replacement_is_used(vae: Any) -> None:
    block, x = vae.encoder.down[0].block[0], torch.randn(1, 32, 16, 16)
    with forwards_replaced(encoder_forwards(vae, CPU)):
        assert block(x, None).data_ptr() == x.data_ptr(), "the result lies in the memory of what came in"


def test_encoder_with_gradients_or_in_half_precision_is_ldms(vae: Any) -> None:
    pixels = (torch.rand(1, 3, 32, 32) * 2 - 1).requires_grad_()
    gradients = []
    for forwards in ({}, encoder_forwards(vae, CPU)):
        with forwards_replaced(forwards):
            gradients.append(torch.autograd.grad(vae.encoder(pixels).sum(), pixels)[0])
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4)
    half, small = vae.encoder.to(torch.bfloat16), pixels.detach().bfloat16()
    with torch.no_grad():
        plain = half(small)
        with forwards_replaced(encoder_forwards(vae, CPU)):
            assert torch.equal(half(small), plain)
    vae.encoder.float()


def test_it_stands_aside_on_other_devices_and_other_vaes(vae: Any) -> None:
    assert encoder_forwards(vae, torch.device("cuda")) == {}
    assert encoder_forwards(torch.nn.Identity(), CPU) == {}
    assert len(encoder_forwards(vae, CPU)) == 10  # two at each of four sizes, two in the middle
