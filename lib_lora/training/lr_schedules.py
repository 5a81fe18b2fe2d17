"""Learning rate schedules: factors by step, under sd-scripts' names (`get_scheduler_fix`), and classes of packages.

A class by name is first checked in its source as text, then imported and checked again.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler

from lib_lora.config.classes import Kind, class_problem
from lib_lora.config.keyword_arguments import parse_arguments
from lib_lora.config.optimizer_specs import full_name, optimizer_spec
from lib_lora.config.settled import SettledOptimizer
from lib_lora.errors import ConfigError

Factor = Callable[[int], float]


def make_scheduler(config: SettledOptimizer, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """The learning rate schedule over `steps` updates.

    Raises:
        ConfigError: lr_scheduler_type is not a schedule class, or does not take its arguments.
    """
    if optimizer_spec(config.optimizer).schedule_free:
        return lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    if config.lr_scheduler_type:
        return _named(config, optimizer)
    if optimizer_spec(config.optimizer).makes_its_own_rate(optimizer.defaults):
        from transformers.optimization import AdafactorSchedule

        return AdafactorSchedule(optimizer, config.first_rate)
    return lr_scheduler.LambdaLR(optimizer, factor_by_step(config, steps))


def factor_by_step(config: SettledOptimizer, steps: int) -> Factor:
    """Step (from 0) -> factor on the learning rate."""
    given = 0 if config.lr_scheduler == "piecewise_constant" else config.lr_warmup_steps  # step_rules are complete
    warmup, decay = in_steps(given, steps), in_steps(config.lr_decay_steps, steps)
    rest = max(1, steps - warmup)
    least, cycles = config.lr_scheduler_min_lr_ratio, config.lr_scheduler_num_cycles
    timescale = config.lr_scheduler_timescale or warmup or 10000

    def done(step: int) -> float:
        """Share of the steps after the warm-up that are done; may exceed 1."""
        return (step - warmup) / rest

    def stable_then_decay(step: int) -> float:
        falling = steps - decay
        return 1.0 if step < falling else _above(_cosine((step - falling) / max(1, decay), cycles / 2), least)

    after_warmup: dict[str, Factor] = {
        **dict.fromkeys(("constant", "constant_with_warmup", "adafactor"), lambda step: 1.0),
        "linear": lambda step: max(0.0, 1 - done(step)),
        "cosine": lambda step: max(0.0, _cosine(done(step), 0.5)),
        "cosine_with_restarts": lambda step: 0.0 if done(step) >= 1 else max(0.0, _cosine(cycles * done(step) % 1.0, 0.5)),
        "polynomial": lambda step: _polynomial(done(step), config.lr_scheduler_power, config.first_rate),
        "cosine_with_min_lr": lambda step: max(0.0, _above(_cosine(done(step), cycles / 2), least)),
        "inverse_sqrt": lambda step: 1 / math.sqrt((step + timescale - warmup) / timescale),
        "warmup_stable_decay": stable_then_decay,
        "piecewise_constant": _piecewise(config) if config.lr_scheduler == "piecewise_constant" else lambda step: 1.0,
    }
    later = after_warmup[config.lr_scheduler]
    floor = least if config.lr_scheduler == "warmup_stable_decay" else 0.0
    return lambda step: _above(step / max(1, warmup), floor) if step < warmup else later(step)


def in_steps(value: float, steps: int) -> int:
    """`value` as a number of steps; below 1 it is a share of `steps`."""
    return int(value * steps) if value < 1 else int(value)


def _cosine(share: float, cycles: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * cycles * 2 * share))


def _above(factor: float, least: float) -> float:
    """`factor` mapped from 0 … 1 to least … 1."""
    return factor * (1 - least) + least


def _polynomial(share: float, power: float, rate: float, end: float = 1e-7) -> float:
    """Falls from `rate` to `end` (both learning rates, as transformers' default), then stays."""
    return end / rate if share > 1 else ((rate - end) * (1 - share) ** power + end) / rate


def _piecewise(config: SettledOptimizer) -> Factor:
    """`1:10,0.1:20,0.01`: 1 before step 10, 0.1 before step 20, then 0.01 (diffusers' piecewise_constant)."""
    *rules, last = str(parse_arguments(config.lr_scheduler_args).get("step_rules", "1")).split(",")
    try:
        pairs = [(int(limit), float(factor)) for factor, limit in (rule.split(":") for rule in rules)]
        final = float(last)
        if not all(math.isfinite(factor) for factor in (final, *(factor for _, factor in pairs))):
            raise ValueError("no number")
    except ValueError as error:
        raise ConfigError([
            "Schedule arguments (lr_scheduler_args): piecewise_constant needs step_rules, such as '1:100,0.1:200,0.01'."
        ]) from error  # fmt: skip
    return lambda step: next((factor for limit, factor in pairs if step < limit), final)


def _named(config: SettledOptimizer, optimizer: torch.optim.Optimizer) -> Any:
    """A schedule class by name."""
    title = f"Other schedule (lr_scheduler_type): {config.lr_scheduler_type!r}"
    cls = named_class(title, full_name(config.lr_scheduler_type), "schedule", lr_scheduler.LRScheduler)
    try:
        return cls(optimizer, **parse_arguments(config.lr_scheduler_args))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a library may raise anything for wrong arguments
        raise ConfigError([f"{title} does not take these Schedule arguments (lr_scheduler_args): {error}."]) from error


def named_class(title: str, name: str, kind: Kind, root: type) -> Any:
    """The class `name` (package.module.Class), which is a subclass of `root`.

    Args:
        title: the option's label, name and value, with which messages start.
        name: the full name.
        kind: checked before the import.
        root: base class, checked after the import.

    Raises:
        ConfigError: the class is missing, cannot be imported, or is not of `kind`.
    """
    problem = class_problem(name, kind)
    if problem:
        raise ConfigError([f"{title} {problem}."])
    found = loaded(title, *name.rpartition(".")[::2])
    if not (isinstance(found, type) and issubclass(found, root)):
        raise ConfigError([f"{title} is not a torch {kind} (a subclass of {root.__name__})."])
    return found


def loaded(title: str, module: str, attribute: str) -> Any:
    """Import a module and return its `attribute`.

    Raises:
        ConfigError: any error of the import, including SystemExit.
    """
    try:
        return getattr(importlib.import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - reported, and the run does not start
        raise ConfigError([f"{title} cannot be loaded ({type(error).__name__}: {error}); choose another."]) from error
