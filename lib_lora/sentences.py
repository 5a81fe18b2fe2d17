"""How many sentences are told at once: a list that a person reads, and a page draws, has an end."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 50


def bounded(texts: Sequence[str], most: int = MOST) -> list[str]:
    """The first of `texts`, and how many more there are."""
    return [*texts[:most], *([f"… and {len(texts) - most} more."] if len(texts) > most else [])]
