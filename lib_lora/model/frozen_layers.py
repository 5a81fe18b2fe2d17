"""Frozen layers at lower cost: one autograd node per layer, and only what backward needs is kept.

torch keeps the input of every convolution, because its weight might require grad; ours never does. On small feature maps a
convolution spends most of its time reordering its weight; as a product over patches it reads the weight once.
Used only on a CPU in fp32; elsewhere torch's own operators (autocast, cuDNN) are better.

The encoder of ldm's and sgm's VAE runs the same operators, with temporaries overwritten in place: its feature maps are larger
than a processor's caches, and the system zeroes new memory first, so every pass and allocation that is saved counts. (In the
channels-last layout convolutions are faster still, but torch 2.1's group norm loses precision there on flat images.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.grad import conv2d_input

from lib_lora.model.base import is_linear
from lib_lora.model.meta_device import autocast_dtype, device_type
from lib_lora.model.patching import Forward

MOST_PATCHES = 256  # output positions up to which patches are faster than oneDNN's convolution (measured on two AVX-512 cores)

Gradients = tuple[Any, ...]


# oneDNN's product: twice as fast as the BLAS behind torch.mm (measured on AMD with AVX-512), and it accepts transposed operands.
# torch offers it only as an operator of its compiler; without it, torch.mm gives the same numbers.
_ONEDNN: bool = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)
_ONEDNN_ONTO: bool = _ONEDNN and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")  # adds to an existing tensor in one pass


def frozen_forwards(networks: Iterable[nn.Module], device: torch.device) -> dict[nn.Module, Forward]:
    """A replacement `forward` for every Linear and plain convolution in `networks`; empty unless `device` is a CPU."""
    if device.type != "cpu":
        return {}
    modules = [module for network in networks for module in network.modules()]
    forwards: dict[nn.Module, Forward] = {}
    for module in modules:
        if is_linear(module):
            forwards[module] = linear_forward(module)
        elif isinstance(module, nn.Conv2d) and _is_plain(module):
            forwards[module] = conv_forward(module)
    return forwards


def in_fp32(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a layer computes in plain fp32 on a CPU: no autocast, no half precision."""
    plain = x.dtype == weight.dtype == torch.float32 and device_type(x) == "cpu"
    return plain and autocast_dtype(x) is None and not torch.is_autocast_enabled()


def applied(function: Any, *inputs: Any) -> torch.Tensor:
    """The output of an autograd `Function`."""
    y: torch.Tensor = function.apply(*inputs)
    return y


def shaped(y: torch.Tensor, *shape: int) -> torch.Tensor:
    """Returns y in another shape, not as a view: others may change a Function's output in place."""
    result: torch.Tensor = torch.ops.aten._unsafe_view(y, shape)
    return result


class FrozenLinear(Function):
    """y = x Wᵀ + b with a gradient for x only. Shapes: `[…, in]`, `[out, in]`, `[out]` or None -> `[…, out]`."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any) -> torch.Tensor:
        ctx.weight, ctx.shape = weight, x.shape
        y = product(x.reshape(-1, x.shape[-1]), weight)
        if bias is not None:
            y.add_(bias)
        return shaped(y, *x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        grad_x = product(grad.reshape(-1, grad.shape[-1]), ctx.weight.t())
        return grad_x.view(ctx.shape), None, None


class FrozenConv(Function):
    """torch's convolution with a gradient for x only. Shapes: `[B, in, h, w]`, `[out, in, k, k]` -> `[B, out, h', w']`."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, stride: int, padding: int) -> torch.Tensor:
        ctx.weight, ctx.shape, ctx.stride, ctx.padding = weight, x.shape, stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        grad_x = conv2d_input(ctx.shape, ctx.weight, grad, ctx.stride, ctx.padding)  # type: ignore[no-untyped-call]
        return grad_x, None, None, None, None


