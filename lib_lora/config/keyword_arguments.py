"""Parse arguments of an optimizer or a schedule: `weight_decay=0.1 betas=(0.9,0.99)`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lib_lora.config.literals import MAX_CHARACTERS, LiteralError, literal

_NAME = re.compile(r"[A-Za-z_]\w*")
_QUOTES, _OPEN, _CLOSE = "\"'", "([{", ")]}"


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Name -> value, in linear time. Values that are not literals are strings.

    Raises:
        ValueError: with the part that is not of the form name=value.
        TooMuchError: they are too long, or their values are nested too deep.
    """
    if sum(len(text) for text in texts) > MAX_CHARACTERS:
        raise TooMuchError(f"they are longer than {MAX_CHARACTERS} characters")
    found: dict[str, Any] = {}
    for text in texts:
        position = _skip(text, 0)
        while position < len(text):
            name, start = _name(text, position)
            end = _end_of_value(text, start)
            found[name] = _value(text[start:end].strip().rstrip(","))
            position = _skip(text, end, commas=True)
    return found


class TooMuchError(ValueError):
    """The arguments are too long or nested too deep; the text says which."""


def argument_problem(texts: Sequence[str]) -> str | None:
    """What is wrong with arguments, as the end of a sentence; None if they can be parsed."""
    try:
        parse_arguments(texts)
    except TooMuchError as error:
        return f"{error}; shorten them."
    except ValueError as error:
        part = str(error)
        return f"{part[:80] + '…' if len(part) > 80 else part!r} does not have the form name=value."
    return None


def split_arguments(text: str) -> list[str]:
    """Split `a=1 b=(2, 3)` into its parts, in one pass; spaces inside a value stay."""
    starts = [0]
    before = 0  # after the last equals sign; a name begins here at the earliest
    while (equals := text.find("=", before)) >= 0:
        name = _name_before(text, before, equals)
        if name is not None:
            starts.append(name)
        before = equals + 1
    parts = [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)])]
    return [part for part in parts if part]


def _name_before(text: str, least: int, equals: int) -> int | None:
    """Start of the name before an equals sign; None if no space precedes it."""
    end = equals
    while end > least and text[end - 1].isspace():
        end -= 1
    start = end
    while start > least and (text[start - 1].isalnum() or text[start - 1] == "_"):
        start -= 1
    named = start < end and (text[start] == "_" or (text[start].isascii() and text[start].isalpha()))
    return start if named and start > least and text[start - 1].isspace() else None


def _skip(text: str, position: int, *, commas: bool = False) -> int:
    while position < len(text) and (text[position].isspace() or (commas and text[position] == ",")):
        position += 1
    return position


def _name(text: str, position: int) -> tuple[str, int]:
    """A name, and the start of its value."""
    match = _NAME.match(text, position)
    equals = _skip(text, match.end()) if match else position
    if not match or text[equals : equals + 1] != "=":
        raise ValueError(text[position:])
    return match[0], _skip(text, equals + 1)


def _end_of_value(text: str, start: int) -> int:
    """End of a value: outside brackets it ends at a space, or at a comma before a name."""
    position, closing = start, []
    while position < len(text):
        character = text[position]
        if character in _QUOTES:
            position = _end_of_quote(text, position, start)
            continue
        if character in _OPEN:
            closing.append(_CLOSE[_OPEN.index(character)])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character in "=" + _CLOSE and not (closing and character == "="):
            raise ValueError(text[start:])
        elif not closing and (character.isspace() or (character == "," and _is_name_next(text, position + 1))):
            break
        position += 1
    if closing or position == start:
        raise ValueError(text[start:])
    return position


def _end_of_quote(text: str, position: int, start: int) -> int:
    """Position after the quote that closes the one at `position`."""
    quote, position = text[position], position + 1
    while position < len(text) and text[position] != quote:
        position += 2 if text[position] == "\\" else 1
    if position >= len(text):
        raise ValueError(text[start:])
    return position + 1


def _is_name_next(text: str, position: int) -> bool:
    match = _NAME.match(text, _skip(text, position))
    equals = _skip(text, match.end()) if match else position
    return match is not None and text[equals : equals + 1] == "="


def _value(text: str) -> Any:
    spelled = {"true": True, "false": False, "none": None}
    if text.lower() in spelled:
        return spelled[text.lower()]
    try:
        return literal(text)
    except LiteralError as error:
        if error.is_too_much:
            raise TooMuchError(str(error)) from error
        return text
