"""Messages with values: a template such as `Image {0} is {1}; remove it.`, and the values of a message that was made from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from string import Formatter

_TELLING, _CLEAR, _MOST = 5, 12, 4000  # literal letters, the same, and letters of values
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
        if self.letters < _TELLING and not self.text.startswith("got "):
            return 0
        return 2 * self.letters if self.letters < _CLEAR else _MOST

    @cached_property
    def letters(self) -> int:
        """The number of literal letters: the more, the more it says of a message that fits."""
        return sum(char.isalpha() for piece in self.pieces for char in piece)

    def values(self, text: str) -> list[str] | None:
        """What stands in the holes if `text` is made from this template, the first that fits; None if it is not."""
        return _between(self.pieces, text)

    def open_values(self, text: str) -> list[str] | None:
        """As `values`, with what stands before and behind the piece as the first and the last value."""
        pieces = self.pieces
        if self.opens_left:
            pieces = ("", *pieces)
        if self.opens_right:
            pieces = (*pieces, "")
        found = _between(pieces, text)
        if found is None:
            return None
        return [*([] if self.opens_left else [""]), *found, *([] if self.opens_right else [""])]


def _between(pieces: tuple[str, ...], text: str) -> list[str] | None:
    """What stands between `pieces` in `text`, in one pass."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return [] if text == first else None
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return None
    found = []
    for piece in pieces[1:-1]:
        place = text.find(piece, at, end)
        if place < 0:
            return None
        found.append(text[at:place])
        at = place + len(piece)
    return [*found, text[at:end]]
