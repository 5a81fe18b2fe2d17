"""Dropout of the adapters: what is left out, when, and that draws depend only on seed, step, layer and place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lib_lora.config.adapter import AdapterConfig
from lib_lora.model.adapter import LoraPair, adapters_from_state, attached, state_dict
from lib_lora.model.base import Target
from lib_lora.model.dropout import Dropout
from lib_lora.model.patching import frozen
from lib_lora.output.truncate import truncated

SIDE, RANK, SCALE = 64, 64, 0.5


def pass_through(module: nn.Module, name: str = "layer") -> LoraPair:
    """A pair that adds x / 2: identity down and up, alpha half of the rank."""
    eye = torch.eye(SIDE).reshape(SIDE, SIDE, *[1] * (2 if isinstance(module, nn.Conv2d) else 0))
    return LoraPair(Target(name, module, "unet"), nn.Parameter(eye.clone()), nn.Parameter(eye.clone()), RANK * SCALE)


def layer(kind: str) -> tuple[nn.Module, torch.Tensor]:
    if kind == "conv":
        return nn.Conv2d(SIDE, SIDE, 1), torch.ones(4, SIDE, 3, 5)
    return nn.Linear(SIDE, SIDE), torch.ones(4, 7, SIDE)


def added(
    kind: str = "linear", moment: tuple[int, int, int] | None = (0, 0, 4), seed: int = 1, name: str = "layer", **rates: Any
) -> torch.Tensor:
    """What the pair adds to the layer's own answer, `[4, …]` with the ranks last."""
    torch.manual_seed(0)
    module, x = layer(kind)
    dropout = Dropout(AdapterConfig(**rates), seed)
    with torch.no_grad(), frozen([module]):
        plain = module(x)
        with attached([pass_through(module, name)], dropout=dropout):
            if moment is None:
                difference = module(x) - plain
            else:
                with dropout.during(*moment):
                    difference = module(x) - plain
    return difference.permute(0, 2, 3, 1) if kind == "conv" else difference


RATES = [{"network_dropout": 0.25}, {"rank_dropout": 0.25}, {"module_dropout": 0.25}]


@pytest.mark.parametrize("rates", RATES, ids=str)
def test_nothing_is_left_out_but_in_training_steps(rates: dict[str, float]) -> None:
    assert torch.allclose(added(moment=None, **rates), torch.tensor(SCALE), atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_values_left_out(kind: str) -> None:
    """Torch's dropout: zero, or 1 / (1 - p) times as much."""
    found = added(kind, network_dropout=0.25)
    zero, kept = found.abs() < 1e-5, (found - SCALE / 0.75).abs() < 1e-5
    assert bool((zero | kept).all()) and 0.2 < float(zero.float().mean()) < 0.3
    assert not bool((zero[:, 0] == zero[:, 1]).all()), "each value by itself"


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_ranks_left_out(kind: str) -> None:
    """kohya: a mask of (B, rank), the same at every position, and the scale 1 / (1 - p) times as large."""
    found = added(kind, rank_dropout=0.25).reshape(4, -1, RANK)
    assert torch.allclose(found, found[:, :1].expand_as(found), atol=1e-5)
    zero, kept = found[:, 0].abs() < 1e-5, (found[:, 0] - SCALE / 0.75).abs() < 1e-5
    assert bool((zero | kept).all()) and 0.1 < float(zero.float().mean()) < 0.4
    assert not torch.equal(zero[0], zero[1])


def test_modules_left_out() -> None:
    """Whole layers, without a change of scale."""
    means = [float(added(moment=(step, 0, 4), module_dropout=0.25).mean()) for step in range(200)]
    assert {round(mean, 5) for mean in means} == {0.0, SCALE}
    assert 0.15 < sum(mean < 0.1 for mean in means) / len(means) < 0.35


@pytest.mark.parametrize("rates", RATES[:2], ids=str)
def test_draws_depend_on_seed_step_layer_and_place(rates: dict[str, float]) -> None:
    first = added(**rates)
    torch.rand(5)
    assert torch.equal(first, added(**rates))
    for other in ({"seed": 2}, {"name": "other"}, {"moment": (1, 0, 4)}, {"moment": (0, 4, 4)}):
        assert not torch.equal(first, added(**rates, **other)), other
    assert torch.allclose(first[2:], added(moment=(0, 2, 4), **rates)[:2]), "two batches of a step draw what one would"


def test_the_chunks_of_a_text_belong_to_their_sample() -> None:
    """Four rows of two samples: the first two are the first sample's, with draws of their own."""
    found = added(moment=(0, 0, 2), rank_dropout=0.25)
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[2:], added(moment=(0, 1, 2), rank_dropout=0.25)[:2])


