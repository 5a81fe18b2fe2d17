"""`a (red:1.3) [blue] cat` -> texts with their weights: the grammar of prompts, as the webui and sd-scripts read it.

(x) is 1.1 times, [x] one 1.1th, (x:1.3) 1.3 times; brackets nest, a backslash makes one literal, an open one lasts to the end.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from lib_lora.errors import DatasetError

STEP = 1.1
BREAK = "BREAK"  # in the webui's grammar: the text behind it starts a chunk of its own

MAX_OPEN = 200  # brackets of one kind at one place: beyond, each text would be weighted once for every one of them

_WEIGHT = r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))"
_PLAIN = r"[^\\()\[\]:]+"
# sd-scripts allows no space around the number
_KOHYA = re.compile(rf"\\[()\[\]\\]|\\|[()\[\]]|:{_WEIGHT}\)|{_PLAIN}|:")
_WEBUI = re.compile(rf"\\[()\[\]\\]|\\|[()\[\]]|:\s*{_WEIGHT}\s*\)|{_PLAIN}|:")
_BREAK = re.compile(r"\bBREAK\b")


@dataclass
class Weighted:
    """A piece of text; with `is_break` it is the word BREAK, whose weight (-1) only says so unless brackets change it."""

    text: str
    weight: float = 1.0

    @property
    def is_break(self) -> bool:
        return self.text == BREAK and self.weight == -1


@dataclass
class _Reader:
    """Pieces so far, and where the brackets that are still open began."""

    pieces: list[Weighted] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    squares: list[int] = field(default_factory=list)

    def close(self, start: int, factor: float) -> None:
        for piece in self.pieces[start:]:
            piece.weight *= factor

    def take(self, token: str, number: str | None) -> bool:
        """Whether `token` is a bracket that opens or closes something."""
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
    """The pieces of `text`, neighbours of one weight joined.

    Args:
        text: a caption or prompt.
        webui: the webui's grammar, which knows BREAK and spaces around a number; else that of sd-scripts.

    Raises:
        DatasetError: brackets are nested deeper than anybody means it.
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
    """The text between the words BREAK, without the spaces around them."""
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
