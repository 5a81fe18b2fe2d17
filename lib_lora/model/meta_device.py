"""What tensors without content (torch's meta device) stand for: those of a device whose memory is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

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
