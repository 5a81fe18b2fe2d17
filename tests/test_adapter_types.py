"""Adapter types against weights merged by hand, gradients of plain torch, and LyCORIS' own numbers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lib_lora.config.adapter import AdapterConfig
from lib_lora.files.lora_file import read, serialise, write
from lib_lora.model.adapter import (
    Adapter,
    adapters_from_state,
    attached,
    by_layer,
    delta_norm,
    joined,
    limit_norms,
    parameters,
    state_dict,
)
from lib_lora.model.adapter_types import new_adapter, new_tensors
from lib_lora.model.base import Target
from lib_lora.model.delta import adapter_type_of, delta, factorization, from_file
from lib_lora.model.dropout import Dropout

CPU = torch.device("cpu")
RANK, ALPHA = 2, 3.0
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {},
    "loha": {},
    "lokr": {"factor": 2},
    "lokr whole": {"factor": 2, "full_matrix": True},
    "lokr split": {"factor": 6, "decompose_both": True},
    "ia3": {},
    "ia3 inputs": {},
    "diag-oft": {},
    "glora": {},
}
LINEAR = ("glora",)  # types that convolutions cannot have


def layers() -> dict[str, nn.Module]:
    return {
        "linear": nn.Linear(12, 24),
        "no bias": nn.Linear(12, 18, bias=False),
        "1×1": nn.Conv2d(12, 24, 1),
        "3×3": nn.Conv2d(12, 24, 3, padding=1),
        "down": nn.Conv2d(12, 12, 3, 2, 1),
    }


def config(kind: str) -> AdapterConfig:
    return AdapterConfig(adapter_type=kind.split()[0], **KINDS[kind])  # type: ignore[arg-type]


def fresh(kind: str, module: nn.Module) -> Adapter:
    name = "layer_ff_net_2" if kind == "ia3 inputs" else "layer"
    alpha = 0.0 if kind == "diag-oft" else ALPHA
    return new_adapter(Target(name, module, "unet"), RANK, alpha, config(kind), 1, CPU, torch.float32)


def drawn(kind: str, module: nn.Module, seed: int = 0) -> Adapter:
    """One whose every tensor is away from its beginning."""
    adapter, draw = fresh(kind, module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in adapter.named().values():
            value.add_(torch.randn(value.shape, generator=draw) * 0.3)
    return adapter


def by_hand(adapter: Adapter, weight: torch.Tensor) -> torch.Tensor:
    """The merged weight, from the formulas of the webui's loader, entry by entry where it is a Kronecker product."""
    t = {key: value.flatten(1) if "lora" in key else value for key, value in adapter.named().items()}
    if "ia3_in" in t:
        change = torch.stack([weight[:, i] * number for i, number in enumerate(t["ia3_in"])], 1)
    elif "ia3_out" in t:
        change = torch.stack([weight[i] * number for i, number in enumerate(t["ia3_out"])])
    elif "oft_blocks" in t:
        q, eye = t["oft_blocks"] - t["oft_blocks"].transpose(1, 2), torch.eye(t["oft_blocks"].shape[-1])
        turns = [torch.linalg.solve(eye - part, eye + part) for part in q]  # (1 − Q)⁻¹ (1 + Q) is the same
        change = torch.block_diag(*turns).t() @ weight.flatten(1) - weight.flatten(1)
    elif "a1.weight" in t:
        change = weight @ (t["a2.weight"] @ t["a1.weight"]) + t["b2.weight"] @ t["b1.weight"]
    elif "hada_w1_a" in t:
        change = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"]) * (ALPHA / RANK)
    elif any(key.startswith("lokr") for key in t):
        w1 = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
        w2 = t["lokr_w2"] if "lokr_w2" in t else t["lokr_w2_a"] @ t["lokr_w2_b"]
        scale = 1.0 if {"lokr_w1", "lokr_w2"} <= set(t) else ALPHA / RANK
        w2 = w2.reshape(len(w2), -1, *weight.shape[2:])
        rows = [torch.cat([w1[i, j] * w2 for j in range(w1.shape[1])], 1) for i in range(len(w1))]
        change = torch.cat(rows) * scale
    else:
        change = t["lora_up.weight"] @ t["lora_down.weight"] * (ALPHA / RANK)
    merged = weight + change.reshape(weight.shape)
    if "dora_scale" in t:
        norms = torch.stack([merged[:, i].norm() for i in range(merged.shape[1])])
        merged = merged * (t["dora_scale"].flatten() / norms).reshape(1, -1, *[1] * (weight.dim() - 2))
    return merged


