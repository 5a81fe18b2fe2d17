"""The `forward` of a layer with adapters: low-rank products for LoRA, a weight delta for every other type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.grad import conv2d_input, conv2d_weight

from lib_lora.model import delta as algebra
from lib_lora.model.adapter_types import Adapter, LoraPair, weight_of
from lib_lora.model.base import is_linear
from lib_lora.model.dropout import Dropout
from lib_lora.model.frozen_layers import LoraLinear, applied, conv_forward, in_fp32, linear_forward
from lib_lora.model.meta_device import autocast_dtype, without_autocast
from lib_lora.model.patching import Forward


def composed(adapter: Adapter | None, added: Adapter | None, dropout: Dropout | None) -> Forward:
    """A replacement `forward` for a layer with a trained adapter, a frozen one, or both."""
    first = adapter or added
    assert first is not None
    whole = _forward(first)
    if adapter is None or (added is None and (dropout is None or not dropout.used)):
        return whole
    trained, base = adapter, _base_forward(adapter.target.module)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if dropout is None or not dropout.active:
            y: torch.Tensor = whole(x)
        elif dropout.skips(trained.target.name):
            y = base(x)
        else:
            y = base(x) + _added(trained, x, dropout)
        return y if added is None else y + _added(added, x)

    return forward


def _added(adapter: Adapter, x: torch.Tensor, dropout: Dropout | None = None) -> torch.Tensor:
    """What the adapter adds to the layer's output."""
    if isinstance(adapter, LoraPair):
        return _low_rank(adapter, x, dropout)
    y = _with_bias(adapter, _through_delta(adapter, x, with_base=False))
    return y if dropout is None else dropout.applied(adapter.target.name, y)


def _low_rank(pair: LoraPair, x: torch.Tensor, dropout: Dropout | None = None) -> torch.Tensor:
    """Returns alpha / rank · up(down(x)); down has the layer's stride and padding."""
    hidden = _product(pair.target.module, x, pair.down, None)
    if dropout is not None:
        hidden = dropout.applied(pair.target.name, hidden)
    return (F.conv2d if hidden.dim() == pair.up.dim() == 4 else F.linear)(hidden, pair.up) * pair.scale