def test_gradients_are_those_of_what_stays() -> None:
    module, x = layer("linear")
    pair, dropout = pass_through(module), Dropout(AdapterConfig(rank_dropout=0.5), 1)
    with frozen([module]), attached([pair], dropout=dropout), dropout.during(0, 0, 4):
        y = module(x)
        y.sum().backward()
        kept = ((y - nn.functional.linear(x, module.weight, module.bias))[:, 0].abs() > 1e-3).float()  # [4, rank]
    assert pair.down.grad is not None and pair.up.grad is not None
    assert torch.allclose(pair.down.grad[:, 0], kept.sum(0) * 7 * SCALE / 0.5, atol=1e-4)
    assert torch.allclose(pair.up.grad[0], kept.sum(0) * 7 * SCALE / 0.5, atol=1e-4)


def test_it_ends_also_after_an_error() -> None:
    dropout = Dropout(AdapterConfig(rank_dropout=0.5), 1)
    with pytest.raises(RuntimeError), dropout.during(0, 0, 1):
        assert dropout.active
        raise RuntimeError
    assert not dropout.active and not Dropout(AdapterConfig(), 1).used


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_prefixes_of_a_dylora(kind: str) -> None:
    """Whole units, b ranks at alpha / b, each b as often, the same for every layer and sample of a step."""
    seen = []
    for step in range(200):
        found = added(kind, (step, 0, 4), unit=16)[0, 0, 0] if kind == "conv" else added(kind, (step, 0, 4), unit=16)[0, 0]
        kept = int((found.abs() > 1e-6).sum())
        assert (
            torch.allclose(found[:kept], torch.tensor(SCALE * RANK / kept), atol=1e-5) and not (found[kept:].abs() > 1e-6).any()
        )
        seen.append(kept)
    assert set(seen) == {16, 32, 48, 64} and min(seen.count(kept) for kept in set(seen)) > 30
    whole = added(kind, (3, 0, 4), unit=16)
    assert torch.allclose(added(kind, (3, 2, 4), unit=16, name="other"), whole, atol=1e-6), "of the step alone"
    assert int((added(kind, (3, 0, 4), unit=63)[0].reshape(-1, RANK)[0].abs() > 1e-6).sum()) in (63, 64), (
        "the last unit is what is left"
    )


def test_a_dylora_cut_down_is_what_was_trained() -> None:
    """The answer with a prefix is that of the file's first ranks, with the same alpha."""
    module, x = layer("linear")
    torch.manual_seed(1)
    pair = LoraPair(Target("layer", module, "unet"), nn.Parameter(torch.randn(8, SIDE)), nn.Parameter(torch.randn(SIDE, 8)), 3.0)
    dropout = Dropout(AdapterConfig(unit=2), 1)
    with torch.no_grad(), frozen([module]):
        with attached([pair], dropout=dropout), dropout.during(4, 0, 4):
            trained = module(x)
        answers = []
        for rank in (2, 4, 6, 8):
            state = truncated(state_dict([pair]), rank)
            with attached(adapters_from_state([pair.target], state, torch.device("cpu"))):
                answers.append(torch.allclose(module(x), trained, rtol=1e-4, atol=1e-4))
    assert sum(answers) == 1
