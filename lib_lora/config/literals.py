"""Parser of Python literals: numbers, strings, True, False, None; tuples, lists, dictionaries.

`ast.literal_eval` is not used: Python's parser recurses for each operator of `1+1+1…` until the C stack overflows.
"""

from __future__ import annotations

import re
from typing import Any

MAX_CHARACTERS = 16_384  # of all arguments of one option
MAX_DEPTH = 8
MAX_DIGITS = 64
_NUMBER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|(?:\d[\d_]*\.?|\.\d)[\d_]*(?:[eE][+-]?\d+)?)", re.ASCII)
_WORDS = re.compile(r"[A-Za-z]+")
_CONSTANTS = {"True": True, "False": False, "None": None}
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t", "r": "\r"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class LiteralError(ValueError):
    """The text is not a literal. `is_too_much`: it is too long or nested too deep to be read."""

    def __init__(self, text: str, *, is_too_much: bool = False) -> None:
        super().__init__(text)
        self.is_too_much = is_too_much


def literal(text: str) -> Any:
    """The value of `text`, read in one pass.

    Raises:
        LiteralError: it is not a literal, too long or nested too deep.
    """
    if len(text) > MAX_CHARACTERS:
        raise LiteralError(f"a value is longer than {MAX_CHARACTERS} characters", is_too_much=True)
    reader = _Reader(text)
    value = reader.items(MAX_DEPTH)
    if reader.position != len(text):
        raise LiteralError(text)
    return value


class _Reader:
    """A text and the position of its next value."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def items(self, depth: int) -> Any:
        """A value, or a tuple without brackets: several values separated by commas."""
        first = self._value(depth)
        if self._peek() != ",":
            return first
        rest = self._until("", depth)
        return (first, *rest)

    def _peek(self) -> str:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1
        return self.text[self.position : self.position + 1]

    def _value(self, depth: int) -> Any:
        character = self._peek()
        if character in _CLOSING and character:
            if depth == 0:
                raise LiteralError(f"a value is nested more than {MAX_DEPTH} levels deep", is_too_much=True)
            self.position += 1
            return self._inside(character, depth - 1)
        if character in ("'", '"'):
            parts = [self._string(character)]
            while (following := self._peek()) in ("'", '"'):  # adjacent strings are joined
                parts.append(self._string(following))
            return "".join(parts)
        word = _WORDS.match(self.text, self.position)
        if word and word[0] in _CONSTANTS:
            self.position = word.end()
            return _CONSTANTS[word[0]]
        return self._number()

    def _inside(self, opened: str, depth: int) -> Any:
        closed = _CLOSING[opened]
        if self._peek() == closed:
            self.position += 1
            return {"(": (), "[": [], "{": {}}[opened]
        if opened == "{":
            return self._dictionary(depth)
        first = self._value(depth)
        several = self._peek() == ","
        rest = self._until(closed, depth) if several else []
        if self._peek() != closed:
            raise LiteralError(self.text)
        self.position += 1
        if opened == "[":
            return [first, *rest]
        return (first, *rest) if several else first

    def _until(self, closed: str, depth: int) -> list[Any]:
        """The values after commas; a trailing comma is allowed."""
        found: list[Any] = []
        while self._peek() == ",":
            self.position += 1
            if self._peek() == closed:
                break
            found.append(self._value(depth))
        return found

    def _dictionary(self, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        while True:
            key = self._value(depth)
            if self._peek() != ":" or isinstance(key, (list, dict, tuple)):
                raise LiteralError(self.text)
            self.position += 1
            found[key] = self._value(depth)
            if self._peek() == ",":
                self.position += 1
            elif self._peek() != "}":
                raise LiteralError(self.text)
            if self._peek() == "}":
                self.position += 1
                return found

    def _string(self, quote: str) -> str:
        parts: list[str] = []
        position = self.position + 1
        while position < len(self.text) and self.text[position] != quote:
            character = self.text[position]
            if character == "\\":
                position += 1
                following = self.text[position : position + 1]
                if following not in _ESCAPES or not following:  # character codes are not supported
                    raise LiteralError(self.text)
                character = _ESCAPES[following]
            parts.append(character)
            position += 1
        if position >= len(self.text):
            raise LiteralError(self.text)
        self.position = position + 1
        return "".join(parts)

    def _number(self) -> int | float:
        match = _NUMBER.match(self.text, self.position)
        if not match:
            raise LiteralError(self.text)
        written = match[0]
        if len(written) > MAX_DIGITS:
            raise LiteralError(f"a number is longer than {MAX_DIGITS} characters", is_too_much=True)
        self.position = match.end()
        try:
            if re.search(r"[.eE]", written) and written.lstrip("+-")[1:2] not in ("x", "X"):
                return float(written)
            return int(written, 0)
        except ValueError as error:  # 007, 1__0
            raise LiteralError(self.text) from error
