"""Where a line of a text ends: at \\n, \\r\\n or \\r alone, as for a file that is opened as text (and so for sd-scripts).

`str.splitlines` ends one at ten further characters, which stand in the middle of captions that were copied from pages.
"""

from __future__ import annotations


def lines_of(text: str) -> list[str]:
    """The lines of `text` without their ends; none of an empty text."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]
