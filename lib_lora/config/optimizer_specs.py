"""Every optimizer by kohya's name: where it comes from, and what is special about it. Nothing is imported here."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# tried with the webui's torch 2.1.2, but for bitsandbytes, which needs CUDA and is untried; --no-deps leaves that torch as it is
PINS = {
    "bitsandbytes": "bitsandbytes==0.45.5",
    "lion_pytorch": "lion-pytorch==0.2.3",
    "dadaptation": "dadaptation==3.2",
    "prodigyopt": "prodigyopt==1.1.2",
    "schedulefree": "schedulefree==1.4",
}


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer.

    Args:
        module: importable name.
        attribute: the class in it.
        fixed: arguments that are always given.
        defaults: arguments that are given unless the user does.
        needs_cuda: it has kernels for CUDA alone.
        one_rate: it finds the learning rate itself; only the first group's factor counts.
        own_rate: the argument with which it makes its own rates and takes no other, nor any schedule but its own.
        schedule_free: it needs no schedule, and holds other weights while it trains than those to keep.
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
        """Whether it does with the user's `arguments`."""
        return bool({**self.defaults, **arguments}.get(self.own_rate))

    def installed(self) -> bool:
        """Whether its package is there; it is not imported."""
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
    """The optimizer that `name` means: one of the list in any case, a class of torch.optim, or `package.module.Class`."""
    known = _BY_LOWER.get(name.lower())
    if known is not None:
        return known
    module, _, attribute = name.rpartition(".")
    same = [spec for spec in OPTIMIZERS.values() if spec.attribute == attribute and spec.package == module.partition(".")[0]]
    if same and module:  # one of the list under its full name
        return same[0]
    return OptimizerSpec(module or "torch.optim", attribute, schedule_free=name.lower().endswith("schedulefree"))


def full_name(schedule: str) -> str:
    """`package.module.Class` of a schedule that is named by hand; a name alone is one of torch's."""
    return schedule if "." in schedule else f"torch.optim.lr_scheduler.{schedule}"


def code_of_others(settings: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The option and value that bring in code of a package which is neither torch's own nor one of the list's; None for none."""
    name, schedule = settings.get("optimizer"), settings.get("lr_scheduler_type")
    if isinstance(name, str) and name:
        spec = optimizer_spec(name)
        if spec not in OPTIMIZERS.values() and not f"{spec.module}.".startswith("torch.optim."):
            return "optimizer", name
    if isinstance(schedule, str) and schedule and not full_name(schedule).startswith("torch.optim.lr_scheduler."):
        return "lr_scheduler_type", schedule
    return None
