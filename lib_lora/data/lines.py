"""Splits a text into lines at \\n, \\r\\n or \\r alone, as for a file opened in text mode (and so in sd-scripts).

`str.splitlines` also splits at ten other characters, which occur in captions copied from web pages.
"""

from __future__ import annotations


def lines_of(text: str) -> list[str]:
    """The lines of `text` without line ends; an empty text has none."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]