def _base_forward(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    if isinstance(module, nn.Conv2d):
        return conv_forward(module)
    assert is_linear(module)
    return linear_forward(module)


def _forward(adapter: Adapter) -> Forward:
    module = adapter.target.module
    if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros"):
        raise ValueError(f"{adapter.target.name} is no plain convolution")
    if isinstance(adapter, LoraPair):
        return _pair_forward(adapter)
    return lambda x: _with_bias(adapter, _through_delta(adapter, x, with_base=True))


def _with_bias(adapter: Adapter, y: torch.Tensor) -> torch.Tensor:
    """The output with what a full difference adds to the layer's bias, `[out]`."""
    bias = adapter.named().get(algebra.BIAS)
    if bias is None:
        return y
    return y + (bias[:, None, None] if isinstance(adapter.target.module, nn.Conv2d) else bias).to(y.dtype)


def _pair_forward(pair: LoraPair) -> Forward:
    """One autograd node for Linears and pointwise convolutions in fp32 on a CPU, else two products."""
    module, down, up = pair.target.module, pair.down, pair.up
    base, is_conv, pointwise = _base_forward(module), False, True
    if isinstance(module, nn.Conv2d):
        is_conv, pointwise = True, (module.kernel_size, module.stride, module.padding) == ((1, 1), (1, 1), (0, 0))

    def forward(x: torch.Tensor) -> torch.Tensor:
        weight = weight_of(pair.target)
        if not pointwise or not in_fp32(x, weight):
            return base(x) + _low_rank(pair, x)
        rows = x.permute(0, 2, 3, 1) if is_conv else x  # [B, h, w, in] or […, in]
        y = applied(LoraLinear, rows, weight.flatten(1), module.bias, down.flatten(1), up.flatten(1), pair.scale)
        return y.permute(0, 3, 1, 2).contiguous() if is_conv else y

    return forward


def _through_delta(adapter: Adapter, x: torch.Tensor, *, with_base: bool) -> torch.Tensor:
    named = adapter.named()
    return applied(
        DeltaLayer, x, adapter.target.module, tuple(named), adapter.alpha, with_base, _working_dtype(x, adapter), *named.values()
    )


def _working_dtype(x: torch.Tensor, adapter: Adapter) -> torch.dtype:
    """The dtype of the layer's product: autocast's, or the weight's."""
    return autocast_dtype(x) or weight_of(adapter.target).dtype


class DeltaLayer(Function):
    """y = op(x, W) + b + op(x, Δ), where Δ is a function of the adapter's tensors and W; if not `with_base`, op(x, Δ) alone.

    x and the tensors are kept for backward; Δ, as large as W, is recomputed there. In fp32 both products are one, with W + Δ; in
    half precision this sum would lose values that are small beside W.

    Shapes:
        Linear `[…, in]` -> `[…, out]`; Conv2d `[B, in, h, w]` -> `[B, out, h', w']`
    """

    @staticmethod
    def forward(
        ctx: Any, x: Any, module: Any, keys: Any, alpha: float, with_base: bool, dtype: Any, *tensors: Any
    ) -> torch.Tensor:
        ctx.layer, ctx.keys, ctx.alpha, ctx.with_base, ctx.dtype = module, keys, alpha, with_base, dtype
        ctx.save_for_backward(x, *tensors)
        with without_autocast(x):
            change = algebra.delta(dict(zip(keys, tensors)), alpha, module.weight)
            bias = module.bias if with_base else None
            parts = _weights(module.weight, change, dtype, with_base=with_base)
            y = _product(module, x.to(dtype), parts[0], None if bias is None else bias.to(dtype))
            return y if len(parts) == 1 else y + _product(module, x.to(dtype), parts[1], None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, *tensors = ctx.saved_tensors
        module, dtype = ctx.layer, ctx.dtype
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        with without_autocast(x):
            with torch.enable_grad():
                change = algebra.delta(dict(zip(ctx.keys, leaves)), ctx.alpha, module.weight)
            grad_x = None
            if ctx.needs_input_grad[0]:
                parts = _weights(module.weight, change.detach(), dtype, with_base=ctx.with_base)
                gradients = [_input_gradient(module, x, part, grad.to(dtype)) for part in parts]
                grad_x = (gradients[0] if len(gradients) == 1 else gradients[0] + gradients[1]).to(x.dtype)
            found: Sequence[torch.Tensor | None] = [None] * len(tensors)
            if any(ctx.needs_input_grad[6:]):
                grad_change = _weight_gradient(module, x.to(dtype), grad.to(dtype)).float()
                found = torch.autograd.grad(change, leaves, grad_change)
        return grad_x, None, None, None, None, None, *found


def _weights(weight: torch.Tensor, change: torch.Tensor, dtype: torch.dtype, *, with_base: bool) -> list[torch.Tensor]:
    """The weights whose products are summed."""
    if not with_base:
        return [change.to(dtype)]
    return [weight + change] if weight.dtype == dtype == torch.float32 else [weight.to(dtype), change.to(dtype)]


def _product(module: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if isinstance(module, nn.Conv2d):
        return F.conv2d(x, weight, bias, module.stride, module.padding)
    return F.linear(x, weight, bias)


def _input_gradient(module: nn.Module, x: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    if isinstance(module, nn.Conv2d):
        found: torch.Tensor = conv2d_input(x.shape, weight, grad, module.stride, module.padding)  # type: ignore[no-untyped-call]
        return found
    return grad @ weight


def _weight_gradient(module: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    if isinstance(module, nn.Conv2d):
        shape = module.weight.shape
        found: torch.Tensor = conv2d_weight(x, shape, grad, module.stride, module.padding)  # type: ignore[no-untyped-call]
        return found
    return grad.flatten(0, -2).t() @ x.flatten(0, -2)
