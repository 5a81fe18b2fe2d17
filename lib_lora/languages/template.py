"""Messages with values: a template such as `Image {0} is {1}; remove it.`, and the values of a message that was made from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from string import Formatter

_TELLING, _CLEAR, _MOST = 5, 12, 4000  # literal letters, the same, and letters of values
_BEGINNING = ("got ", "one of ")  # short texts that are clear all the same
_OPENS_LEFT, _OPENS_RIGHT = (" ", ",", ";", ":"), (" ",)


@dataclass(frozen=True)
class Template:
    """A text with numbered holes. Braces that are no holes are doubled.

    Texts that begin or end as no sentence does are pieces of sentences, and may have more before or behind them.
    """

    text: str

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """The literal texts around the holes."""
        pieces = [""]
        for literal, hole, _format, _conversion in Formatter().parse(self.text):
            pieces[-1] += literal
            if hole is not None:
                pieces.append("")
        return tuple(pieces)

    @cached_property
    def longest(self) -> str:
        """The longest piece: a text without it is not made from this template."""
        return max(self.pieces, key=len)

    @cached_property
    def holes(self) -> tuple[int, ...]:
        """The numbers of the holes in their order."""
        return tuple(int(hole) for _, hole, _, _ in Formatter().parse(self.text) if hole is not None)

    @cached_property
    def opens_left(self) -> bool:
        return self.text.startswith(_OPENS_LEFT)

    @cached_property
    def opens_right(self) -> bool:
        return self.text.endswith(_OPENS_RIGHT)

    @cached_property
    def bears(self) -> int:
        """How many letters of the values may be unknown: none if it fits many messages by chance."""
        if self.letters < _TELLING and not self.text.startswith(_BEGINNING):
            return 0
        return 2 * self.letters if self.letters < _CLEAR and not self.text.startswith(_BEGINNING) else _MOST

    @cached_property
    def letters(self) -> int:
        """The number of literal letters: the more, the more it says of a message that fits."""
        return sum(char.isalpha() for piece in self.pieces for char in piece)

    def values(self, text: str) -> list[list[str]]:
        """What stands in the holes if `text` is made from this template: with short first values, and with short last ones."""
        return _between(self.pieces, text)

    def open_values(self, text: str) -> list[list[str]]:
        """As `values`, with what stands before and behind the piece as the first and the last value."""
        pieces = self.pieces
        if self.opens_left:
            pieces = ("", *pieces)
        if self.opens_right:
            pieces = (*pieces, "")
        before, behind = [] if self.opens_left else [""], [] if self.opens_right else [""]
        return [[*before, *found, *behind] for found in _between(pieces, text)]


def _between(pieces: tuple[str, ...], text: str) -> list[list[str]]:
    """What stands between `pieces` in `text`, in one pass from the left and one from the right."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return [[]] if text == first else []
    start, end = len(first), len(text) - len(last)
    if start > end or not text.startswith(first) or not text.endswith(last):
        return []
    if len(pieces) == 2:
        return [[text[start:end]]]
    found, at = [], start
    for piece in pieces[1:-1]:
        place = text.find(piece, at, end)
        if place < 0:
            return []
        found.append(text[at:place])
        at = place + len(piece)
    found.append(text[at:end])
    other, at = [], end
    for piece in reversed(pieces[1:-1]):
        place = text.rfind(piece, start, at)
        other.append(text[place + len(piece) : at])
        at = place
    other = [text[start:at], *reversed(other)]
    return [found] if found == other else [found, other]
