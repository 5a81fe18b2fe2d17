"""What differs between settings, in the form's own words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.config.options import Option, decimal
from lib_lora.config.presets import Preset

ON, OFF, EMPTY = "on", "off", "empty"


class Difference(NamedTuple):
    """An option with its value before and after. `label`: of its field; `before`, `after`: as the field shows them."""

    name: str
    label: str
    before: str
    after: str


def in_words(opt: Option, value: Any) -> str:
    """`value` as the form shows it: no exponents, on or off for a tick, what an empty field means."""
    if value is None:
        return opt.declaration.unset or EMPTY
    if opt.type is bool:
        return ON if value else OFF
    if opt.type is float:
        return decimal(value)
    if opt.type is tuple:
        return ("\n" if opt.declaration.lines > 1 else " ").join(value) or EMPTY
    return str(value) or EMPTY


def differences(before: TrainConfig, after: TrainConfig, options: Iterable[Option] | None = None) -> tuple[Difference, ...]:
    """The options whose values differ, in the order of the form; `options`: those to compare, by default all."""
    compared = all_options() if options is None else options
    return tuple(
        Difference(opt.name, opt.declaration.label, in_words(opt, before.value(opt)), in_words(opt, after.value(opt)))
        for opt in compared
        if before.value(opt) != after.value(opt)
    )


def preset_options() -> list[Option]:
    """The options that a preset may set."""
    return [opt for opt in all_options() if opt.declaration.place != "none" and opt.declaration.set_by == "preset"]


def from_preset(preset: Preset | None, config: TrainConfig) -> tuple[Difference, ...]:
    """What of `config` differs from the preset; from the defaults without one. Names, images and files are not compared."""
    return differences(build_config(preset.settings() if preset else {}), config, preset_options())


def changed_by_preset(preset: Preset | None, config: TrainConfig) -> tuple[Difference, ...]:
    """What choosing the preset would change in `config`: its own values alone; without one, all that are not the defaults."""
    if preset is None:
        return differences(config, build_config({}), preset_options())
    own = preset.settings()
    chosen = [opt for opt in preset_options() if opt.name in own]
    return differences(config, build_config(own), chosen)
