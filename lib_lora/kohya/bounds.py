"""Numbers of a file outside their options' bounds: refused if a run with these settings reads them, else left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lib_lora.config.groups import all_options, build_config, is_read, unread
from lib_lora.config.options import bounds_problem
from lib_lora.errors import ConfigError
from lib_lora.kohya.known import Verdict


def out_of_bounds(
    flat: Mapping[str, Any], closing: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> dict[str, tuple[Verdict, str]]:
    """Option -> verdict and sentence, for every number outside its bounds.

    Args:
        flat: option name -> value.
        closing: returns the options that follow from the others, which also decide whether an option is read.
    """
    problems = {opt.name: bounds_problem(opt, flat[opt.name]) for opt in all_options() if opt.name in flat}
    outside = {name: problem for name, problem in problems.items() if problem}
    if not outside:
        return {}
    rest = {name: value for name, value in flat.items() if name not in outside}
    try:
        config = build_config({**rest, **closing(rest)})
    except ConfigError:  # an error of derived options is reported with them
        config = build_config(rest)
    since = dict(unread(config))
    return {
        name: ("not_supported", problem)
        if is_read(config, name)
        else ("ignored", f"No effect, because {since.get(name, 'nothing reads it')}.")
        for name, problem in outside.items()
    }
