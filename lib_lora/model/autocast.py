"""Autocast regions for tensors on any device, including meta."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from lib_lora.model.meta_device import emulated, emulating


def autocast_dtype(x: torch.Tensor) -> torch.dtype | None:
    """The dtype of the autocast region that `x` is in; None outside one."""
    kind = x.device.type
    if kind == "meta":
        return emulated().autocast
    if not (torch.is_autocast_cpu_enabled() if kind == "cpu" else torch.is_autocast_enabled()):
        return None
    if hasattr(torch, "get_autocast_dtype"):
        found: torch.dtype = torch.get_autocast_dtype(kind)
        return found
    return torch.get_autocast_cpu_dtype() if kind == "cpu" else torch.get_autocast_gpu_dtype()


def without_autocast(x: torch.Tensor) -> AbstractContextManager[object]:
    """Context manager that disables autocast on the device of `x`."""
    if x.device.type == "meta":
        return emulating(replace(emulated(), autocast=None))
    return torch.autocast(x.device.type, enabled=False)
