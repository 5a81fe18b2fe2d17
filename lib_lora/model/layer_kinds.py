"""Which modules are layers that can be adapted, whatever their class."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import nn


def is_linear(module: nn.Module | None) -> TypeGuard[nn.Linear]:
    """Whether it is a linear layer. Some programs have classes that behave like `nn.Linear` without being one."""
    weight = getattr(module, "weight", None)
    return hasattr(module, "in_features") and hasattr(module, "out_features") and isinstance(weight, torch.Tensor)


def is_layer(module: nn.Module | None) -> bool:
    """Whether it is a linear layer or a convolution."""
    return isinstance(module, nn.Conv2d) or is_linear(module)
