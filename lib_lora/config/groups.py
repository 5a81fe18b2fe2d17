"""THE list of options: one frozen dataclass per group, composed into `TrainConfig`.

To add an option, add a field here and use it in the room it belongs to; form, command line, validation, kohya import and
the documents follow. Names are unique over all groups.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.data import DataConfig
from lib_lora.config.embedding import EmbeddingConfig
from lib_lora.config.objective import ObjectiveConfig
from lib_lora.config.optimizer import OptimizerConfig
from lib_lora.config.options import Option, bounds_problem, options_of, parse_typed, shown
from lib_lora.config.precision import PrecisionConfig
from lib_lora.config.reading import is_read
from lib_lora.config.run import RunConfig
from lib_lora.config.text import TextConfig
from lib_lora.errors import ConfigError, Problem


def _group(cls: type, title: str) -> Any:
    """A group of options; `title` stands above it in the form and in the documents."""
    return field(default_factory=cls, metadata={"title": title})


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run. Never changed after validation; derived numbers live in the plan."""

    data: DataConfig = _group(DataConfig, "Images and buckets")
    text: TextConfig = _group(TextConfig, "Captions")
    adapter: AdapterConfig = _group(AdapterConfig, "LoRA")
    embedding: EmbeddingConfig = _group(EmbeddingConfig, "Embedding of the trigger word")
    optimizer: OptimizerConfig = _group(OptimizerConfig, "Learning")
    objective: ObjectiveConfig = _group(ObjectiveConfig, "Loss and noise")
    precision: PrecisionConfig = _group(PrecisionConfig, "Number formats")
    run: RunConfig = _group(RunConfig, "Run")

    def value(self, opt: Option) -> Any:
        """What this configuration holds for `opt`."""
        return getattr(getattr(self, opt.group), opt.name)

    def to_flat(self) -> dict[str, Any]:
        """Option name -> value, ready for JSON."""
        return {opt.name: self.value(opt) for opt in all_options()}


# looks at more than one value
Rule = Callable[[TrainConfig], "Problem | None"]


def all_options() -> list[Option]:
    """Every option of every group, in the order of declaration."""
    return list(_options())


@functools.cache
def _options() -> tuple[Option, ...]:
    return tuple(opt for group in dataclasses.fields(TrainConfig) for opt in options_of(group.name, _group_class(group.name)))


def group_titles() -> dict[str, str]:
    """Group name -> its title, in order."""
    return {group.name: group.metadata["title"] for group in dataclasses.fields(TrainConfig)}


def build_config(flat: Mapping[str, Any]) -> TrainConfig:
    """A configuration from option names and raw values; what is absent has its default.

    A number outside of its bounds is illegal where any part of the run would read it.

    Raises:
        ConfigError: with a sentence for every unknown name and every illegal value.
    """
    config, problems = read_config(flat)
    if problems:
        raise ConfigError(problems)
    return config


def read_config(flat: Mapping[str, Any]) -> tuple[TrainConfig, list[Problem]]:
    """As `build_config`, but values that are illegal are told, and have their defaults."""
    known = {opt.name: opt for opt in all_options()}
    problems = [Problem("", f"Option {shown(name)} does not exist.") for name in flat if name not in known]
    values, outside = dict[str, Any](), dict[str, Problem]()
    for name, raw in flat.items():
        if name in known:
            try:
                values[name] = parse_typed(known[name], raw)
            except ValueError as error:
                problems.append(Problem(name, str(error)))
                continue
            text = bounds_problem(known[name], values[name])
            outside.update({name: Problem(name, text)} if text else {})
    config = _grouped(values)
    read = {name: problem for name, problem in outside.items() if is_read(config, name)}
    if read:
        config = _grouped({name: value for name, value in values.items() if name not in read})
    return config, [*problems, *read.values()]


def _grouped(values: Mapping[str, Any]) -> TrainConfig:
    groups: dict[str, dict[str, Any]] = {group.name: {} for group in dataclasses.fields(TrainConfig)}
    for opt in all_options():
        if opt.name in values:
            groups[opt.group][opt.name] = values[opt.name]
    return TrainConfig(**{name: _group_class(name)(**members) for name, members in groups.items()})


def _group_class(name: str) -> type:
    classes: dict[str, type] = {
        "data": DataConfig,
        "text": TextConfig,
        "adapter": AdapterConfig,
        "embedding": EmbeddingConfig,
        "optimizer": OptimizerConfig,
        "objective": ObjectiveConfig,
        "precision": PrecisionConfig,
        "run": RunConfig,
    }
    return classes[name]
