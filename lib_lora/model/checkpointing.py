"""Gradient checkpointing: blocks keep only their inputs and recompute the rest during backward (Chen et al. 2016).

Applied to single blocks, because the host's own methods need `train()` mode, inputs that require grad, or patched classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lib_lora.config.precision import Checkpointing
from lib_lora.families.family import Family
from lib_lora.model.patching import Forward

# ldm and diffusers: transformer blocks and residual blocks of the U-Net; transformers and open_clip: layers of CLIP
_BLOCKS = {"BasicTransformerBlock", "ResBlock", "ResnetBlock2D", "CLIPEncoderLayer", "ResidualAttentionBlock"}


def checkpointed_forwards(
    networks: Iterable[nn.Module], wrapped: Callable[[nn.Module], Forward] | None = None
) -> dict[nn.Module, Forward]:
    """A replacement `forward` for every block in `networks`; use with `forwards_replaced`.

    Args:
        networks: modules that contain the blocks.
        wrapped: makes a block's replacement; default: torch's checkpoint.
    """
    modules = [module for network in networks for module in network.modules()]
    return {module: (wrapped or _forward)(module) for module in modules if type(module).__name__ in _BLOCKS}


def _forward(block: nn.Module) -> Forward:
    original = block.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        """The block's own output. Blocks use none of torch's random numbers, so the RNG state is not preserved."""
        return checkpoint(original, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return forward


@dataclass(frozen=True)
class Choice:
    """Whether checkpointing is on. `reason`: why; empty if the user chose."""

    on: bool
    reason: str = ""


def choose_checkpointing(wanted: Checkpointing, device: torch.device, family: Family) -> Choice:
    """Resolve the option for `device` and a model of `family`."""
    if wanted != "auto":
        return Choice(wanted == "on")
    if device.type != "cuda":
        return Choice(False, "a CPU has enough memory")
    total = torch.cuda.get_device_properties(device).total_memory
    enough = family.enough_bytes
    small = total < enough
    return Choice(small, f"the GPU has {total / 2**30:.0f} GB, {'less than' if small else 'at least'} {enough / 2**30:.0f}")
