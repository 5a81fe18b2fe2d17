"""Every optimizer by kohya's name: its class, arguments and properties. No package is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# tested with the webui's torch 2.1.2, except bitsandbytes, which needs CUDA; --no-deps keeps that torch
PINS = {
    "bitsandbytes": "bitsandbytes==0.45.5",
    "lion_pytorch": "lion-pytorch==0.2.3",
    "dadaptation": "dadaptation==3.2",
    "prodigyopt": "prodigyopt==1.1.2",
    "schedulefree": "schedulefree==1.4",
}


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer.

    Args:
        module: importable name.
        attribute: name of its class.
        fixed: arguments that are always passed.
        defaults: arguments that are passed unless the user sets them.
        needs_cuda: it has only CUDA kernels.
        one_rate: it finds the learning rate itself; only the first parameter group's factor counts.
        own_rate: the argument that makes it set its own learning rates, with its own schedule only.
        schedule_free: it needs no schedule; the weights that it trains differ from those to save.
    """

    module: str
    attribute: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs_cuda: bool = False
    one_rate: bool = False
    own_rate: str = ""
    schedule_free: bool = False

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def makes_its_own_rate(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it sets its own learning rates, given the user's `arguments`."""
        return bool({**self.defaults, **arguments}.get(self.own_rate))

    def installed(self) -> bool:
        """Whether its package is installed, without importing it."""
        try:
            return importlib.util.find_spec(self.package) is not None
        except ValueError:  # __main__ and the like
            return False


def _bitsandbytes(attribute: str, **more: Any) -> OptimizerSpec:
    return OptimizerSpec("bitsandbytes.optim", attribute, needs_cuda=True, **more)


def _adapting(module: str, attribute: str) -> OptimizerSpec:
    return OptimizerSpec(module, attribute, one_rate=True)


NESTEROV: dict[str, Any] = {"fixed": {"nesterov": True}, "defaults": {"momentum": 0.9}}

# in the order of the form; names as sd-scripts `get_optimizer`, which ignores case
OPTIMIZERS: dict[str, OptimizerSpec] = {
    "AdamW": OptimizerSpec("torch.optim", "AdamW"),
    "AdamW8bit": _bitsandbytes("AdamW8bit"),
    "PagedAdamW": _bitsandbytes("PagedAdamW"),
    "PagedAdamW8bit": _bitsandbytes("PagedAdamW8bit"),
    "PagedAdamW32bit": _bitsandbytes("PagedAdamW32bit"),
    "Lion": OptimizerSpec("lion_pytorch", "Lion"),
    "Lion8bit": _bitsandbytes("Lion8bit"),
    "PagedLion8bit": _bitsandbytes("PagedLion8bit"),
    "SGDNesterov": OptimizerSpec("torch.optim", "SGD", **NESTEROV),
    "SGDNesterov8bit": _bitsandbytes("SGD8bit", **NESTEROV),
    "AdaFactor": OptimizerSpec(
        "transformers.optimization", "Adafactor", defaults={"relative_step": True}, own_rate="relative_step"
    ),
    "Prodigy": _adapting("prodigyopt", "Prodigy"),
    "DAdaptation": _adapting("dadaptation.experimental", "DAdaptAdamPreprint"),
    "DAdaptAdamPreprint": _adapting("dadaptation.experimental", "DAdaptAdamPreprint"),
    "DAdaptAdaGrad": _adapting("dadaptation", "DAdaptAdaGrad"),
    "DAdaptAdam": _adapting("dadaptation", "DAdaptAdam"),
    "DAdaptAdan": _adapting("dadaptation", "DAdaptAdan"),
    "DAdaptAdanIP": _adapting("dadaptation.experimental", "DAdaptAdanIP"),
    "DAdaptLion": _adapting("dadaptation", "DAdaptLion"),
    "DAdaptSGD": _adapting("dadaptation", "DAdaptSGD"),
    "AdamWScheduleFree": OptimizerSpec("schedulefree", "AdamWScheduleFree", schedule_free=True),
    "RAdamScheduleFree": OptimizerSpec("schedulefree", "RAdamScheduleFree", schedule_free=True),
    "SGDScheduleFree": OptimizerSpec("schedulefree", "SGDScheduleFree", schedule_free=True),
}
_BY_LOWER = {name.lower(): spec for name, spec in OPTIMIZERS.items()}


def optimizer_spec(name: str) -> OptimizerSpec:
    """The optimizer called `name`: one of `OPTIMIZERS` in any case, a class of torch.optim, or `package.module.Class`."""
    known = _BY_LOWER.get(name.lower())
    if known is not None:
        return known
    module, _, attribute = name.rpartition(".")
    same = [spec for spec in OPTIMIZERS.values() if spec.attribute == attribute and spec.package == module.partition(".")[0]]
    if same and module:  # one of `OPTIMIZERS` under its full name
        return same[0]
    return OptimizerSpec(module or "torch.optim", attribute, schedule_free=name.lower().endswith("schedulefree"))


def full_name(schedule: str) -> str:
    """`package.module.Class` of a schedule class; a bare name is one of torch's."""
    return schedule if "." in schedule else f"torch.optim.lr_scheduler.{schedule}"


def code_of_others(settings: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The option and value that name a class which is neither torch's nor in `OPTIMIZERS`; None if there is none."""
    name, schedule = settings.get("optimizer"), settings.get("lr_scheduler_type")
    if isinstance(name, str) and name:
        spec = optimizer_spec(name)
        if spec not in OPTIMIZERS.values() and not f"{spec.module}.".startswith("torch.optim."):
            return "optimizer", name
    if isinstance(schedule, str) and schedule and not full_name(schedule).startswith("torch.optim.lr_scheduler."):
        return "lr_scheduler_type", schedule
    return None
