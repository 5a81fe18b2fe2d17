"""Adapters of one layer: what all types have in common, and how each type begins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from lib_lora.config.adapter import AdapterConfig
from lib_lora.model import delta as algebra
from lib_lora.model.base import Target
from lib_lora.randomness import generator

State = dict[str, torch.Tensor]


class Adapter(Protocol):
    """What is trained beside one layer. Its parameters are fp32, but for full fp16 and bf16."""

    @property
    def target(self) -> Target: ...

    @property
    def alpha(self) -> float: ...

    def named(self) -> dict[str, nn.Parameter]:
        """The parameters by the end of their key in a file."""
        ...


@dataclass(frozen=True)
class LoraPair:
    """Two small matrices beside one layer.

    Shapes:
        Linear: down `[rank, in]`, up `[out, rank]`
        Conv2d: down `[rank, in, k, k]` with the layer's stride and padding, up `[out, rank, 1, 1]`
    """

    target: Target
    down: nn.Parameter
    up: nn.Parameter
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def named(self) -> dict[str, nn.Parameter]:
        return {algebra.DOWN: self.down, algebra.UP: self.up}


@dataclass(frozen=True)
class WeightAdapter:
    """An adapter of another type: a weight delta is made of its `tensors` at each step. Shapes: `model/delta.py`."""

    target: Target
    tensors: Mapping[str, nn.Parameter]
    alpha: float

    def named(self) -> dict[str, nn.Parameter]:
        return dict(self.tensors)


def kind_of(adapter: Adapter) -> str:
    """The type, as `delta.kind_of` says it."""
    return algebra.kind_of(adapter.named())


def is_learning(adapter: Adapter) -> bool:
    """Whether it is trained, or only lies in the model and in the file."""
    return any(parameter.requires_grad for parameter in adapter.named().values())


def weight_of(target: Target) -> torch.Tensor:
    """The layer's own weight."""
    weight = target.module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def adapter_delta(adapter: Adapter) -> torch.Tensor:
    """What it adds to its layer's weight, fp32."""
    return algebra.delta(adapter.named(), adapter.alpha, weight_of(adapter.target))


def with_alpha(adapter: Adapter, alpha: float) -> Adapter:
    """The same tensors with another alpha."""
    assert isinstance(adapter, (LoraPair, WeightAdapter))
    return dataclasses.replace(adapter, alpha=alpha)


def made_of(target: Target, tensors: Mapping[str, torch.Tensor], alpha: float, *, learning: bool = True) -> Adapter:
    """The adapter that holds `tensors`."""
    parameters = {key: nn.Parameter(value, requires_grad=learning) for key, value in tensors.items()}
    if algebra.kind_of(parameters) == "lora":
        return LoraPair(target, parameters[algebra.DOWN], parameters[algebra.UP], alpha)
    return WeightAdapter(target, parameters, alpha)


def new_adapter(
    target: Target, rank: int, alpha: float, adapter: AdapterConfig, seed: int, device: torch.device, dtype: torch.dtype
) -> Adapter:
    """An adapter that changes nothing yet."""
    tensors = new_tensors(weight_of(target), rank, adapter, generator(seed, "init", target.name))
    return made_of(target, {key: value.to(device, dtype) for key, value in tensors.items()}, alpha)


def new_tensors(weight: torch.Tensor, rank: int, adapter: AdapterConfig, draw: torch.Generator) -> State:
    """The tensors at the beginning, fp32 on the CPU: kohya's for LoRA, LyCORIS' for the others; one factor is zero."""
    out, *inner = weight.shape
    if adapter.adapter_type == "loha":
        shapes = [(out, rank), (rank, math.prod(inner))] * 2
        spread = (0.1, 1.0, 0.0, 1.0)
        return {
            key: torch.empty(shape).normal_(std=std, generator=draw) if std else torch.zeros(shape)
            for key, shape, std in zip(algebra.HADAMARD, shapes, spread)
        }
    if adapter.adapter_type == "lokr":
        return _new_kronecker(out, inner, rank, adapter, draw)
    tensors = {
        algebra.DOWN: _kaiming((rank, *inner), draw),
        algebra.UP: torch.zeros(out, rank, *[1] * (len(inner) - 1)),
    }
    if adapter.adapter_type == "dora":
        tensors[algebra.SCALE] = algebra.input_norms(weight.detach().float().cpu())
    return tensors


def _new_kronecker(out: int, inner: list[int], rank: int, adapter: AdapterConfig, draw: torch.Generator) -> State:
    """w1 over the smaller factors of out and in, w2 over the larger ones and the kernel."""
    (a, b), (c, d) = (algebra.factorization(side, adapter.factor) for side in (out, inner[0]))
    kernel = inner[1:]
    tensors: State = {}
    if adapter.decompose_both and rank < max(a, c) / 2 and not adapter.full_matrix:
        tensors["lokr_w1_a"], tensors["lokr_w1_b"] = _kaiming((a, rank), draw), _kaiming((rank, c), draw)
    else:
        tensors["lokr_w1"] = _kaiming((a, c), draw)
    if adapter.full_matrix or rank >= max(b, d) / 2:
        tensors["lokr_w2"] = torch.zeros(b, d, *kernel)
    else:
        tensors["lokr_w2_a"] = _kaiming((b, rank), draw)
        tensors["lokr_w2_b"] = torch.zeros(rank, d * math.prod(kernel))
    return tensors


def _kaiming(shape: tuple[int, ...], draw: torch.Generator) -> torch.Tensor:
    """Uniform in ±1/√fan_in (kaiming_uniform with a = √5)."""
    return torch.empty(shape).uniform_(-1.0, 1.0, generator=draw) / math.sqrt(math.prod(shape[1:]))
