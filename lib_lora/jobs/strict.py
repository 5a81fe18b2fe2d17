"""What a page is sent: values that JSON has words for. Python would write NaN and Infinity, which no browser reads."""

from __future__ import annotations

import math
from typing import Any


def strict(value: Any) -> Any:
    """The same nested value with None for every number that is not finite, and every text as UTF-8 can write it.

    Names on a disk may be other bytes.
    """
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, (list, tuple)) else value
