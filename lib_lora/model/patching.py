"""Reversible changes to a borrowed model: freezing it, and replacing the `forward` of single modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextmanager
def frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Context manager: no parameter of `modules` requires grad, every module is in eval mode. Restores all flags on exit."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    requires_grad = [parameter.requires_grad for parameter in parameters]
    submodules = [submodule for module in modules for submodule in module.modules()]
    training = [submodule.training for submodule in submodules]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        for submodule in submodules:
            submodule.training = False
        yield
    finally:
        for parameter, flag in zip(parameters, requires_grad):
            parameter.requires_grad_(flag)
            parameter.grad = None
        for submodule, flag in zip(submodules, training):
            submodule.training = flag


@contextmanager
def others_aside(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Context manager that removes patched `forward`s of instances and hooks from `modules`, and restores them on exit."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    submodules = [submodule for module in modules for submodule in module.modules()]
    hooks = [(submodule, kind, getattr(submodule, kind)) for submodule in submodules for kind in kinds]
    hooks = [(submodule, kind, hung) for submodule, kind, hung in hooks if hung]
    patched = [submodule for submodule in submodules if "forward" in submodule.__dict__]
    try:
        for submodule, kind, _ in hooks:
            setattr(submodule, kind, OrderedDict())
        with forwards_replaced({submodule: MethodType(type(submodule).forward, submodule) for submodule in patched}):
            yield
    finally:
        for submodule, kind, hung in hooks:
            setattr(submodule, kind, hung)


@contextmanager
def forwards_replaced(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Context manager that sets `forward` of instances, not of classes. Restores an instance's earlier `forward` on exit."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, previous in before.items():
            module.__dict__.pop("forward", None)
            if previous is not None:
                module.forward = previous
