"""One matrix product, on the fastest kernel that torch has for it on this device."""

from __future__ import annotations

import torch

# oneDNN's product: twice as fast as the BLAS behind torch.mm on the AVX-512 processor (AMD) where it was measured, and it takes
# transposed operands as they are.
# torch offers it as an operator of its compiler only; where it is missing, torch.mm gives the same numbers.
_ONEDNN: bool = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Returns a bᵀ, without gradients. Shapes: `[n, k]`, `[m, k]` -> `[n, m]`."""
    if _ONEDNN and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return result
    return a @ b.t()