def plain(module: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if isinstance(module, nn.Conv2d):
        return torch.conv2d(x, weight, module.bias, module.stride, module.padding)
    return nn.functional.linear(x, weight, module.bias)


def input_for(module: nn.Module) -> torch.Tensor:
    return torch.randn(2, 12, 6, 4) if isinstance(module, nn.Conv2d) else torch.randn(2, 7, 12)


CASES = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind, name in itertools.product(KINDS, layers())
    if kind not in LINEAR or name in ("linear", "no bias")
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_answer_and_gradients_are_those_of_the_merged_weight(kind: str, name: str) -> None:
    module = layers()[name].requires_grad_(False)
    adapter, x = drawn(kind, module), input_for(module).requires_grad_()
    values = list(adapter.named().values())
    wanted = plain(module, x, by_hand(adapter, module.weight))
    toward = torch.randn(wanted.shape)
    theirs = torch.autograd.grad((wanted * toward).sum(), [x, *values])
    with attached([adapter]):
        ours = module(x)
    found = torch.autograd.grad((ours * toward).sum(), [x, *values])
    assert torch.allclose(ours, wanted, rtol=1e-4, atol=1e-5) and not torch.allclose(ours, module(x), atol=1e-2)
    for mine, other in zip(found, theirs):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_file_gives_the_same_adapter_and_its_delta_merged_the_same_answer(kind: str, name: str) -> None:
    module = layers()[name].requires_grad_(False)
    adapter, x = drawn(kind, module), input_for(module)
    state = state_dict([adapter])
    tensors = from_file(by_layer(state)[adapter.target.name])
    assert adapter_type_of(tensors) == kind.split()[0] and float(tensors.pop("alpha", torch.tensor(ALPHA))) == adapter.alpha
    with attached([adapter]):
        ours = module(x)
    with attached(adapters_from_state([adapter.target], state, CPU)):
        assert torch.equal(module(x), ours)
    assert torch.allclose(
        plain(module, x, module.weight + delta(tensors, adapter.alpha, module.weight)), ours, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_new_one_changes_nothing_and_learns(kind: str, name: str) -> None:
    module = layers()[name].requires_grad_(False)
    adapter, x = fresh(kind, module), input_for(module)
    with attached([adapter]):
        y = module(x)
    assert torch.allclose(y, module(x), rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    gradients = [value.grad for value in parameters([adapter])]
    assert all(grad is not None for grad in gradients) and any(bool(grad.any()) for grad in gradients if grad is not None)


@pytest.mark.parametrize(("kind", "name"), [case for case in CASES if case.values[1] in ("linear", "3×3")])
def test_half_precision_is_near(kind: str, name: str) -> None:
    """Autocast over a base in bf16: within bf16's own rounding of fp32."""
    module = layers()[name].requires_grad_(False)
    adapter, x = drawn(kind, module), input_for(module).requires_grad_()
    with attached([adapter]):
        exact = module(x)
        module.bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            near = module(x)
        near.float().square().sum().backward()
    assert near.dtype == torch.bfloat16 and float((near - exact).norm() / exact.norm()) < 1e-2
    assert x.grad is not None and x.grad.dtype == torch.float32
    assert all(value.grad is not None and bool(torch.isfinite(value.grad).all()) for value in parameters([adapter]))


@pytest.mark.parametrize("kind", ["loha", "lokr", "dora", "diag-oft", "glora"])
def test_what_is_left_out_at_random(kind: str) -> None:
    module = nn.Linear(12, 24).requires_grad_(False)
    adapter, x = drawn(kind, module), torch.randn(2, 7, 12)
    with attached([adapter]):
        whole = module(x)
    chance = Dropout(AdapterConfig(rank_dropout=0.5), 1)
    with attached([adapter], dropout=chance):
        assert torch.equal(module(x), whole)
        with chance.during(0, 0, 2):
            part = module(x)
    change, changed = whole - module(x), part - module(x)
    left_out, twice = (torch.isclose(changed, share * change, rtol=0, atol=1e-5) for share in (0, 2))
    assert bool((left_out | twice).all()), "an output is left out, or made twice as strong"
    assert not bool(left_out.all()) and not bool(twice.all())
    skipping = Dropout(AdapterConfig(module_dropout=0.99), 1)
    with attached([adapter], dropout=skipping), skipping.during(0, 0, 2):
        assert torch.allclose(module(x), nn.functional.linear(x, module.weight, module.bias), atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if config(kind).adapter_type not in ("ia3", "diag-oft", "glora")])
def test_norms_are_limited(kind: str) -> None:
    module = nn.Linear(12, 24).requires_grad_(False)
    adapter = drawn(kind, module)
    magnitude = adapter.named().get("dora_scale")
    before = None if magnitude is None else magnitude.clone()
    low = {key: value for key, value in adapter.named().items() if key != "dora_scale"}
    assert float(delta_norm(adapter)) == pytest.approx(float(delta(low, ALPHA, module.weight).norm()), rel=1e-5)
    limit_norms([adapter], 0.5)
    assert float(delta_norm(adapter)) == pytest.approx(0.5, rel=1e-5)
    assert magnitude is None or torch.equal(magnitude, before), "DoRA's strengths are no factor"
    kept = [value.clone() for value in parameters([adapter])]
    limit_norms([adapter], 10.0)
    assert all(torch.equal(a, b) for a, b in zip(kept, parameters([adapter])))


def test_different_types_below_are_one() -> None:
    module = nn.Linear(12, 24).requires_grad_(False)
    pairs = [drawn(kind, module, seed) for seed, kind in enumerate(KINDS)]
    x, strengths = torch.randn(3, 12), [0.5, -1.0, 2.0, 1.0, 0.3, 0.7, -0.4, 0.2, 1.5, 0.6]
    change = sum((by_hand(pair, module.weight) - module.weight) * strength for pair, strength in zip(pairs, strengths))
    with attached([], [joined(pairs, strengths)]):
        assert torch.allclose(module(x), plain(module, x, module.weight + change), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dimension", "factor", "pair"),
    [(127, -1, (1, 127)), (128, -1, (8, 16)), (250, -1, (10, 25)), (360, 4, (4, 90)), (360, 16, (15, 24)), (512, -1, (16, 32)),
     (1024, 16, (16, 64)), (320, 8, (8, 40)), (768, -1, (24, 32)), (2560, -1, (40, 64)), (128, 100, (8, 16)), (8, 4, (2, 4))],
)  # fmt: skip
def test_factorization(dimension: int, factor: int, pair: tuple[int, int]) -> None:
    """Values of LyCORIS' own function."""
    assert factorization(dimension, factor) == pair


@pytest.mark.parametrize(
    ("options", "shape", "wanted"),
    [  # of LyCORIS 4.1.3's LokrModule
        ({}, (320, 768), {"lokr_w1": (16, 24), "lokr_w2_a": (20, 4), "lokr_w2_b": (4, 32)}),
        ({"factor": 8}, (320, 768), {"lokr_w1": (8, 8), "lokr_w2_a": (40, 4), "lokr_w2_b": (4, 96)}),
        ({"factor": 8}, (640, 320, 3, 3), {"lokr_w1": (8, 8), "lokr_w2_a": (80, 4), "lokr_w2_b": (4, 360)}),
        ({"full_matrix": True}, (640, 320, 3, 3), {"lokr_w1": (20, 16), "lokr_w2": (32, 20, 3, 3)}),
        (
            {"decompose_both": True},
            (320, 768),
            {"lokr_w1_a": (16, 4), "lokr_w1_b": (4, 24), "lokr_w2_a": (20, 4), "lokr_w2_b": (4, 32)},
        ),
        ({"factor": 160}, (320, 320, 1, 1), {"lokr_w1": (2, 2), "lokr_w2_a": (160, 4), "lokr_w2_b": (4, 160)}),
        ({}, (16, 16), {"lokr_w1": (4, 4), "lokr_w2": (4, 4)}),
    ],
    ids=str,
)
def test_shapes_of_lokr(options: dict[str, Any], shape: tuple[int, ...], wanted: dict[str, tuple[int, ...]]) -> None:
    made = new_tensors(torch.empty(shape), 4, AdapterConfig(adapter_type="lokr", **options), torch.Generator())
    assert {key: tuple(value.shape) for key, value in made.items()} == wanted


def test_beginnings_are_lycoris() -> None:
    weight, draw = torch.randn(600, 400), torch.Generator().manual_seed(1)
    loha = new_tensors(weight, 200, AdapterConfig(adapter_type="loha"), draw)
    assert [round(float(loha[key].std()), 2) for key in ("hada_w1_a", "hada_w1_b", "hada_w2_b")] == [0.1, 1.0, 1.0]
    assert not loha["hada_w2_a"].any()
    lokr = new_tensors(weight, 4, AdapterConfig(adapter_type="lokr", factor=4), draw)
    assert float(lokr["lokr_w2_a"].abs().max()) == pytest.approx(0.5, abs=0.01) and not lokr["lokr_w2_b"].any()
    dora = new_tensors(weight, 4, AdapterConfig(adapter_type="dora"), draw)
    assert dora["dora_scale"].shape == (1, 400) and torch.allclose(dora["dora_scale"][0], weight.norm(dim=0))
    conv = new_tensors(torch.randn(6, 5, 3, 3), 4, AdapterConfig(adapter_type="dora"), draw)
    assert conv["dora_scale"].shape == (1, 5, 1, 1)
    oft = new_tensors(weight, 16, AdapterConfig(adapter_type="diag-oft"), draw)
    assert (
        oft["oft_blocks"].shape == (40, 15, 15) and not oft["oft_blocks"].any()
    )  # as LyCORIS': at most 16, and 600 is divided by it
    glora = new_tensors(weight, 4, AdapterConfig(adapter_type="glora"), draw)
    assert not glora["a2.weight"].any() and not glora["b2.weight"].any()
    assert all(float(glora[key].abs().max()) == pytest.approx(0.05, rel=0.01) for key in ("a1.weight", "b1.weight"))


LYCORIS = ["loha", "lokr", "lokr whole", "dora", "ia3", "ia3 inputs", "diag-oft", "diag-oft limited", "glora"]


@pytest.mark.parametrize(
    ("kind", "case"), [pair for pair in itertools.product(LYCORIS, ["linear", "conv"]) if pair != ("glora", "conv")]
)
def test_deltas_are_lycoris(kind: str, case: str) -> None:
    """Of LyCORIS 4.1.3's own modules, drawn at random, and its `get_merged_weight` (rank 2, alpha 3); GLoRA of 2.2.0 (alpha 2)."""
    recorded = load_file(Path(__file__).parent / "data" / "lycoris-deltas.safetensors")
    prefix = f"{kind}/{case}/"
    found = {key.removeprefix(prefix): value for key, value in recorded.items() if key.startswith(prefix)}
    wanted, weight, alpha = found.pop("merged"), found.pop("weight"), float(found.pop("alpha"))
    if kind.startswith("ia3"):
        found = from_file({"weight": found["vector"], "on_input": found["on_input"]})
    assert adapter_type_of(found) == kind.split()[0]
    ours = weight + delta(found, alpha, weight)
    assert torch.allclose(ours, wanted, rtol=1e-5, atol=1e-6) and not torch.allclose(ours, weight, atol=1e-2)


NEW_ORDER = {"a1": (6, 2), "a2": (2, 6), "b1": (8, 2), "b2": (2, 6)}  # of LyCORIS since 3.0


def test_what_is_no_such_adapter() -> None:
    weight, conv = torch.randn(8, 6), torch.randn(8, 6, 3, 3)
    for tensors, of in (
        ({"ia3_in": torch.zeros(1)}, weight),  # would be spread over all inputs
        ({"ia3_in": torch.zeros(8)}, weight),
        ({"oft_blocks": torch.zeros(3, 2, 2)}, weight),
        ({"oft_blocks": torch.zeros(2, 4, 2, 2)}, weight),  # a BOFT's
        ({f"{key}.weight": torch.zeros(shape) for key, shape in NEW_ORDER.items()}, weight),
        ({f"{key}.weight": torch.zeros(shape[::-1]) for key, shape in NEW_ORDER.items()}, conv),
    ):
        with pytest.raises((RuntimeError, ValueError)):
            delta(tensors, 1.0, of)
    assert (
        adapter_type_of({"weight", "alpha"})
        == adapter_type_of({"oft_blocks", "dora_scale"})
        == adapter_type_of({"a1.weight", "b1.weight"})
        == ""
    )


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_file_merged_into_half_precision_weights(
    dtype: torch.dtype, kind: str, name: str, tmp_path: Path
) -> None:
    """Within 1e-2 of the layer as it was trained: file and weights are rounded, and the sum once more."""
    module = layers()[name].requires_grad_(False)
    adapter, x = drawn(kind, module), input_for(module)
    with attached([adapter]):
        trained = module(x)
    write(tmp_path / "a.safetensors", serialise(state_dict([adapter]), dtype, {}))
    (read_back,) = adapters_from_state([adapter.target], read(tmp_path / "a.safetensors")[0], CPU)
    weight = module.weight.to(dtype)
    change = delta(read_back.named(), read_back.alpha, weight)
    merged = (weight + change).to(dtype)
    answer = plain(module, x, merged.float())
    assert float((answer - trained).norm() / trained.norm()) < 1e-2
    assert not torch.equal(answer, trained), "nothing was rounded"
