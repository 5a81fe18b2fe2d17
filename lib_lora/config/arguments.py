"""Arguments of an optimizer or a schedule as people write them: `weight_decay=0.1 betas=(0.9,0.99)`."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

_NAME = r"[A-Za-z_]\w*"
_PART = rf"""\([^()]*\)|\[[^\[\]]*\]|"[^"]*"|'[^']*'|[^\s()\[\]"'=,]|,(?!\s*{_NAME}\s*=)"""  # a comma may end an argument
_ONE = re.compile(rf"({_NAME})\s*=\s*((?:{_PART})+)\s*")


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Name -> value; values are Python literals, or else texts.

    Raises:
        ValueError: with the part that is not of the form name=value.
    """
    found: dict[str, Any] = {}
    for text in texts:
        rest = text.strip()
        while rest:
            match = _ONE.match(rest)
            if not match:
                raise ValueError(rest)
            found[match[1]] = _value(match[2].rstrip(","))
            rest = rest[match.end() :].lstrip(", ")
    return found


def _value(text: str) -> Any:
    spelled = {"true": True, "false": False, "none": None}
    if text.lower() in spelled:
        return spelled[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
