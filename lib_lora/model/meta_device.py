"""Which device meta tensors emulate while memory is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

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
