"""Options -> gradio components, and their values -> raw settings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import gradio as gr

from lib_lora.config.groups import all_options
from lib_lora.config.optimizer_specs import OPTIMIZERS
from lib_lora.config.options import Option, field_value
from lib_lora.data.captions import lines_of
from lib_lora.errors import ConfigError
from lib_lora.paths import pasted

CHANGED = "trainLora.report.filled"  # JavaScript that renews the report
# JavaScript fetches the key; inputs are passed on without preprocessing until the key is checked
WITH_KEY: dict[str, Any] = {"_js": "trainLora.guard.withKey", "show_progress": "hidden", "preprocess": False}


def form_options(place: str) -> list[Option]:
    """The options of one part of the form."""
    return [opt for opt in all_options() if opt.declaration.place == place]


def basic_rows() -> list[list[Option]]:
    """The basic options in rows."""
    ordered = sorted(form_options("basic"), key=lambda opt: opt.declaration.row)
    return [list(row) for _, row in itertools.groupby(ordered, lambda opt: opt.declaration.row[0])]


def component(opt: Option) -> Any:
    """The component for one option, with label, help, bounds and choices from its declaration."""
    declared = opt.declaration
    common = {"label": declared.label, "info": declared.help, "elem_id": f"train_lora_{opt.name}"}
    if opt.type is bool:
        return gr.Checkbox(value=opt.default, **common)
    if declared.suggestions:
        return gr.Dropdown(choices=installed_suggestions(opt), value=opt.default, allow_custom_value=True, **common)
    if opt.choices is not None:
        return gr.Dropdown(choices=list(opt.choices), value=opt.default, **common)
    if declared.slider:
        low, high = declared.between or (None, None)
        return gr.Slider(minimum=low, maximum=high, step=declared.slider, value=opt.default, **common)
    if opt.type is int:
        return gr.Number(value=opt.default, **common)
    if opt.type is float:  # a text field: number fields round 0.00005 in some browsers, and hide what is wrong
        return gr.Textbox(value=field_value(opt, opt.default), max_lines=1, placeholder=declared.unset, **common)
    lines = 1 if opt.type is tuple else declared.lines  # the field of a list grows with its content
    value, placeholder = field_value(opt, opt.default), declared.placeholder
    return gr.Textbox(value=value, lines=lines, max_lines=declared.lines, placeholder=placeholder, **common)


def installed_suggestions(opt: Option) -> list[str]:
    """The suggestions of `opt` that work with the installed packages; others may be typed, and are then explained."""
    return [name for name in opt.declaration.suggestions if name not in OPTIMIZERS or OPTIMIZERS[name].installed()]


def settings_from(options: Sequence[Option], values: Sequence[Any]) -> dict[str, Any]:
    """Option name -> value of its component; an empty number field is invalid unless its option allows empty.

    Raises:
        ConfigError: the values cannot be those of the components of `options`.
    """
    if len(values) < len(options):
        raise ConfigError([f"The page sent {len(values)} values for {len(options)} fields; reload it."])
    flat = dict(zip((opt.name for opt in options), values))
    odd = [opt.title for opt in options if not isinstance(flat[opt.name], (str, int, float, bool, type(None)))]
    if odd:
        raise ConfigError(
            [f"{title}: the page sent something other than text, a number, or true or false; reload it." for title in odd]
        )
    return {opt.name: _held(opt, flat[opt.name]) for opt in options}


def _held(opt: Option, value: Any) -> Any:
    if opt.type not in (str, tuple):
        return value
    text = "" if value is None else str(value)
    if opt.type is str or opt.declaration.lines <= 1:
        return text
    return tuple(line for line in map(pasted, lines_of(text)) if line)  # without the quotes that file managers put around paths
