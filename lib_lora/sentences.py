"""The limit on the number of messages that are shown at once."""

from __future__ import annotations

from collections.abc import Sequence

MOST, NEWEST = 50, 10


def bounded(texts: Sequence[str], most: int = MOST, newest: int = NEWEST) -> list[str]:
    """At most `most` of `texts` with the last `newest`, and a line in the gap that says how many were omitted."""
    if len(texts) <= most:
        return list(texts)
    return [*texts[: most - newest], f"… and {len(texts) - most} more.", *texts[len(texts) - newest :]]
