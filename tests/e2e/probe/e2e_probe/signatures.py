"""Are the webui's names as the doubles of the tests say?"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any


def problems(expected: dict[str, dict[str, Any]]) -> list[str]:
    """Sentences about names that are missing, or whose parameters differ.

    Args:
        expected: module -> dotted name in it -> its parameters, or None where it is not called.
    """
    found = []
    for module_name, names in expected.items():
        module = sys.modules.get(module_name) or importlib.import_module(module_name)
        for name, wanted in names.items():
            try:
                value = _reach(module, name)
            except AttributeError as error:
                found.append(f"{module_name}.{name} does not exist ({error})")
                continue
            if wanted is None:
                continue
            if not callable(value):
                found.append(f"{module_name}.{name} cannot be called")
            elif (actual := list(inspect.signature(value).parameters)) != wanted:
                found.append(f"{module_name}.{name} takes {actual}, not {wanted}")
    return found


def _reach(owner: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        owner = getattr(owner, part)
    return owner
