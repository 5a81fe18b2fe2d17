"""Untrusted JSON, read in bounded time and memory."""

from __future__ import annotations

import json
from typing import Any, NoReturn

MOST_DIGITS = 30  # of a whole number; Python 3.10 takes the square of its digits to read one, and holds all threads meanwhile
MOST_NESTED = 200_000  # lists and objects


def read_json(text: str, most_nested: int | None = None) -> Any:
    """The value of a text of bounded length.

    `most_nested`: of lists and objects together, counting brackets in texts; None for any number.

    Raises:
        ValueError: it is no JSON, has a number that is none or too long, or too many lists and objects.
        RecursionError: it is nested too deeply.
    """
    if most_nested is not None and text.count("[") + text.count("{") > most_nested:
        raise ValueError(f"it has more than {most_nested} lists and objects")
    return json.loads(text, parse_int=_whole, parse_constant=_no_number)


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has more than {MOST_DIGITS} digits")
    return int(digits)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
