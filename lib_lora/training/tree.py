"""Nested state (of optimizers, schedules, scalers) <-> plain JSON and a flat table of tensors. No pickle: nothing read is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lib_lora.errors import TrainLoraError

Tensors = dict[str, torch.Tensor]


class StateError(TrainLoraError):
    """A state that cannot be written, read, or gone on from."""


def to_plain(value: Any, tensors: Tensors, place: str = "") -> Any:
    """`value` as JSON can hold it. Tensors go to `tensors` as CPU copies under their place, such as `optimizer/state/0/step`.

    What JSON has no kind for is an object with one key: `tensor`, `tuple`, `dict` (pairs, so that keys keep their type),
    `float` (nan and infinities). Functions, such as a schedule's lambdas, are left out: the program that reads has its own.

    Raises:
        StateError: an object of another kind.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach().cpu().clone().contiguous()
        return {"tensor": place}
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, tensors, f"{place}/{i}") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping):
        entries = [(key, item) for key, item in value.items() if not callable(item)]
        return {"dict": [[to_plain(key, tensors), to_plain(item, tensors, f"{place}/{key}")] for key, item in entries]}
    raise StateError(f"The state cannot be saved: {place} is of the kind {type(value).__name__}; choose another optimizer.")


def from_plain(plain: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What `to_plain` was given.

    Raises:
        StateError: it is not of that form, or lacks a tensor.
    """
    if isinstance(plain, list):
        return [from_plain(item, tensors) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if len(plain) == 1:
        ((kind, content),) = plain.items()
        if kind == "tensor" and content in tensors:
            return tensors[content]
        if kind == "float":
            return float(content)
        if kind == "tuple":
            return tuple(from_plain(item, tensors) for item in content)
        if kind == "dict":
            return {from_plain(key, tensors): from_plain(item, tensors) for key, item in content}
    raise StateError("The state cannot be read: it is damaged; choose an older one.")
