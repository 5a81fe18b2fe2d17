"""Makes a borrowed model trainable; every change is reversible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.model.base import BaseModel, networks
from lib_lora.model.frozen_layers import encoder_forwards, frozen_forwards
from lib_lora.model.open_clip import OpenClipEncoder
from lib_lora.model.patching import Forward, forwards_replaced, frozen, others_aside


@contextmanager
def made_trainable(base: BaseModel, whole: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Context manager: `base` frozen, VAE in fp32, faster attention, frozen layers and VAE encoder. Restores everything on exit.

    `whole`: all modules of a host's model that contain its networks; if given, others' hooks and `forward`s are removed, too.
    """
    own = [*networks(base), base.vae]
    with ExitStack() as stack:
        stack.enter_context(frozen(whole or own))
        stack.enter_context(others_aside(own if whole else []))  # transformers adds hooks of its own to its models
        stack.enter_context(_in_fp32(base.vae))
        stack.enter_context(training_forwards(base, base.device))
        stack.enter_context(forwards_replaced(encoder_forwards(base.vae, base.device)))
        yield


@contextmanager
def training_forwards(base: BaseModel, device: torch.device) -> Iterator[None]:
    """Context manager that sets the `forward`s of U-Net and text encoders for training on `device`."""
    with ExitStack() as stack:
        stack.enter_context(forwards_replaced(fused_attention_forwards(base.unet)))
        for encoder in base.text_encoders:
            if isinstance(encoder, OpenClipEncoder):
                stack.enter_context(forwards_replaced(encoder.forwards()))
        stack.enter_context(forwards_replaced(frozen_forwards(networks(base), device)))
        yield


@contextmanager
def _in_fp32(vae: nn.Module) -> Iterator[None]:
    """Context manager: the VAE in fp32 (some overflow in half precision). fp16 and bf16 weights are restored exactly."""
    before = next(vae.parameters()).dtype
    if all(parameter.dtype == torch.float32 for parameter in vae.parameters()):
        yield
        return
    try:
        vae.to(torch.float32)  # it may fail half-way
        yield
    finally:
        vae.to(before)


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
