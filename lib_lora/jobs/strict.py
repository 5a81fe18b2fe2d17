"""Values that every JSON reader accepts. Python writes NaN and Infinity, which browsers cannot read."""

from __future__ import annotations

import math
from typing import Any


def strict(value: Any) -> Any:
    """The nested value with None for numbers that are not finite, and "?" for characters that UTF-8 cannot encode.

    File names may hold such characters.
    """
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, (list, tuple)) else value
