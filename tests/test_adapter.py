"""LoRA pairs: the low-rank path equals merged weights, and detaching leaves nothing behind."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lib_lora.errors import LoraFileError
from lib_lora.model.adapter import LoraPair, adapters_from_state, attached, state_dict
from lib_lora.model.base import Target
from lib_lora.model.patching import forwards_replaced, frozen
from tests.pairs import new_pair

CPU = torch.device("cpu")


def layers() -> list[nn.Module]:
    return [
        nn.Linear(6, 5),
        nn.Linear(6, 4, bias=False),
        nn.Conv2d(6, 3, 1),
        nn.Conv2d(6, 3, 3, padding=1),
        nn.Conv2d(6, 3, 3, 2, 1),
    ]


def random_pair(module: nn.Module, alpha: float = 3.0) -> LoraPair:
    pair = new_pair(Target("layer", module, "unet"), 2, alpha, 1, CPU)
    nn.init.normal_(pair.up)
    return pair


def input_for(module: nn.Module) -> torch.Tensor:
    return torch.randn(2, 6, 4, 4) if isinstance(module, nn.Conv2d) else torch.randn(2, 7, 6)


@pytest.mark.parametrize("module", layers(), ids=str)
def test_low_rank_route_equals_merged_weights(module: nn.Module) -> None:
    pair, x = random_pair(module), input_for(module)
    delta = 3.0 / 2 * (pair.up.flatten(1) @ pair.down.flatten(1)).reshape(module.weight.shape)
    with attached([pair]):
        ours = module(x)
    plain = module(x)
    with torch.no_grad():
        module.weight += delta
    assert torch.allclose(ours, module(x), atol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-2)


@pytest.mark.parametrize("module", layers(), ids=str)
def test_a_new_pair_changes_nothing_and_is_drawn_as_kohya_draws(module: nn.Module) -> None:
    pair = new_pair(Target("layer", module, "unet"), 4, 1.0, 1, CPU)
    x = input_for(module)
    plain = module(x)
    with attached([pair]):
        assert torch.allclose(module(x), plain, rtol=1e-5, atol=1e-6)
    wide = new_pair(Target("layer", nn.Linear(400, 3), "unet"), 300, 1.0, 1, CPU).down
    reference = nn.init.kaiming_uniform_(torch.empty(300, 400), a=math.sqrt(5))
    assert wide.abs().max() <= 1 / 20 and float(wide.std()) == pytest.approx(float(reference.std()), rel=0.02)


def test_initial_values_depend_on_seed_and_name_alone() -> None:
    make = [
        new_pair(Target(name, nn.Linear(6, 5), "unet"), 2, 1.0, seed, CPU).down
        for name, seed in (("a", 1), ("a", 1), ("b", 1), ("a", 2))
    ]
    assert torch.equal(make[0], make[1]) and not torch.equal(make[0], make[2]) and not torch.equal(make[0], make[3])


def test_gradients_reach_the_pair_and_not_the_base() -> None:
    module = nn.Linear(6, 5)
    pair = random_pair(module)
    with frozen([module]), attached([pair]):
        module(torch.randn(2, 6)).sum().backward()
    assert pair.down.grad is not None and pair.up.grad is not None and module.weight.grad is None


def test_detaching_restores_also_after_an_error_and_an_older_forward() -> None:
    module = nn.Linear(6, 5)
    before = dict(module.__dict__)
    with pytest.raises(RuntimeError), attached([random_pair(module)]):
        assert "forward" in module.__dict__
        raise RuntimeError
    assert dict(module.__dict__) == before

    def older(x: torch.Tensor) -> torch.Tensor:
        return x

    module.forward = older
    with forwards_replaced({module: lambda x: x + 1}):
        assert float(module(torch.zeros(1))) == 1.0
    assert module.__dict__["forward"] is older


def test_frozen_restores_every_flag() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    module[0].weight.requires_grad_(False)
    module[1].eval()
    with frozen([module]):
        assert not any(p.requires_grad for p in module.parameters()) and not any(m.training for m in module.modules())
    assert [p.requires_grad for p in module.parameters()] == [False, True]
    assert [m.training for m in module.modules()] == [True, True, False]


def test_state_round_trip() -> None:
    target = Target("lora_unet_x", nn.Linear(6, 5), "unet")
    pair = random_pair(target.module)
    state = state_dict([LoraPair(target, pair.down, pair.up, 3.0)])
    assert {key: list(value.shape) for key, value in state.items()} == {
        "lora_unet_x.lora_down.weight": [2, 6], "lora_unet_x.lora_up.weight": [5, 2], "lora_unet_x.alpha": [],
    }  # fmt: skip
    again = adapters_from_state([target], state, CPU)[0]
    assert torch.equal(again.down, pair.down) and again.scale == 1.5
    with torch.no_grad():
        again.down.zero_()
    assert state["lora_unet_x.lora_down.weight"].abs().sum() > 0, "a pair must not share memory with the file"


def test_missing_alpha_means_rank() -> None:
    target = Target("x", nn.Linear(6, 5), "unet")
    state = {"x.lora_down.weight": torch.zeros(4, 6), "x.lora_up.weight": torch.zeros(5, 4)}
    assert adapters_from_state([target], state, CPU)[0].scale == 1.0


def test_files_that_do_not_fit_are_refused() -> None:
    target = Target("x", nn.Linear(6, 5), "unet")
    with pytest.raises(LoraFileError, match="1 layers of the LoRA do not exist"):
        adapters_from_state([target], {"y.lora_down.weight": torch.zeros(4, 6)}, CPU)
    with pytest.raises(LoraFileError, match="lacks a tensor or has an unknown type; it has lora_down"):
        adapters_from_state([target], {"x.lora_down.weight": torch.zeros(4, 6)}, CPU)


def test_only_plain_convolutions() -> None:
    with pytest.raises(ValueError, match="no plain"):
        attached([random_pair(nn.Conv2d(6, 3, 3, dilation=2))])
