"""A LoRA pair for one layer, as a run would make it."""

from __future__ import annotations

import torch

from lib_lora.config.adapter import AdapterConfig
from lib_lora.model.adapter_types import LoraPair, new_adapter
from lib_lora.model.base import Target


def new_pair(
    target: Target, rank: int, alpha: float, seed: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> LoraPair:
    """A LoRA that changes nothing yet: down as kohya draws it, up zero."""
    pair = new_adapter(target, rank, alpha, AdapterConfig(), seed, device, dtype)
    assert isinstance(pair, LoraPair)
    return pair
