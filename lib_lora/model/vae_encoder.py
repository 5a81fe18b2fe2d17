"""The encoder of ldm's and sgm's VAE on a CPU in fp32: the same operators, with temporaries overwritten in place.

Feature maps are larger than a processor's caches, and the system zeroes new memory first, so every pass and allocation that is
saved counts. (In the channels-last layout convolutions are faster still, but torch 2.1's group norm loses precision there on flat
images.)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.model.frozen_layers import convolved_onto, in_fp32
from lib_lora.model.patching import Forward


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