class FrozenPatchConv(Function):
    """`FrozenConv` as one product of the weight with all patches of x."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, stride: int, padding: int) -> torch.Tensor:
        ctx.weight, ctx.shape, ctx.stride, ctx.padding = weight, x.shape, stride, padding
        patches = F.unfold(x, weight.shape[-1], padding=padding, stride=stride)  # [B, in · k · k, n]
        y = product(weight.flatten(1), patches.transpose(1, 2).flatten(0, 1))  # [out, B · n]
        if bias is not None:
            y.add_(bias[:, None])
        height, width = (_output_side(side, weight.shape[-1], stride, padding) for side in x.shape[2:])
        if len(x) == 1:
            return shaped(y, 1, len(weight), height, width)
        return y.view(len(weight), len(x), height, width).transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        weight = ctx.weight
        columns = grad.flatten(2).transpose(1, 2).flatten(0, 1)  # [B · n, out]
        patches = product(columns, weight.flatten(1).t())  # [B · n, in · k · k]
        patches = patches.view(len(grad), -1, patches.shape[1]).transpose(1, 2)  # [B, in · k · k, n]
        grad_x = F.fold(patches, ctx.shape[2:], weight.shape[-1], padding=ctx.padding, stride=ctx.stride)
        return grad_x, None, None, None, None


class LoraLinear(Function):
    """y = x Wᵀ + b + s · (x downᵀ) upᵀ, with gradients for x, down and up.

    Shapes:
        x `[…, in]`, weight `[out, in]`, bias `[out]` or None, down `[rank, in]`, up `[out, rank]` -> `[…, out]`
    """

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, down: Any, up: Any, scale: float) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [n, in]
        hidden = product(rows, down)  # [n, rank]
        y = product(rows, weight)
        if bias is not None:
            y.add_(bias)
        y.addmm_(hidden, up.t(), alpha=scale)
        ctx.save_for_backward(rows, hidden, down, up)
        ctx.weight, ctx.scale, ctx.shape = weight, scale, x.shape
        return shaped(y, *x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        rows, hidden, down, up = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])  # [n, out]
        grad_hidden = product(grad, up.t()).mul_(ctx.scale)  # [n, rank]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = product(grad, ctx.weight.t()).addmm_(grad_hidden, down).view(ctx.shape)
        grad_up = product(hidden.t(), grad.t()).mul_(ctx.scale).t().contiguous()  # long rows: a third of the time of [out, rank]
        return grad_x, None, None, product(grad_hidden.t(), rows.t()), grad_up, None


def linear_forward(linear: nn.Linear) -> Forward:
    """A cheaper `forward` with the layer's own output."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        if not in_fp32(x, linear.weight):
            return F.linear(x, linear.weight, linear.bias)
        return applied(FrozenLinear, x, linear.weight, linear.bias)

    return forward


def conv_forward(conv: nn.Conv2d) -> Forward:
    """As `linear_forward`, for a plain convolution."""
    stride, padding, kernel = conv.stride[0], int(conv.padding[0]), conv.kernel_size[0]

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 4 or not in_fp32(x, conv.weight):
            return F.conv2d(x, conv.weight, conv.bias, stride, padding)
        height, width = (_output_side(side, kernel, stride, padding) for side in x.shape[2:])
        kind = FrozenPatchConv if kernel == 1 or len(x) * height * width <= MOST_PATCHES else FrozenConv
        return applied(kind, x, conv.weight, conv.bias, stride, padding)

    return forward


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether the convolution has a square kernel, equal strides, zero padding, no groups and no dilation."""
    square = all(len(set(sides)) == 1 for sides in (conv.kernel_size, conv.stride, conv.dilation))
    zeros = not isinstance(conv.padding, str) and len(set(conv.padding)) == 1 and conv.padding_mode == "zeros"
    return square and zeros and conv.groups == 1 and conv.dilation[0] == 1


def _output_side(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Returns a bᵀ, without gradients. Shapes: `[n, k]`, `[m, k]` -> `[n, m]`."""
    if _ONEDNN and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return result
    return a @ b.t()


def convolved_onto(y: torch.Tensor, x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """Returns y + conv(x), written into y, in fp32 on a CPU without gradients. Shapes: `[B, out, h', w']`, `[B, in, h, w]`."""
    if _ONEDNN_ONTO and conv.bias is not None and conv.padding_mode == "zeros":
        sides = (list(conv.padding), list(conv.stride), list(conv.dilation))
        torch.ops.mkldnn._convolution_pointwise_.binary(
            y, x, conv.weight, conv.bias, *sides, conv.groups, "add", None, None, [], None
        )
        return y
    return y.add_(conv(x))


def encoder_forwards(vae: Any, device: torch.device) -> dict[nn.Module, Forward]:
    """A replacement `forward` for every block of an `AutoencoderKL`'s encoder; empty if it would not help."""
    encoder = getattr(vae, "encoder", None)
    if device.type != "cpu" or not isinstance(encoder, nn.Module):
        return {}
    blocks = [module for module in encoder.modules() if type(module).__name__ == "ResnetBlock"]
    return {block: _block_forward(block) for block in blocks}


def _block_forward(block: Any) -> Forward:
    def forward(x: torch.Tensor, temb: torch.Tensor | None = None) -> torch.Tensor:
        """Returns x + conv2(silu(norm2(conv1(silu(norm1(x)))))). Shapes: `[B, in, h, w]` -> `[B, out, h, w]`.

        If the block keeps the width, the result overwrites x.
        """
        if temb is not None or torch.is_grad_enabled() or not in_fp32(x, block.conv1.weight):
            kept: torch.Tensor = type(block).forward(block, x, temb)
            return kept
        hidden = block.conv1(F.silu(block.norm1(x), inplace=True))
        hidden = F.silu(block.norm2(hidden), inplace=True)
        if block.in_channels != block.out_channels:
            x = block.conv_shortcut(x) if block.use_conv_shortcut else block.nin_shortcut(x)
        return convolved_onto(x, hidden, block.conv2)

    return forward
