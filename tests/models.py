"""Models loaded once for all tests of a process. A test that changes one fails, and the next test loads it anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from lib_lora.hosts.checkpoint import Modules, load_modules
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from tests.house import fingerprint

MOST = 4  # models at a time; those of one family have up to 230 MB
Key = tuple[Path, int, torch.dtype]  # the file, when it was changed, numbers of U-Net and text encoders


@dataclasses.dataclass
class Loaded:
    """The networks of a checkpoint, and their fingerprint when they were loaded."""

    modules: Modules
    before: list[str]


_loaded: dict[Key, Loaded] = {}
_lent: set[Key] = set()  # during the test that runs


class SharedHost(StandaloneHost):
    """A `StandaloneHost` whose model comes from those that are loaded, when it is first borrowed."""

    @contextmanager
    def borrow_model(self) -> Iterator[DiffusersModel]:
        if self._model is None and not self.problems():
            self._model = DiffusersModel(_modules(self._checkpoint, self._dtype()), self._device, self._checkpoint)
        with super().borrow_model() as model:
            yield model


def shared_host(checkpoint: Path, out: Path, *, full_precision: bool = False) -> SharedHost:
    """A host of its own for a test, around a model that is loaded once. Tests of the loading itself make a `StandaloneHost`."""
    return SharedHost(checkpoint, out, full_precision=full_precision)


def take_back() -> list[str]:
    """The checkpoints whose models a test left other than they were; these are loaded anew for the next one."""
    changed = [key for key in _lent if _fingerprints(_loaded[key].modules) != _loaded[key].before]
    for key in changed:
        del _loaded[key]
    _lent.clear()
    return [key[0].name for key in changed]


def _modules(checkpoint: Path, dtype: torch.dtype) -> Modules:
    key = (checkpoint, checkpoint.stat().st_mtime_ns, dtype)
    if key not in _loaded:
        modules = load_modules(checkpoint, dtype)
        for encoder in modules.text_encoders:  # newer transformers hang hooks of their own on when they are first asked so
            encoder(torch.zeros(1, 77, dtype=torch.long), output_hidden_states=True)
        for old in [old for old in _loaded if old not in _lent][: len(_loaded) - MOST + 1]:
            del _loaded[old]
        _loaded[key] = Loaded(modules, _fingerprints(modules))
    _lent.add(key)
    return _loaded[key].modules


def _fingerprints(modules: Modules) -> list[str]:
    networks: tuple[nn.Module, ...] = (modules.unet, modules.vae, *modules.text_encoders)
    return [fingerprint(network) for network in networks]
