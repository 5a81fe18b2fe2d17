"""Settings while they are derived: what the user pinned, and what was chosen so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_lora.config.groups import TrainConfig, is_read, options_by_name, read_config
from lib_lora.config.presets import Choice


class Draft:
    """Pinned and chosen settings; a pinned one is never chosen. Pinned values that are illegal count as defaults."""

    def __init__(self, pinned: Mapping[str, Any]) -> None:
        self._pinned = {name: value for name, value in pinned.items() if name in options_by_name()}
        self._chosen: dict[str, Choice] = {}
        self.config = read_config(self._pinned)[0]

    def choose(self, name: str, value: Any, why: str) -> None:
        """Set the option `name`, unless it is pinned."""
        if name not in self._pinned:
            self._chosen[name] = Choice(name, value, why)
            self.config = read_config(self._flat())[0]

    def is_pinned(self, *names: str) -> bool:
        """Whether any of the options is pinned."""
        return any(name in self._pinned for name in names)

    def tried(self, values: Mapping[str, Any]) -> TrainConfig:
        """The configuration with `values`, as far as they are not pinned."""
        return read_config({**self._flat(), **values, **self._pinned})[0]

    def choices(self) -> tuple[Choice, ...]:
        """The choices that a run reads, in the order of the options."""
        names = [name for name in options_by_name() if name in self._chosen]
        return tuple(self._chosen[name] for name in names if is_read(self.config, name))

    def _flat(self) -> dict[str, Any]:
        return {**{name: choice.value for name, choice in self._chosen.items()}, **self._pinned}
