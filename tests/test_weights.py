"""Files to continue from and base LoRAs: the checks before a model is borrowed, and the adapters that they give."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lib_lora.config.groups import build_config
from lib_lora.config.settled import Settled
from lib_lora.errors import LoraFileError
from lib_lora.families.sd1 import SD1
from lib_lora.model.adapter import attached
from lib_lora.model.base import Target
from lib_lora.model.dropout import Dropout
from lib_lora.settle import settle
from lib_lora.training.continued_files import weights_problems
from lib_lora.training.initial_adapters import initial_adapters, merged_adapters

TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
UNET = "lora_unet_down_blocks_0_attentions_0_proj_in"
MIDDLE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def tensors(name: str, rank: int = 4, alpha: float | None = 2.0, conv: bool = False) -> dict[str, torch.Tensor]:
    kernel = (1, 1) if conv else ()
    state = {f"{name}.lora_down.weight": torch.randn(rank, 6, *kernel), f"{name}.lora_up.weight": torch.randn(5, rank, *kernel)}
    return state if alpha is None else {**state, f"{name}.alpha": torch.tensor(alpha)}


def lora(folder: Path, state: dict[str, torch.Tensor], name: str = "old") -> str:
    path = folder / f"{name}.safetensors"
    save_file(state, path)
    return str(path)


def config(**flat: Any) -> Settled:
    return settle(build_config({"rank": 4, "alpha": 2, "text_encoder_lr": 5e-5, **flat}), None)


@pytest.fixture
def base() -> Any:
    torch.manual_seed(0)
    modules = {TEXT: nn.Linear(6, 5), UNET: nn.Conv2d(6, 5, 1), MIDDLE: nn.Linear(6, 5)}
    targets = [Target(name, module, "text_encoder" if name == TEXT else "unet") for name, module in modules.items()]
    unet = nn.Module()
    return SimpleNamespace(targets=lambda: targets, device=torch.device("cpu"), unet=unet, family=SD1)


def test_files_that_fit_are_fine(tmp_path: Path) -> None:
    whole = lora(tmp_path, {**tensors(TEXT), **tensors(UNET, conv=True)})
    assert weights_problems(config()) == []
    assert weights_problems(config(network_weights=whole, base_weights=[whole])) == []
    assert weights_problems(config(network_weights=lora(tmp_path, tensors(UNET), "unet"))) == []
    assert weights_problems(config(network_weights=lora(tmp_path, tensors(TEXT), "text"))) == []


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (tensors(UNET, rank=8), "has rank 8 at .* but the settings give 4; set Rank .rank. to 8, or turn on .*dim_from_weights"),
        (tensors(UNET, alpha=1.0), "has alpha 1 at .* but the settings give 2; set Alpha .alpha. to 1, or turn on"),
        (tensors(UNET, alpha=None), "has alpha 4 at"),
        ({"lora_unet_conv_in.lora_down.weight": torch.zeros(4, 6, 3, 3)}, "is incomplete"),
        ({f"{UNET}.hada_w1_a": torch.zeros(4, 6)}, "is incomplete: its layer .*proj_in. lacks a tensor; choose"),
        (
            {f"{UNET}.hada_t1": torch.zeros(4, 4), **tensors(UNET)},
            "a layer of a type that cannot be trained, .*a LoHa with Tucker",
        ),
        (
            {"lora_unet_down_blocks_0_attentions_0_proj_in.diff": torch.zeros(4, 6)},
            "has type full at .* but Type .adapter_type. is lora; .* use the file in Merge first .base_weights., or choose",
        ),
        (
            {f"{UNET}.lokr_w1": torch.zeros(1, 2), f"{UNET}.lokr_w2": torch.zeros(5, 3)},
            "has type lokr .*set Type .adapter_type. to lokr",
        ),
        ({f"{UNET}.dora_scale": torch.zeros(4, 6)}, "has dora_scale with the shape 4×6|is incomplete"),
        (tensors("lora_unet_joint_blocks_4_x_block_attn_qkv"), "is made for SD3"),
        (tensors("lora_te3_encoder_block_0_layer_0_SelfAttention_k"), "is made for SD3"),
        ({f"{UNET}.lora_down.weight": torch.zeros(4, 6)}, "is incomplete"),
        ({"unet.down.lora_A.weight": torch.zeros(4, 6)}, "tensors that cannot be trained"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_do_not_fit_are_one_sentence(tmp_path: Path, state: dict[str, torch.Tensor], said: str) -> None:
    path = lora(tmp_path, state)
    problems = weights_problems(config(network_weights=path))
    assert len(problems) == 1 and problems[0].startswith("Continue from (network_weights): ") and path in problems[0]
    assert re.search(said, problems[0])
    below = weights_problems(config(base_weights=[path, path]))
    assert len(below) == (0 if "the settings give" in said or "has type" in said or "alpha 4" in said else 2)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    missing = str(tmp_path / "missing.safetensors")
    problems = weights_problems(config(network_weights=missing, base_weights=[str(tmp_path / "broken.safetensors")]))
    assert len(problems) == 2 and "Continue from" in problems[0] and "Merge first (base_weights)" in problems[1]


def test_ranks_of_the_blocks_are_looked_at(tmp_path: Path) -> None:
    dims = ",".join("8" if i == 12 else "4" for i in range(25))
    path = lora(tmp_path, {**tensors(MIDDLE, rank=8), **tensors(TEXT)})
    assert weights_problems(config(network_weights=path, block_dims=dims)) == []
    assert "has rank 8" in weights_problems(config(network_weights=path))[0]
    assert weights_problems(config(network_weights=path, block_dims="x")) == [], "its own rule tells"


def test_ranks_from_the_file_need_a_layer_to_train(tmp_path: Path) -> None:
    path = lora(tmp_path, tensors(TEXT, rank=8))
    assert weights_problems(config(network_weights=path, dim_from_weights=True)) == []
    found = weights_problems(config(network_weights=path, dim_from_weights=True, text_encoder_lr=0))
    assert len(found) == 1 and "nothing would be trained" in found[0]


def test_a_file_gives_its_values_and_fresh_pairs_where_it_has_none(base: Any, tmp_path: Path) -> None:
    state = tensors(UNET, conv=True)
    started = {pair.target.name: pair for pair in initial_adapters(config(network_weights=lora(tmp_path, state)), base)}
    assert list(started) == [TEXT, UNET, MIDDLE]
    assert torch.equal(started[UNET].down, state[f"{UNET}.lora_down.weight"])
    assert not started[TEXT].up.any() and started[TEXT].rank == 4
    assert all(half.requires_grad for pair in started.values() for half in (pair.down, pair.up))


def test_ranks_and_alphas_from_the_file(base: Any, tmp_path: Path) -> None:
    path = lora(tmp_path, {**tensors(UNET, rank=3, alpha=1.5, conv=True), **tensors(MIDDLE, rank=2, alpha=None)})
    started = initial_adapters(config(network_weights=path, dim_from_weights=True), base)
    assert [(pair.target.name, pair.rank, pair.alpha) for pair in started] == [(UNET, 3, 1.5), (MIDDLE, 2, 2.0)]


def test_an_oft_keeps_its_limit_and_the_size_of_its_blocks(tmp_path: Path) -> None:
    target = Target(TEXT, nn.Linear(6, 8), "text_encoder")
    small = SimpleNamespace(targets=lambda: [target], device=torch.device("cpu"), unet=nn.Module(), family=SD1)
    state = {f"{TEXT}.oft_blocks": torch.randn(4, 2, 2), f"{TEXT}.alpha": torch.tensor(1e-3)}
    fits = config(network_weights=lora(tmp_path, state), adapter_type="diag-oft")
    assert weights_problems(fits) == []
    (kept,) = initial_adapters(fits, small, torch.float32)
    assert kept.alpha == pytest.approx(1e-3)
    other = lora(tmp_path, {**state, f"{TEXT}.oft_blocks": torch.randn(2, 4, 4)})
    (problem,) = weights_problems(config(network_weights=other, adapter_type="diag-oft"))
    assert "has blocks of 4" in problem and "gives 2" in problem


def test_what_is_not_trained_of_a_file_stays_in_it(base: Any, tmp_path: Path) -> None:
    state = {**tensors(TEXT, rank=8), **tensors(UNET, conv=True), **tensors(MIDDLE)}
    flat = {"network_weights": lora(tmp_path, state), "text_encoder_lr": 0, "mid_lr_weight": "0"}
    assert weights_problems(config(**flat)) == []
    started = {pair.target.name: pair for pair in initial_adapters(config(**flat), base, torch.bfloat16)}
    assert [pair.down.requires_grad for pair in started.values()] == [False, True, False]
    assert started[TEXT].rank == 8 and started[TEXT].down.dtype == torch.bfloat16


def test_blocks_without_rank_or_factor_get_no_pair(base: Any) -> None:
    dims = ",".join("0" if i == 12 else "3" for i in range(25))
    assert [(p.target.name, p.rank) for p in initial_adapters(config(block_dims=dims), base)] == [(TEXT, 4), (UNET, 3)]
    assert [p.target.name for p in initial_adapters(config(down_lr_weight="zeros"), base)] == [TEXT, MIDDLE]


def test_layers_and_shapes_of_another_model(base: Any, tmp_path: Path) -> None:
    unknown = lora(tmp_path, tensors("lora_te_text_model_encoder_layers_30_mlp_fc1"), "unknown")
    with pytest.raises(LoraFileError, match="1 layers of the LoRA do not exist"):
        initial_adapters(config(network_weights=unknown), base)
    wide = {key: value.repeat(1, 2) if "down" in key else value for key, value in tensors(TEXT).items()}
    with pytest.raises(LoraFileError, match="does not fit the model"):
        merged_adapters(config(base_weights=[lora(tmp_path, wide, "wide")]), base)


def merged(module: nn.Module, states: list[tuple[dict[str, torch.Tensor], float]], name: str) -> nn.Module:
    """kohya: W + strength · alpha / rank · up · down."""
    with torch.no_grad():
        for state, strength in states:
            down, up = (state[f"{name}.lora_{half}.weight"].flatten(1) for half in ("down", "up"))
            delta = strength * float(state[f"{name}.alpha"]) / len(down) * (up @ down)
            module.weight += delta.reshape(module.weight.shape)
    return module


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_loras_below_equal_merged_weights(base: Any, tmp_path: Path, trained: bool, dropout: bool) -> None:
    """Two files with strengths of their own (the last one's is 1), with and without a trained pair on top."""
    states = [({**tensors(UNET, rank=2, conv=True), **tensors(TEXT)}, -0.7), ({**tensors(UNET, rank=3, conv=True)}, 1.0)]
    paths = [lora(tmp_path, state, str(number)) for number, (state, _) in enumerate(states)]
    settings = config(base_weights=paths, base_weights_multiplier=["-0.7"], rank_dropout=0.5 if dropout else 0.0)
    below, pairs = merged_adapters(settings, base), initial_adapters(settings, base) if trained else []
    for pair in pairs:
        nn.init.normal_(pair.up)
    chance = Dropout(settings.adapter, 1)
    modules = {target.name: target.module for target in base.targets()}
    inputs = {UNET: torch.randn(2, 6, 4, 4), TEXT: torch.randn(2, 7, 6)}
    assert {pair.target.name for pair in below} == {UNET, TEXT} and not any(pair.down.requires_grad for pair in below)
    with attached(pairs, below, chance), chance.during(0, 0, 2):
        ours = {name: modules[name](x) for name, x in inputs.items()}
    for name, x in inputs.items():
        merged(modules[name], [given for given in states if f"{name}.alpha" in given[0]], name)
        with attached(pairs, dropout=chance), chance.during(0, 0, 2):
            assert torch.allclose(ours[name], modules[name](x), atol=1e-5)
