"""How many sentences are told at once: a list that a person reads, and a page draws, has an end."""

from __future__ import annotations

from collections.abc import Sequence

MOST, NEWEST = 50, 10


def bounded(texts: Sequence[str], most: int = MOST, newest: int = NEWEST) -> list[str]:
    """At most `most` of `texts`, the `newest` among them; in the gap stands how many more there are."""
    if len(texts) <= most:
        return list(texts)
    return [*texts[: most - newest], f"… and {len(texts) - most} more.", *texts[len(texts) - newest :]]
