"""All options: one frozen dataclass per group, composed into `TrainConfig`.

To add an option, add a field to its group and use it. Form, command line, validation, kohya's files, metadata, documents, and the
rules of hiding and resuming follow. Names are unique across groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.data import DataConfig
from lib_lora.config.embedding import EmbeddingConfig
from lib_lora.config.objective import ObjectiveConfig
from lib_lora.config.optimizer import OptimizerConfig
from lib_lora.config.options import Option, bounds_problem, options_of, parse_typed, shown
from lib_lora.config.precision import PrecisionConfig
from lib_lora.config.run import RunConfig
from lib_lora.config.text import TextConfig
from lib_lora.errors import ConfigError, Problem


def _group(cls: type, title: str) -> Any:
    """A group of options; `title` is its heading in the form and in the documents."""
    return field(default_factory=cls, metadata={"title": title})


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run. Numbers derived from them are in the plan."""

    data: DataConfig = _group(DataConfig, "Images and buckets")
    text: TextConfig = _group(TextConfig, "Captions")
    adapter: AdapterConfig = _group(AdapterConfig, "LoRA")
    embedding: EmbeddingConfig = _group(EmbeddingConfig, "Trigger word embedding")
    optimizer: OptimizerConfig = _group(OptimizerConfig, "Optimizer")
    objective: ObjectiveConfig = _group(ObjectiveConfig, "Loss and noise")
    precision: PrecisionConfig = _group(PrecisionConfig, "Precision")
    run: RunConfig = _group(RunConfig, "Run")

    def value(self, opt: Option) -> Any:
        """The value of `opt`."""
        return getattr(getattr(self, opt.group), opt.name)

    def to_flat(self) -> dict[str, Any]:
        """Option name -> value, ready for JSON."""
        return {opt.name: self.value(opt) for opt in all_options()}


# a check of several values
Rule = Callable[[TrainConfig], "Problem | None"]


T = TypeVar("T")


class FollowsOptions(Generic[T]):
    """A function without arguments, cached until the list of options changes."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._of: type | None = None

    def __call__(self) -> T:
        """The result for the current list of options."""
        if self._of is not TrainConfig:
            self._answer = self._function()
            self._of = TrainConfig
        return self._answer


@FollowsOptions
def options_by_name() -> dict[str, Option]:
    """Every option of every group by its name, in the order of declaration."""
    return {opt.name: opt for group, cls in _group_classes().items() for opt in options_of(group, cls)}


def all_options() -> list[Option]:
    """Every option of every group, in the order of declaration."""
    return list(options_by_name().values())


def title(name: str) -> str:
    """Label and name of the option `name`, as messages show it: `Rank (rank)`."""
    return options_by_name()[name].title


def problem(option: str, text: str) -> Problem:
    """The problem of `option` with its title before `text`."""
    return Problem(option, f"{title(option)}: {text}")


def is_read(config: TrainConfig, name: str) -> bool:
    """Whether any part of a run with these settings reads the option `name`."""
    opt = options_by_name()[name]
    return opt.declaration.read_if is None or opt.declaration.read_if.holds(getattr(config, opt.group))


def unread(config: TrainConfig) -> list[tuple[str, str]]:
    """Name and reason of every option that is not read, if the reason is not obvious."""
    titles = {opt.name: opt.title for opt in all_options()}
    reasons = {opt.name: opt.declaration.read_if.since for opt in all_options() if opt.declaration.read_if}
    return [(name, since.format_map(titles)) for name, since in reasons.items() if since and not is_read(config, name)]


def group_titles() -> dict[str, str]:
    """Group name -> its title, in order."""
    return {group.name: group.metadata["title"] for group in dataclasses.fields(TrainConfig)}


def build_config(flat: Mapping[str, Any]) -> TrainConfig:
    """A configuration from option names and raw values; absent options have their defaults.

    A number outside its bounds is illegal if the run reads it.

    Raises:
        ConfigError: with a sentence for every unknown name and every illegal value.
    """
    config, problems = read_config(flat)
    if problems:
        raise ConfigError(problems)
    return config


def read_config(flat: Mapping[str, Any]) -> tuple[TrainConfig, list[Problem]]:
    """As `build_config`, but illegal values are returned as problems, and replaced by defaults."""
    known = options_by_name()
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
    groups: dict[str, dict[str, Any]] = {name: {} for name in _group_classes()}
    for opt in all_options():
        if opt.name in values:
            groups[opt.group][opt.name] = values[opt.name]
    return TrainConfig(**{name: _group_classes()[name](**members) for name, members in groups.items()})


def _group_classes() -> dict[str, type]:
    return {group.name: cast(type, group.default_factory) for group in dataclasses.fields(TrainConfig)}
