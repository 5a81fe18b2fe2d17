"""The language that the host's user has chosen, and texts in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib_lora.languages.translation import language_of, translated

# keys of answers whose values are texts for people, or lists of them
TEXTS = frozenset({
    "problem", "problems", "text", "notices", "notes", "choices", "phase", "formula", "undo", "undone", "trouble", "detail",
    "label", "help", "note", "needs", "ended", "current", "unused",
})  # fmt: skip
_DEEPEST = 20


class _Chosen:
    name: Callable[[], str] = staticmethod(lambda: "")


def follow(name: Callable[[], str]) -> None:
    """Speak the language of the localization that `name` returns; English until this is called."""
    _Chosen.name = staticmethod(name)


def said(text: str) -> str:
    """`text` in the chosen language."""
    return translated(str(text), language_of(_Chosen.name()))


def said_in(answer: Any) -> Any:
    """An answer for JSON whose texts for people (see TEXTS) are in the chosen language."""
    return _within(answer, is_text=False, depth=0) if language_of(_Chosen.name()) else answer


def _within(value: Any, *, is_text: bool, depth: int) -> Any:
    if depth > _DEEPEST:
        return value
    if isinstance(value, str):
        return said(value) if is_text else value
    if isinstance(value, dict):
        return {key: _within(inner, is_text=key in TEXTS, depth=depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_within(inner, is_text=is_text, depth=depth + 1) for inner in value]
    return value
