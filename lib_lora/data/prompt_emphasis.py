"""`a (red:1.3) [blue] cat` -> texts with weights: the prompt grammar of the webui and of sd-scripts.

(x) multiplies the weight by 1.1, [x] divides it by 1.1, (x:1.3) multiplies it by 1.3. Brackets nest; a backslash makes a bracket
literal; an unclosed bracket lasts to the end.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from lib_lora.errors import DatasetError

STEP = 1.1
BREAK = "BREAK"  # webui grammar only: the text after it starts a new chunk

MAX_OPEN = 200  # nested brackets of one type: each open bracket multiplies the weights of all texts inside it

_WEIGHT = r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))"
_PLAIN = r"[^\\()\[\]:]+"
# sd-scripts allows no space around the number
_KOHYA = re.compile(rf"\\[()\[\]\\]|\\|[()\[\]]|:{_WEIGHT}\)|{_PLAIN}|:")
_WEBUI = re.compile(rf"\\[()\[\]\\]|\\|[()\[\]]|:\s*{_WEIGHT}\s*\)|{_PLAIN}|:")
_BREAK = re.compile(r"\bBREAK\b")


@dataclass
class Weighted:
    """A piece of text and its weight. The word BREAK has weight -1, which marks it as `is_break` unless brackets change it."""

    text: str
    weight: float = 1.0

    @property
    def is_break(self) -> bool:
        return self.text == BREAK and self.weight == -1


@dataclass
class _Reader:
    """The pieces read so far, and the indices of the first piece in each open round and square bracket."""

    pieces: list[Weighted] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    squares: list[int] = field(default_factory=list)

    def close(self, start: int, factor: float) -> None:
        for piece in self.pieces[start:]:
            piece.weight *= factor

    def take(self, token: str, number: str | None) -> bool:
        """Handle `token` if it opens or closes a bracket; returns whether it does."""
        if token in ("(", "["):
            opened = self.rounds if token == "(" else self.squares
            opened.append(len(self.pieces))
            if len(opened) > MAX_OPEN:
                raise DatasetError([
                    f"A text with weights, such as a caption (weighted_captions), has more than {MAX_OPEN} open brackets at one "
                    "place; close some, or put a backslash before those that are meant literally."
                ])  # fmt: skip
        elif number is not None and self.rounds:
            self.close(self.rounds.pop(), float(number))
        elif token == ")" and self.rounds:
            self.close(self.rounds.pop(), STEP)
        elif token == "]" and self.squares:
            self.close(self.squares.pop(), 1 / STEP)
        else:
            return False
        return True


def attention_weights(text: str, *, webui: bool) -> list[Weighted]:
    """The pieces of `text` with their weights; neighbours of equal weight are joined.

    Args:
        text: a caption or prompt.
        webui: use the webui's grammar (with BREAK, and spaces around a number) instead of sd-scripts'.

    Raises:
        DatasetError: brackets are nested more than MAX_OPEN deep.
    """
    reader = _Reader()
    for match in (_WEBUI if webui else _KOHYA).finditer(text):
        token = match[0]
        if token.startswith("\\"):
            reader.pieces.append(Weighted(token[1:]))
        elif not reader.take(token, match[1]):
            reader.pieces += _with_breaks(token) if webui else [Weighted(token)]
    for start in reader.rounds:
        reader.close(start, STEP)
    for start in reader.squares:
        reader.close(start, 1 / STEP)
    return _joined(reader.pieces) or [Weighted("")]


def _with_breaks(text: str) -> list[Weighted]:
    """`text` split at the words BREAK, without the spaces around them."""
    parts = _BREAK.split(text)
    pieces = []
    for number, part in enumerate(parts):
        if number:
            pieces.append(Weighted(BREAK, -1))
            part = part.lstrip()
        pieces.append(Weighted(part.rstrip() if number < len(parts) - 1 else part))
    return pieces


def _joined(pieces: list[Weighted]) -> list[Weighted]:
    groups = itertools.groupby(pieces, key=lambda piece: piece.weight)
    return [Weighted("".join(piece.text for piece in group), weight) for weight, group in groups]
