"""Limits the norm of every layer's delta (sd-scripts `apply_max_norm_regularization`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lib_lora.model import delta as algebra
from lib_lora.model.adapter_types import Adapter


@torch.no_grad()
def limit_norms(adapters: Sequence[Adapter], largest: float) -> None:
    """Scale each of the k factors by (largest / n)^(1/k) if the delta's norm n exceeds `largest`, so that n becomes `largest`."""
    for adapter in adapters:
        factors = [value for key, value in adapter.named().items() if key != algebra.SCALE]
        ratio = largest / delta_norm(adapter).clamp(min=largest)  # exactly 1 if n is small enough
        share = ratio.sqrt() if len(factors) == 2 else ratio ** (1 / len(factors))
        for factor in factors:
            factor.mul_(share)


def delta_norm(adapter: Adapter) -> torch.Tensor:
    """Frobenius norm of the layer's delta, of a DoRA before its decomposition (as LyCORIS). A scalar, fp32."""
    tensors = {key: value.detach() for key, value in adapter.named().items()}
    return plain_norm(tensors, adapter.alpha)


def plain_norm(tensors: algebra.Tensors, alpha: float | None) -> torch.Tensor:
    """As `delta_norm`, for tensors; of a LoRA without computing the delta: √tr((UᵀU)(DDᵀ))."""
    if algebra.DOWN not in tensors:
        norm: torch.Tensor = torch.linalg.vector_norm(algebra.plain_delta(tensors, alpha, (-1,)))
        return norm
    down, up = (tensors[key].float().flatten(1) for key in (algebra.DOWN, algebra.UP))
    square = ((up.t() @ up) * (down @ down.t())).sum()
    return abs(algebra.scale_of(tensors, alpha)) * square.clamp(min=0.0).sqrt()
