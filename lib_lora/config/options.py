"""Options as the rest of the program sees them, and the parsing of their values.

An option is a field of a frozen dataclass made by `option()`. Form, tooltips, validation, command line, kohya's names, metadata
and the rules of hiding and resuming are derived from its declaration.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from lib_lora.config.declaration import Declaration

LONGEST_TEXT = 2**16  # characters that form, metadata and checks can handle
MOST_TEXTS, LONGEST_LIST = 5000, 2**20  # as many entries as images are allowed
LARGEST_NUMBER = 2**63
SHOWN_CHARACTERS = 80
_ON, _OFF, _EMPTY = "on", "off", "empty"


@dataclasses.dataclass(frozen=True)
class Option:
    """An option with its name, type, default and declaration."""

    group: str
    name: str
    type: type
    default: Any
    declaration: Declaration
    choices: tuple[str, ...] | None

    @property
    def title(self) -> str:
        """Label and name, the start of error messages: `Rank (rank)`."""
        return f"{self.declaration.label} ({self.name})"

    @property
    def default_words(self) -> str:
        """The default in words."""
        return self.declaration.unset if self.default is None else str(self.default)

    @property
    def is_path(self) -> bool:
        """Whether every value is a path."""
        return self.declaration.is_path in ("folder", "file")

    def names_path(self, value: Any) -> bool:
        """Whether `value` is a path."""
        is_path = self.declaration.is_path
        return bool(value) and (self.is_path if isinstance(is_path, str) else is_path(str(value)))

    @property
    def not_inherited(self) -> str:
        """Why no imported file sets it, whatever the value; empty if one may."""
        declared = self.declaration
        if declared.set_by != "person":
            return ""
        of_path = f"A {declared.is_path} of another computer; choose yours in {self.title}." if self.is_path else ""
        return declared.not_inherited or of_path

    def not_inherited_value(self, value: Any) -> str:
        """Why an imported file does not set it to `value`; empty if it may."""
        return self.not_inherited or (self.declaration.not_inherited if self.names_path(value) else "")


def options_of(group: str, cls: type) -> Iterator[Option]:
    """The options that the dataclass `cls` declares, in order."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        choices = tuple(typing.get_args(hint)) if typing.get_origin(hint) is Literal else None
        if typing.get_origin(hint) is types.UnionType:  # `float | None`
            hint = typing.get_args(hint)[0]
        kind = str if choices else typing.get_origin(hint) or hint
        yield Option(group, field.name, kind, field.default, field.metadata["option"].of_field(field.name), choices)


def parse_typed(opt: Option, raw: Any) -> Any:
    """Convert `raw` (text, a JSON value or a form's value) to the option's type; `bounds_problem` checks its bounds.

    Raises:
        ValueError: with one sentence that names the option, the value found and what is allowed.
    """
    if opt.default is None and (raw is None or (isinstance(raw, str) and not raw.strip())):
        return None
    unfit = _unfit(raw) if opt.type in (str, tuple) else None
    if unfit:
        raise ValueError(f"{opt.title}: {unfit}.")
    parsers = {bool: _parse_bool, int: _parse_int, float: _parse_float, tuple: _parse_tuple, str: _parse_str}
    try:
        value = parsers[opt.type](raw)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{opt.title}: got {shown(raw)}, must be {_allowed(opt)}.") from error
    if opt.choices is not None and value not in opt.choices:
        raise ValueError(f"{opt.title}: got {shown(value)}, must be {_allowed(opt)}.")
    return value


def bounds_problem(opt: Option, value: Any) -> str | None:
    """Why `opt` does not allow `value`, as a sentence; None if it does."""
    outside = isinstance(value, float) and not math.isfinite(value)
    if opt.declaration.between and value is not None:
        low, high = opt.declaration.between
        outside = outside or not low <= value <= high
    if opt.choices is not None:
        outside = value not in opt.choices
    return f"{opt.title}: got {shown(value)}, must be {_allowed(opt)}." if outside else None


def _unfit(raw: Any) -> str | None:
    """Why texts are unusable for any option, as the end of a sentence; None if they are not."""
    texts = [text for text in (raw if isinstance(raw, (list, tuple)) else [raw]) if isinstance(text, str)]
    if len(texts) > MOST_TEXTS:
        return f"has {len(texts)} entries, must have at most {MOST_TEXTS}"
    count, most = sum(map(len, texts)), LONGEST_TEXT if isinstance(raw, str) else LONGEST_LIST
    if count > most:
        return f"has {count} characters, must have at most {most}"
    return "contains a null character; remove it" if any("\0" in text for text in texts) else None


def _allowed(opt: Option) -> str:
    if opt.choices is not None:
        return "one of " + ", ".join(opt.choices)
    noun = {bool: "true or false", int: "a whole number", float: "a number", tuple: "a list of texts", str: "a text"}[opt.type]
    return noun + (" from {:g} to {:g}".format(*opt.declaration.between) if opt.declaration.between else "")


def shown(raw: Any) -> str:
    """`raw` as messages show it, shortened in bounded time."""
    if isinstance(raw, str):
        text = repr(raw[:SHOWN_CHARACTERS] if len(raw) > SHOWN_CHARACTERS else raw)
        return text if len(raw) <= SHOWN_CHARACTERS and len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
    if isinstance(raw, int) and abs(raw) >= 10**SHOWN_CHARACTERS:  # Python does not print more than 4300 digits
        return "a very large number"
    if raw is None or isinstance(raw, (bool, int, float)):
        return str(raw)
    kinds: dict[type, str] = {list: "a list", tuple: "a list", dict: "a table"}
    return kinds.get(type(raw), f"a value of the type {type(raw).__name__}")


def decimal(number: float) -> str:
    """`number` without an exponent: 0.00005, 16."""
    return f"{number:.12f}".rstrip("0").rstrip(".")


def in_words(opt: Option, value: Any) -> str:
    """`value` as the form shows it: no exponents, on or off for a tick, what an empty field means."""
    if value is None:
        return opt.declaration.unset or _EMPTY
    if opt.type is bool:
        return _ON if value else _OFF
    return str(field_value(opt, value)) or _EMPTY


def field_value(opt: Option, value: Any) -> Any:
    """`value` as the form's field of `opt` holds it."""
    if opt.type is tuple:
        return ("\n" if opt.declaration.lines > 1 else " ").join(value)
    if value is None:
        return ""
    return decimal(value) if opt.type is float else value


def _parse_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    words = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
    return words[raw.strip().lower()] if isinstance(raw, str) and raw.strip().lower() in words else _refuse()


def _parse_int(raw: Any) -> int:
    number = _parse_float(raw)
    return int(number) if number == int(number) else _refuse()


def _parse_float(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        _refuse()
    number = float(raw)
    return number if math.isfinite(number) and abs(number) < LARGEST_NUMBER else _refuse()


def _parse_tuple(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, str):
        return (_parse_str(raw),) if raw else ()
    return tuple(_parse_str(item) for item in raw) if isinstance(raw, (list, tuple)) else _refuse()


def _parse_str(raw: Any) -> str:
    if raw is None:
        return ""
    if not isinstance(raw, str):
        _refuse()
    raw.encode()  # raises for a lone surrogate, which cannot be stored
    return str(raw.strip())


def _refuse() -> typing.NoReturn:
    raise ValueError("not legal here")
