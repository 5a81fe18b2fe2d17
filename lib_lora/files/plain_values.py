"""Nested state (of optimizers, schedules, scalers) <-> plain JSON and a flat table of tensors. No pickle, so no code is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lib_lora.errors import TrainLoraError

Tensors = dict[str, torch.Tensor]
MAX_DEPTH = 64  # of nested lists and tables
_NO_NUMBERS = ("nan", "inf", "-inf")


class StateError(TrainLoraError):
    """A state cannot be written, read, or resumed from."""


def to_plain(value: Any, tensors: Tensors, place: str = "") -> Any:
    """`value` as plain JSON. Tensors are added to `tensors` as CPU copies under their place, such as `optimizer/state/0/step`.

    Types that JSON lacks become an object with one key: `tensor`, `tuple`, `dict` (a list of [key, value], so that keys keep
    their type), `float` (nan and infinities). Functions, such as a schedule's lambdas, are left out: the reader has its own.

    Raises:
        StateError: an object of another type.
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
    raise StateError(f"The state cannot be saved: {place} has the type {type(value).__name__}; choose another optimizer.")


def from_plain(plain: Any, tensors: Mapping[str, torch.Tensor], depth: int = 0) -> Any:
    """The value that `to_plain` was given.

    Raises:
        StateError: `plain` is not of that form, lacks a tensor, or is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise StateError(f"it is nested more than {MAX_DEPTH} levels deep")
    if isinstance(plain, list):
        return [from_plain(item, tensors, depth + 1) for item in plain]
    if not isinstance(plain, dict):
        return plain
    kind, content = next(iter(plain.items())) if len(plain) == 1 else ("", None)
    if kind == "tensor" and isinstance(content, str) and content in tensors:
        return tensors[content]
    if kind == "float" and content in _NO_NUMBERS:
        return float(content)
    if kind == "tuple" and isinstance(content, list):
        return tuple(from_plain(item, tensors, depth + 1) for item in content)
    if kind == "dict" and isinstance(content, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in content):
        pairs = [[from_plain(item, tensors, depth + 1) for item in pair] for pair in content]
        if all(_is_key(key) for key, _ in pairs):
            return {key: item for key, item in pairs}  # noqa: C416 - pairs are lists
    told = f"the tensor {content!r} is missing" if kind == "tensor" else f"it contains {str(plain)[:60]}, which has no meaning"
    raise StateError(told)


def _is_key(value: Any) -> bool:
    """Whether a value can be a key: a plain value or a tuple of them."""
    plain = value is None or isinstance(value, (bool, int, float, str))
    return plain or (isinstance(value, tuple) and all(map(_is_key, value)))
