"""Read TOML with the first reader that is available, and write flat TOML."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from typing import Any

from lib_lora.errors import ConfigError

MAX_DEPTH = 20
_READERS = ("tomllib", "tomli", "toml", "pip._vendor.tomli")  # Python 3.10 has no tomllib


def parse_toml(text: str) -> dict[str, Any]:
    """`text` as a dictionary, parsed by Python's own reader, an installed one, or the one inside pip."""
    for name in _READERS:
        try:
            reader = importlib.import_module(name)
        except ImportError:
            continue
        if _has_deep_keys(text):
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        found: dict[str, Any] = reader.loads(text)
        return found
    raise ConfigError(["Settings file (config): this Python cannot read TOML; install tomli, or use a JSON file."])


def _has_deep_keys(text: str) -> bool:
    """Whether a key such as a.b.c has too many parts. The readers' memory grows with their square: 100 KB exhaust it."""
    parts = 0
    for part in text.split("."):
        inside = part.strip(" \t")
        is_key = (
            "\n" not in inside and inside != "" and (any(c in inside for c in "\"'") or not re.search(r"[\s=,{}\[\]]", inside))
        )
        parts = parts + 1 if is_key else 0
        if parts > MAX_DEPTH:
            return True
    return False


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
