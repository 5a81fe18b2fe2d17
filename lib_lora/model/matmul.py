"""Matrix products and a convolution on torch's fastest kernels for the device."""

from __future__ import annotations

import torch
from torch import nn

# oneDNN's product: twice as fast as the BLAS behind torch.mm (measured on AMD with AVX-512), and it accepts transposed operands.
# torch offers it only as an operator of its compiler; without it, torch.mm gives the same numbers.
_ONEDNN: bool = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)
_ONEDNN_ONTO: bool = _ONEDNN and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")  # adds to an existing tensor in one pass


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
