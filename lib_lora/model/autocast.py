"""Where tensors are computed, and in what number format.

Tensors without content (torch's meta device) stand for those of a device whose memory is counted: `acting_as` says which.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Acting:
    """What meta tensors stand for: the kind of a device, and the number format of an autocast region that they are in."""

    device_type: str = "cpu"
    autocast: torch.dtype | None = None


_acting: ContextVar[Acting] = ContextVar("acting", default=Acting())  # noqa: B039 - frozen


@contextmanager
def acting_as(acting: Acting) -> Iterator[None]:
    """While it lasts, meta tensors stand for what `acting` says."""
    token = _acting.set(acting)
    try:
        yield
    finally:
        _acting.reset(token)


def acting() -> Acting:
    """What meta tensors stand for now."""
    return _acting.get()


def device_type(x: torch.Tensor) -> str:
    """The kind of device that `x` is on, or stands for."""
    return acting().device_type if x.device.type == "meta" else x.device.type


def autocast_dtype(x: torch.Tensor) -> torch.dtype | None:
    """The number format of the autocast region that `x` is in; None outside of one."""
    kind = x.device.type
    if kind == "meta":
        return acting().autocast
    if not (torch.is_autocast_cpu_enabled() if kind == "cpu" else torch.is_autocast_enabled()):
        return None
    if hasattr(torch, "get_autocast_dtype"):
        found: torch.dtype = torch.get_autocast_dtype(kind)
        return found
    return torch.get_autocast_cpu_dtype() if kind == "cpu" else torch.get_autocast_gpu_dtype()


def without_autocast(x: torch.Tensor) -> AbstractContextManager[object]:
    """A region without autocast on the device of `x`."""
    if x.device.type == "meta":
        return acting_as(replace(acting(), autocast=None))
    return torch.autocast(x.device.type, enabled=False)
