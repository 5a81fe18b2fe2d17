"""Adapters of a model: attaching and detaching them, and reading them from and writing them to a file's tensors.

y = W x + alpha / rank · up(down(x))    (Hu et al. 2021, "LoRA", equation 3; kohya `networks/lora.py` LoRAModule.forward)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from lib_lora.errors import LoraFileError
from lib_lora.model import delta as algebra
from lib_lora.model.adapter_forward import composed
from lib_lora.model.adapter_types import Adapter as Adapter
from lib_lora.model.adapter_types import LoraPair as LoraPair
from lib_lora.model.adapter_types import State as State
from lib_lora.model.adapter_types import adapter_delta, made_of, weight_of
from lib_lora.model.base import Target
from lib_lora.model.dropout import Dropout
from lib_lora.model.patching import forwards_replaced
from lib_lora.model.tensor_rules import alpha_of, check_layers, shape_words


def parameters(adapters: Sequence[Adapter]) -> Iterator[nn.Parameter]:
    """All trainable parameters."""
    for adapter in adapters:
        yield from adapter.named().values()


def attached(
    adapters: Sequence[Adapter], frozen: Sequence[Adapter] = (), dropout: Dropout | None = None
) -> AbstractContextManager[None]:
    """Context manager that adds adapters to the outputs of their layers. The base weights are neither cast nor written.

    Args:
        adapters: trained adapters.
        frozen: frozen adapters, one per layer, for the same or other layers.
        dropout: which parts of `adapters` are dropped, and when.
    """
    trained = {adapter.target.module: adapter for adapter in adapters}
    added = {adapter.target.module: adapter for adapter in frozen}
    return forwards_replaced(
        {module: composed(trained.get(module), added.get(module), dropout) for module in {**added, **trained}}
    )


def joined(adapters: Sequence[Adapter], strengths: Sequence[float]) -> Adapter:
    """One frozen adapter equal to the sum of `adapters`, all of one layer, each multiplied by its strength."""
    target = adapters[0].target
    with torch.no_grad():
        if all(isinstance(adapter, LoraPair) for adapter in adapters):
            loras = [adapter for adapter in adapters if isinstance(adapter, LoraPair)]
            scaled = [adapter.up.detach() * (adapter.scale * strength) for adapter, strength in zip(loras, strengths)]
            halves = {algebra.DOWN: torch.cat([adapter.down.detach() for adapter in loras]), algebra.UP: torch.cat(scaled, dim=1)}
            return made_of(target, halves, float(len(halves[algebra.DOWN])), learning=False)
        whole = sum(adapter_delta(adapter) * strength for adapter, strength in zip(adapters, strengths))
        biases = [adapter.named()[algebra.BIAS].detach() * strength for adapter, strength in zip(adapters, strengths)
                  if algebra.BIAS in adapter.named()]  # fmt: skip
        assert isinstance(whole, torch.Tensor)
        tensors = {"diff": whole, **({algebra.BIAS: torch.stack(biases).sum(0)} if biases else {})}
        return made_of(target, tensors, 1.0, learning=False)


@torch.no_grad()
def limit_norms(adapters: Sequence[Adapter], largest: float) -> None:
    """Scale each of the k factors by (largest / n)^(1/k) if the delta's norm n exceeds `largest`, so that n becomes `largest`.

    As sd-scripts `apply_max_norm_regularization`.
    """
    for adapter in adapters:
        factors = [value for key, value in adapter.named().items() if key != algebra.SCALE]
        ratio = largest / delta_norm(adapter).clamp(min=largest)  # exactly 1 if n is small enough
        share = ratio.sqrt() if len(factors) == 2 else ratio ** (1 / len(factors))
        for factor in factors:
            factor.mul_(share)


def delta_norm(adapter: Adapter) -> torch.Tensor:
    """Frobenius norm of the layer's delta, of a DoRA before its decomposition (as LyCORIS). A scalar, fp32."""
    return algebra.plain_norm({key: value.detach() for key, value in adapter.named().items()}, adapter.alpha)


def state_dict(adapters: Sequence[Adapter]) -> State:
    """The tensors of a LoRA file, under kohya's and LyCORIS' keys, fp32 on the CPU."""
    state: State = {}
    for adapter in adapters:
        tensors = {key: value.detach().float().cpu().clone() for key, value in adapter.named().items()}
        state.update({f"{adapter.target.name}.{key}": value for key, value in algebra.to_file(tensors, adapter.alpha).items()})
    return state


def by_layer(state: State) -> dict[str, State]:
    """The tensors of a file by layer and key suffix."""
    layers: dict[str, State] = {}
    for key, value in state.items():
        name, _, end = key.partition(".")
        layers.setdefault(name, {})[end] = value
    return layers


def adapters_from_state(
    targets: Sequence[Target], state: State, device: torch.device, dtype: torch.dtype = torch.float32
) -> list[Adapter]:
    """Adapters with the values of a file, for the targets that it names.

    Raises:
        LoraFileError: a key belongs to no target, or an adapter is incomplete or of another shape.
    """
    by_name = {target.name: target for target in targets}
    layers = by_layer(state)
    unknown = [name for name in layers if name not in by_name]
    if unknown:
        raise LoraFileError(f"{len(unknown)} layers of the LoRA do not exist in this model, such as {unknown[0]!r}.")
    return [_from_tensors(by_name[name], tensors, device, dtype) for name, tensors in layers.items()]


def _from_tensors(target: Target, tensors: State, device: torch.device, dtype: torch.dtype) -> Adapter:
    if not algebra.adapter_type_of(tensors):
        raise LoraFileError(
            f"The LoRA's layer {target.name!r} lacks a tensor or has an unknown type; it has {', '.join(sorted(tensors))}."
        )
    check_layers({target.name: tensors}, "The LoRA ")
    values = {key: value for key, value in algebra.from_file(tensors).items() if key != "alpha"}
    alpha = alpha_of(tensors)
    if not _fits(values, alpha, weight_of(target)):
        has = ", ".join(f"{key} {shape_words(value)}" for key, value in tensors.items() if key != "alpha")
        raise LoraFileError(
            f"The LoRA's layer {target.name!r} does not fit the model's layer with {shape_words(weight_of(target))}: it has "
            f"{has}."
        )
    return made_of(target, {key: value.detach().to(device, dtype, copy=True) for key, value in values.items()}, alpha)


def _fits(tensors: State, alpha: float, weight: torch.Tensor) -> bool:
    """Whether the delta has the shape of `weight`, without computing it."""
    if algebra.DOWN in tensors:
        down, up = tensors[algebra.DOWN], tensors[algebra.UP]
        if down.shape[1:] != weight.shape[1:] or up.shape != (len(weight), len(down), *[1] * (weight.dim() - 2)):
            return False
    if algebra.BIAS in tensors and tensors[algebra.BIAS].shape != weight.shape[:1]:
        return False
    meta = {key: value.to("meta") for key, value in tensors.items()}
    try:
        algebra.delta(meta, alpha, weight.to("meta"))
    except (RuntimeError, ValueError):
        return False
    return True
