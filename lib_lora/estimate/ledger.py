"""Counts the bytes that are alive while operators run; on meta tensors nothing is computed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

MAPPED_FROM = 32 * 2**20  # bytes from which glibc maps a block, and unmaps it when it is freed (M_MMAP_THRESHOLD_MAX)
YOUNG, ROUND = 64, 16  # each operator checks the YOUNG newest storages, every ROUND-th checks all
_ATEN = torch.ops.aten
_CONVOLUTIONS = {_ATEN.convolution.default, _ATEN.convolution_backward.default}
_PRODUCTS = {_ATEN.mm.default, _ATEN.addmm.default}
_ONEDNN = "mkldnn::_linear_pointwise"  # see `model/frozen_layers.py`


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that counts every storage an operator makes, until it is freed.

    `now` and `peak` are bytes. Storages of `known` tensors, the weights, are not counted; they must outlive the ledger.

    `resident`: also count what a CPU process holds besides live storages: smaller blocks stay with it after they are freed, until
    they are reused, larger ones are returned; and oneDNN reorders weight, input and output of a convolution, and the second
    factor of a product.
    """

    def __init__(self, known: Iterable[torch.Tensor], *, resident: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {_key(tensor) for tensor in known}
        self._resident = resident
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._operators = 0
        self._small = self._most_small = self._large = 0
        self.peak = 0

    @property
    def now(self) -> int:
        """Bytes that are alive."""
        self._let_go(list(self._alive))
        return self._small + self._large

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._operators += 1
        every = self._operators % ROUND == 0
        self._let_go(list(self._alive) if every else list(itertools.islice(reversed(self._alive), YOUNG)))
        result = function(*args, **(kwargs or {}))
        made = [
            value for value in (result if isinstance(result, (tuple, list)) else (result,)) if isinstance(value, torch.Tensor)
        ]
        for tensor in made:
            self._take_in(tensor)
        if self._resident:
            self._work(_copies(function, args, made))
        return result

    def _take_in(self, tensor: torch.Tensor) -> None:
        key = _key(tensor)
        if key in self._known or key in self._alive:
            return
        storage = tensor.untyped_storage()
        # a weak reference keeps the key from being reused for another storage; torch 2.1 does not call storages' finalizers
        self._alive[key] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
        self._add(storage.nbytes())

    def _let_go(self, keys: Iterable[int]) -> None:
        """Remove those of `keys` that were freed."""
        is_gone = torch.UntypedStorage._expired  # type: ignore[attr-defined]  # as `StorageWeakRef.expired`, without its two calls
        for key in keys:
            reference, size = self._alive[key]
            if is_gone(reference.cdata):
                del self._alive[key]
                self._add(-size, -1)

    def _add(self, size: int, sign: int = 1) -> None:
        if self._resident and size * sign >= MAPPED_FROM:
            self._large += size
        else:
            self._small += size
        self._most_small = max(self._most_small, self._small)
        self.peak = max(self.peak, (self._most_small if self._resident else self._small) + self._large)

    def _work(self, sizes: Sequence[int]) -> None:
        """Count blocks that an operator holds only while it runs."""
        for size in sizes:
            self._add(size)
        for size in sizes:
            self._add(-size, -1)


def _copies(function: Any, args: Sequence[Any], made: Sequence[torch.Tensor]) -> list[int]:
    """Sizes of the tensors that oneDNN reorders for an operator."""
    tensors: list[torch.Tensor] = []
    if function in _CONVOLUTIONS:
        tensors = [*made, *(value for value in args if isinstance(value, torch.Tensor))]
    elif function in _PRODUCTS or getattr(function, "name", str)() == _ONEDNN:
        tensors = [value for value in args if isinstance(value, torch.Tensor)][-1:]
    return [tensor.numel() * tensor.element_size() for tensor in tensors]


def _key(tensor: torch.Tensor) -> int:
    """Identifies a tensor's storage while it is alive."""
    return int(tensor.untyped_storage()._cdata)
