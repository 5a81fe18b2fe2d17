"""Write flat TOML: numbers, booleans, strings, lists; sections, and lists of tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_value(value: Any) -> str:
    """A value as TOML. JSON strings are TOML's basic strings, except for DEL and characters beyond the basic plane."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_table(values: Mapping[str, Any]) -> str:
    """`key = value` lines."""
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items())
