"""Counts the bytes that are alive while operators run on tensors without content: nothing is computed."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Ledger(TorchDispatchMode):
    """While it is open, every storage that an operator makes is counted from its making to its end.

    `now` and `peak` are bytes. Storages of `known` tensors, the weights, are not counted; they must outlive the ledger.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._known = {_key(tensor) for tensor in known}
        self._alive: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                self._take_in(tensor)
        return result

    def _take_in(self, tensor: torch.Tensor) -> None:
        key = _key(tensor)
        if key in self._known or key in self._alive:
            return
        storage = tensor.untyped_storage()
        self._alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._let_go, key).atexit = False

    def _let_go(self, key: int) -> None:
        self.now -= self._alive.pop(key)


def _key(tensor: torch.Tensor) -> int:
    """What tells storages apart as long as they live."""
    return int(tensor.untyped_storage()._cdata)
