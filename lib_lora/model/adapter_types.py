"""Adapters of one layer: what all types have in common, and how each type is initialised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from lib_lora.config.adapter import AdapterConfig
from lib_lora.model import delta as algebra
from lib_lora.model.base import Target
from lib_lora.randomness import generator

State = dict[str, torch.Tensor]
Shape = tuple[int, ...]

_ZERO = (
    *(algebra.UP, algebra.SCALE, "hada_w2_a", "lokr_w2", "lokr_w2_b"),
    *(algebra.IA3_IN, algebra.IA3_OUT, algebra.BLOCKS, "a2.weight", "b2.weight"),
)
SCALED_INPUTS = ("_ff_net_2", "_mlp_fc2")  # layers whose inputs (IA)³ scales: the second of a feed-forward
_SPREAD = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0}  # standard deviations


@dataclass(frozen=True)
class LoraPair:
    """The two low-rank matrices of one layer.

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
        """The parameters by the suffix of their key in a file."""
        return {algebra.DOWN: self.down, algebra.UP: self.up}


@dataclass(frozen=True)
class WeightAdapter:
    """An adapter of another type: its `tensors` give a weight delta at each step. Shapes: `model/delta.py`."""

    target: Target
    tensors: Mapping[str, nn.Parameter]
    alpha: float

    def named(self) -> dict[str, nn.Parameter]:
        """See `LoraPair.named`."""
        return dict(self.tensors)


Adapter = LoraPair | WeightAdapter  # what is trained for one layer; parameters are fp32, except for full fp16 and bf16


def is_learning(adapter: Adapter) -> bool:
    """Whether the adapter is trained, not only applied and saved."""
    return any(parameter.requires_grad for parameter in adapter.named().values())


def weight_of(target: Target) -> torch.Tensor:
    """The layer's weight."""
    weight = target.module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def adapter_delta(adapter: Adapter) -> torch.Tensor:
    """What the adapter adds to its layer's weight, fp32."""
    return algebra.delta(adapter.named(), adapter.alpha, weight_of(adapter.target))


def made_of(target: Target, tensors: Mapping[str, torch.Tensor], alpha: float, *, learning: bool = True) -> Adapter:
    """An adapter that holds `tensors`."""
    parameters = {key: nn.Parameter(value, requires_grad=learning) for key, value in tensors.items()}
    if algebra.adapter_type_of(parameters) == "lora":
        return LoraPair(target, parameters[algebra.DOWN], parameters[algebra.UP], alpha)
    return WeightAdapter(target, parameters, alpha)


def new_adapter(
    target: Target, rank: int, alpha: float, adapter: AdapterConfig, seed: int, device: torch.device, dtype: torch.dtype
) -> Adapter:
    """A new adapter, whose delta is zero; without values on the meta device."""
    if device.type == "meta":
        shapes = tensor_shapes(tuple(weight_of(target).shape), rank, adapter, target.name)
        return made_of(target, {key: torch.empty(shape, device=device, dtype=dtype) for key, shape in shapes.items()}, alpha)
    tensors = new_tensors(weight_of(target), rank, adapter, generator(seed, "init", target.name), target.name)
    return made_of(target, {key: value.to(device, dtype) for key, value in tensors.items()}, alpha)


def tensor_shapes(weight: Shape, rank: int, adapter: AdapterConfig, name: str = "") -> dict[str, Shape]:
    """Shapes of an adapter's tensors by key suffix, for a weight of shape `weight`; (IA)³'s depend on the layer's `name`."""
    out, inner, kernel = weight[0], weight[1:], weight[2:]
    if adapter.adapter_type == "ia3":
        return {algebra.IA3_IN: inner[:1]} if name.endswith(SCALED_INPUTS) else {algebra.IA3_OUT: (out,)}
    if adapter.adapter_type == "diag-oft":
        size, count = algebra.factorization(out, rank)
        return {algebra.BLOCKS: (count, size, size)}
    if adapter.adapter_type == "glora":
        return dict(zip(algebra.GENERAL, [(rank, *inner), (*inner, rank), (rank, *inner), (out, rank)]))
    if adapter.adapter_type == "loha":
        return dict(zip(algebra.HADAMARD, [(out, rank), (rank, math.prod(inner))] * 2))
    if adapter.adapter_type == "lokr":
        return _kronecker_shapes(weight, rank, adapter)
    ones = (1,) * len(kernel)
    halves: dict[str, Shape] = {algebra.DOWN: (rank, *inner), algebra.UP: (out, rank, *ones)}
    return {**halves, algebra.SCALE: (1, inner[0], *ones)} if adapter.adapter_type == "dora" else halves


def _kronecker_shapes(weight: Shape, rank: int, adapter: AdapterConfig) -> dict[str, Shape]:
    """w1 over the smaller factors of out and in, w2 over the larger ones and the kernel (LyCORIS `LokrModule`)."""
    (a, b), (c, d) = (algebra.factorization(side, adapter.factor) for side in weight[:2])
    kernel = weight[2:]
    shapes: dict[str, Shape] = {}
    if adapter.decompose_both and rank < max(a, c) / 2 and not adapter.full_matrix:
        shapes.update({"lokr_w1_a": (a, rank), "lokr_w1_b": (rank, c)})
    else:
        shapes["lokr_w1"] = (a, c)
    if adapter.full_matrix or rank >= max(b, d) / 2:
        shapes["lokr_w2"] = (b, d, *kernel)
    else:
        shapes.update({"lokr_w2_a": (b, rank), "lokr_w2_b": (rank, d * math.prod(kernel))})
    return shapes


def new_tensors(weight: torch.Tensor, rank: int, adapter: AdapterConfig, draw: torch.Generator, name: str = "") -> State:
    """Initial tensors, fp32 on the CPU: as kohya's for LoRA, as LyCORIS' for the other types; one factor is zero."""
    shapes = tensor_shapes(tuple(weight.shape), rank, adapter, name)
    tensors = {key: _drawn(key, shape, draw) for key, shape in shapes.items()}
    if algebra.SCALE in tensors:
        tensors[algebra.SCALE] = algebra.input_norms(weight.detach().float().cpu())
    return tensors


def _drawn(key: str, shape: Shape, draw: torch.Generator) -> torch.Tensor:
    """Zero, normal, or uniform in ±1/√fan_in (kaiming_uniform with a = √5)."""
    if key in _ZERO:
        return torch.zeros(shape)
    if key in _SPREAD:
        return torch.empty(shape).normal_(std=_SPREAD[key], generator=draw)
    return torch.empty(shape).uniform_(-1.0, 1.0, generator=draw) / math.sqrt(math.prod(shape[1:]))
