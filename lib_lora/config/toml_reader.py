"""TOML text -> a dictionary, with whatever reader there is."""

from __future__ import annotations

import importlib
import re
from typing import Any

from lib_lora.errors import ConfigError

MAX_DEPTH = 20
_READERS = ("tomllib", "tomli", "toml", "pip._vendor.tomli")  # Python 3.10 has none of its own


def parse_toml(text: str) -> dict[str, Any]:
    """TOML with the first reader that is there: Python's own, an installed one, or the one inside pip."""
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
    """Whether a key such as a.b.c has too many parts. The readers need memory by the square of them: 100 KB take all there is."""
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
