"""A class of a package, by its name: looked at as text first, then imported, then looked at again."""

from __future__ import annotations

import importlib
from typing import Any

from lib_lora.config.classes import Kind, class_problem
from lib_lora.errors import ConfigError


def named_class(title: str, name: str, kind: Kind, root: type) -> Any:
    """The class `name` (package.module.Class), which is a subclass of `root`.

    Args:
        title: the option's label, name and value, as its sentences begin.
        name: in full.
        kind: what it must be before it is imported.
        root: what it must come from once it is.

    Raises:
        ConfigError: it is not known to be one, cannot be imported, or is none after all.
    """
    problem = class_problem(name, kind)
    if problem:
        raise ConfigError([f"{title} {problem}."])
    found = loaded(title, *name.rpartition(".")[::2])
    if not (isinstance(found, type) and issubclass(found, root)):
        raise ConfigError([f"{title} is not a torch {kind} (a subclass of {root.__name__})."])
    return found


def loaded(title: str, module: str, attribute: str) -> Any:
    """`attribute` of a module, which is imported.

    Raises:
        ConfigError: whatever that leads to; code of a package may end a program, too (SystemExit).
    """
    try:
        return getattr(importlib.import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - told, and the run does not begin
        raise ConfigError([f"{title} cannot be loaded ({type(error).__name__}: {error}); choose another."]) from error
