"""Loads a class of a package by name: its source is checked as text, then it is imported and checked again."""

from __future__ import annotations

import importlib
from typing import Any

from lib_lora.config.classes import Kind, class_problem
from lib_lora.errors import ConfigError


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
