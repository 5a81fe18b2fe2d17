"""The device and autocast region of a tensor, which meta tensors emulate while memory is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class EmulatedDevice:
    """What meta tensors emulate: a device type, and the dtype of an autocast region, or None outside one."""

    device_type: str = "cpu"
    autocast: torch.dtype | None = None


_emulated: ContextVar[EmulatedDevice] = ContextVar("acting", default=EmulatedDevice())  # noqa: B039 - frozen


@contextmanager
def emulating(emulated: EmulatedDevice) -> Iterator[None]:
    """Context manager under which meta tensors emulate `emulated`."""
    token = _emulated.set(emulated)
    try:
        yield
    finally:
        _emulated.reset(token)


def emulated() -> EmulatedDevice:
    """What meta tensors currently emulate."""
    return _emulated.get()


def device_type(x: torch.Tensor) -> str:
    """The type of the device that `x` is on or emulates."""
    return emulated().device_type if x.device.type == "meta" else x.device.type


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
