"""Frozen layers against torch's own operators: results, gradients, what is saved, and when they are not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.model import frozen_layers as lean
from lib_lora.model import matmul as products
from lib_lora.model.frozen_layers import (
    FrozenConv,
    FrozenLinear,
    FrozenPatchConv,
    LoraLinear,
    convolved_onto,
    frozen_forwards,
    product,
)
from lib_lora.model.patching import forwards_replaced, frozen
from tests.models import shared_host
from tools.bench.counting import saved_bytes

CPU = torch.device("cpu")


def gradients(y: torch.Tensor, wanted: list[torch.Tensor]) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return list(torch.autograd.grad((y * torch.randn_like(y)).sum(), wanted))


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, wanted: list[torch.Tensor]) -> None:
    assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    for a, b in zip(gradients(ours, wanted), gradients(theirs, wanted)):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_product_is_the_matrix_product(transposed: bool) -> None:
    a, b = torch.randn(5, 7), (torch.randn(7, 3).t() if transposed else torch.randn(3, 7))
    assert torch.allclose(product(a, b), a @ b.t(), atol=1e-5)
    assert torch.allclose(product(a.double(), b.double()), (a.double() @ b.double().t()), atol=1e-12)


def test_product_without_onednn_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(5, 7), torch.randn(3, 7)
    with_it = product(a, b)
    monkeypatch.setattr(products, "_ONEDNN", False)
    assert torch.allclose(product(a, b), with_it, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 6)])
def test_lora_linear(shape: tuple[int, ...], bias: bool) -> None:
    x, weight, b = torch.randn(shape, requires_grad=True), torch.randn(5, 6), torch.randn(5) if bias else None
    down, up = torch.randn(2, 6, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    ours = LoraLinear.apply(x, weight, b, down, up, 0.5)
    assert_same(ours, F.linear(x, weight, b) + F.linear(F.linear(x, down), up) * 0.5, [x, down, up])


def test_lora_linear_on_an_input_without_gradient() -> None:
    down, up = torch.randn(2, 6, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    x, weight = torch.randn(3, 6), torch.randn(5, 6)
    ours = LoraLinear.apply(x, weight, None, down, up, 1.0)
    assert_same(ours, F.linear(x, weight) + F.linear(F.linear(x, down), up), [down, up])


@pytest.mark.parametrize("kind", [FrozenConv, FrozenPatchConv])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 1, 0), (3, 1, 0)])
def test_convolutions(kind: Any, kernel: int, stride: int, padding: int) -> None:
    x, weight, bias = torch.randn(2, 4, 8, 6, requires_grad=True), torch.randn(5, 4, kernel, kernel), torch.randn(5)
    assert_same(kind.apply(x, weight, bias, stride, padding), F.conv2d(x, weight, bias, stride, padding), [x])
    assert_same(kind.apply(x, weight, None, stride, padding), F.conv2d(x, weight, None, stride, padding), [x])


@pytest.mark.parametrize("batch", [1, 2])
def test_what_comes_out_may_be_changed_in_place(batch: int) -> None:
    """Other extensions add to what a layer gives."""
    x, weight = torch.randn(batch, 4, 8, 8, requires_grad=True), torch.randn(5, 4, 3, 3)
    matrix, down, up = torch.randn(3, 8), torch.randn(2, 8, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    for y in (FrozenPatchConv.apply(x, weight, None, 1, 1), FrozenConv.apply(x, weight, None, 1, 1), FrozenLinear.apply(x, matrix, None),
              LoraLinear.apply(x, matrix, None, down, up, 1.0)):  # fmt: skip
        y += 1
        assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_empty_and_unbatched_inputs() -> None:
    linear, conv = nn.Linear(5, 3), nn.Conv2d(4, 2, 3)
    with forwards_replaced(frozen_forwards([linear, conv], CPU)):
        assert linear(torch.zeros(0, 4, 5)).shape == (0, 4, 3)
        assert conv(torch.zeros(4, 8, 8)).shape == (2, 6, 6)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Conv2d(8, 4, 1),
                         nn.Flatten(), nn.Linear(4 * 64, 3))  # fmt: skip


@pytest.mark.parametrize("most", [0, 10**6])
def test_a_network_answers_the_same(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "MOST_PATCHES", most)
    net, x = network(), torch.randn(2, 4, 16, 16, requires_grad=True)
    with frozen([net]):
        plain = net(x)
        with forwards_replaced(frozen_forwards([net], CPU)):
            ours = net(x)
            assert ours.grad_fn.name().startswith("FrozenLinear")
        assert_same(ours, plain, [x])
    assert not any("forward" in module.__dict__ for module in net.modules())


def test_what_is_kept_for_backward_shrinks() -> None:
    net, x = network(), torch.randn(2, 4, 16, 16, requires_grad=True)

    def kept() -> int:
        return saved_bytes(lambda: net(x).sum().backward(), [net])

    with frozen([net]):
        plain = kept()
        with forwards_replaced(frozen_forwards([net], CPU)):
            assert kept() == 2 * 8 * 16 * 16 * 4 < plain, "only SiLU's input is needed"


def test_other_number_formats_go_to_torch() -> None:
    net, x = network(), torch.randn(1, 4, 16, 16)
    with forwards_replaced(frozen_forwards([net], CPU)), torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert net(x).dtype == torch.bfloat16
        assert net.double()(x.double()).dtype == torch.float64
    assert frozen_forwards([net], torch.device("cuda")) == {}


def test_unusual_convolutions_are_left_alone() -> None:
    odd = [nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, (1, 3)), nn.Conv2d(4, 4, 3, padding="same"),
           nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 4, 3, stride=(1, 2))]  # fmt: skip
    assert frozen_forwards(odd, CPU) == {}


def test_a_whole_model_computes_with_them(mini_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")

    with shared_host(mini_checkpoint, tmp_path).borrow_model() as base:
        assert all("forward" in m.__dict__ for m in base.unet.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
        assert not any("forward" in m.__dict__ for m in base.vae.modules())


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_added_onto_what_is_there(
    onednn: bool, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_ONEDNN_ONTO", onednn and products._ONEDNN_ONTO)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    x, y = torch.randn(2, 4, 8, 8).contiguous(memory_format=layout), torch.randn(2, 6, 4, 4).contiguous(memory_format=layout)
    with torch.no_grad():
        wanted = y + conv(x)
        result = convolved_onto(y, x, conv)
    assert result.data_ptr() == y.data_ptr() and torch.allclose(y, wanted, atol=1e-5)
