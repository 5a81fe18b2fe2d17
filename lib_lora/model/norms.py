"""Keeping the delta of every layer below a norm (sd-scripts `apply_max_norm_regularization`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lib_lora.model.adapter import LoraPair


@torch.no_grad()
def limit_norms(pairs: Sequence[LoraPair], largest: float) -> None:
    """Shrink up and down by √(largest / n) where n = ‖alpha / rank · up · down‖ is larger, so that n becomes `largest`."""
    for pair in pairs:
        factor = (largest / delta_norm(pair).clamp(min=largest)).sqrt()  # exactly 1 where n is small enough
        pair.down.mul_(factor)
        pair.up.mul_(factor)


def delta_norm(pair: LoraPair) -> torch.Tensor:
    """Frobenius norm of the layer's delta, without forming it: √tr((UᵀU)(DDᵀ)). A scalar, fp32."""
    down, up = (half.detach().float().flatten(1) for half in (pair.down, pair.up))
    square = ((up.t() @ up) * (down @ down.t())).sum()
    return abs(pair.scale) * square.clamp(min=0.0).sqrt()
