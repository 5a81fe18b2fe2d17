"""What tensors without content (torch's meta device) stand for: those of a device whose memory is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class EmulatedDevice:
    """What meta tensors stand for: the kind of a device, and the number format of an autocast region that they are in."""

    device_type: str = "cpu"
    autocast: torch.dtype | None = None


_emulated: ContextVar[EmulatedDevice] = ContextVar("acting", default=EmulatedDevice())  # noqa: B039 - frozen


@contextmanager
def emulating(emulated: EmulatedDevice) -> Iterator[None]:
    """While it lasts, meta tensors stand for what `emulated` says."""
    token = _emulated.set(emulated)
    try:
        yield
    finally:
        _emulated.reset(token)


def emulated() -> EmulatedDevice:
    """What meta tensors stand for now."""
    return _emulated.get()


def device_type(x: torch.Tensor) -> str:
    """The kind of device that `x` is on, or stands for."""
    return emulated().device_type if x.device.type == "meta" else x.device.type
