"""What is odd or wrong, and what would mend it: a problem with values for a button."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lib_lora.config.groups import TrainConfig, options_by_name, read_config
from lib_lora.config.options import in_words
from lib_lora.errors import Problem


class Judgement(Problem):
    """A sentence on settings.

    `mend`: option -> value that ends it; empty if no setting does. `words`: of its button; empty if that says the values.
    """

    mend: dict[str, Any]
    words: str

    def __new__(cls, option: str, text: str, mend: Mapping[str, Any], words: str = "") -> Judgement:
        judgement = str.__new__(cls, text)
        judgement.option = option
        judgement.mend = dict(mend)
        judgement.words = words
        return judgement

    def button(self, say: Callable[[str], str] = str) -> str:
        """What its button says; empty if there is none. `say` translates a text."""
        return say(self.words) if self.words else values_in_words(self.mend, say)


def values_in_words(mend: Mapping[str, Any], say: Callable[[str], str] = str) -> str:
    """`Epochs: 10, Repeats: 15`; empty for no values. `say` translates a text."""
    options = options_by_name()
    return ", ".join(
        f"{say(options[name].declaration.label)}: {say(in_words(options[name], value))}" for name, value in mend.items()
    )


def changed(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """`config` with other values; illegal ones are replaced by defaults."""
    return read_config({**config.to_flat(), **values})[0]


def only_new(config: TrainConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that differ from `config`."""
    options = options_by_name()
    return {name: value for name, value in values.items() if config.value(options[name]) != value}


def first_that_helps(
    config: TrainConfig, candidates: Iterable[Mapping[str, Any]], is_mended: Callable[[TrainConfig], bool]
) -> dict[str, Any]:
    """The first of the candidates that mends `config`, without values that it has already; empty if none does."""
    for values in candidates:
        new = only_new(config, values)
        if new and is_mended(changed(config, new)):
            return new
    return {}
