"""torch's fused attention for the CrossAttention instances of ldm and sgm: exact, and keeps no softmax for backward.

The host's attention is made for inference; its defaults, Doggettx and InvokeAI, keep every slice if gradients are needed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.model.patching import Forward


def fused_attention_forwards(unet: nn.Module) -> dict[nn.Module, Forward]:
    """A replacement `forward` for every CrossAttention in `unet`; use with `forwards_replaced`."""
    return {module: _forward(module) for module in unet.modules() if type(module).__name__ == "CrossAttention"}


def _forward(attention: Any) -> Forward:
    def forward(
        x: torch.Tensor, context: torch.Tensor | None = None, mask: torch.Tensor | None = None, **more: Any
    ) -> torch.Tensor:
        """softmax(q kᵀ / √d) v. Shapes: x `[B, n, width]`, context `[B, m, context width]` -> `[B, n, width]`."""
        if mask is not None or any(more.values()):  # sgm's takes more, for video
            raise ValueError("masked attention, and attention between frames, are not used by Stable Diffusion")
        context = x if context is None else context
        split = [
            projected.unflatten(-1, (attention.heads, -1)).transpose(1, 2)  # [B, heads, n, d]
            for projected in (attention.to_q(x), attention.to_k(context), attention.to_v(context))
        ]
        joined = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)  # [B, n, heads · d]
        result: torch.Tensor = attention.to_out(joined)
        return result

    return forward
