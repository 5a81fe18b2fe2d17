"""What can be set for a captioner: declared once, for pages that show it and for the reading of untrusted values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from lib_lora.datasets.caption_changes import SEPARATOR
from lib_lora.datasets.captioning_options import MOST_TAGS_ASKED, CaptioningOptions
from lib_lora.errors import DatasetError, Problem

Value = str | bool | int | float
LONGEST_TEXT = 20_000  # characters; the owner of a value has its own bound
LONGEST_TOLD = 40


@dataclass(frozen=True)
class Field:
    """One value.

    `default`: its type is the value's. `least`, `most`: of a number. `choices`: value -> label. `secret`: not to be shown or
    kept. `long`: a text of several lines.
    """

    name: str
    label: str
    default: Value
    help: str = ""
    least: float = 0
    most: float = 1
    choices: Mapping[str, str] | None = None
    secret: bool = False
    long: bool = False

    @property
    def kind(self) -> str:
        """choice, flag, whole, number, secret, long or text."""
        if self.choices is not None:
            return "choice"
        if isinstance(self.default, str):
            return "secret" if self.secret else "long" if self.long else "text"
        return "flag" if isinstance(self.default, bool) else "whole" if isinstance(self.default, int) else "number"

    def problem(self, value: Any) -> str:
        """What is wrong with an untrusted value, in a sentence; empty if nothing is."""
        if self.choices is not None:
            return "" if isinstance(value, str) and value in self.choices else self._must(value, f"be {_or(self.choices)}")
        if isinstance(self.default, str):
            is_text = isinstance(value, str) and len(value) <= LONGEST_TEXT
            return "" if is_text else self._must(value, f"be a text of at most {LONGEST_TEXT} characters")
        if isinstance(self.default, bool):
            return "" if isinstance(value, bool) else self._must(value, "be true or false")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and self.least <= value <= self.most
        if not is_number or (isinstance(self.default, int) and value != int(value)):
            what = "whole number" if isinstance(self.default, int) else "number"
            return self._must(value, f"be a {what} from {self.least:g} to {self.most:g}")
        return ""

    def _must(self, value: Any, be: str) -> str:
        got = "" if self.secret else f"got {repr(value)[:LONGEST_TOLD]}, "
        return f"{self.label}: {got}must {be}."


MODE = Field(
    "mode", "Captions", "missing",
    choices={"missing": "Only images without a caption", "replace": "Replace captions", "append": "Append to captions"},
)  # fmt: skip
PREFIX = Field("prefix", "Prefix", "", "Such as the trigger word.")
SUFFIX = Field("suffix", "Suffix", "")
THRESHOLD = Field("threshold", "Threshold", CaptioningOptions.threshold, "The least probability of a tag.")
MOST_TAGS = Field("most_tags", "Most tags", 0, "The most probable ones; 0 for all.", most=MOST_TAGS_ASKED)
UNWANTED = Field("unwanted", "Unwanted tags", "", "With commas between.")
SPACES = Field("spaces", "Spaces instead of underscores", default=True)
UNESCAPE = Field("unescape", "Brackets without backslashes", default=True)
SENTENCE = (MODE, PREFIX, SUFFIX)  # what can be set for each captioner
TAGS = (*SENTENCE, THRESHOLD, MOST_TAGS, UNWANTED, SPACES, UNESCAPE)


def with_default(field: Field, default: Value) -> Field:
    """The field with another default."""
    return replace(field, default=default)


def read_values(known: Sequence[Field], given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each field, from untrusted ones; defaults for those that are not given.

    Raises:
        DatasetError: with every problem.
    """
    names = {field.name for field in known}
    problems = [f"The captioner has no option {name[:LONGEST_TOLD]!r}; remove it." for name in sorted(given) if name not in names]
    values = {field.name: given.get(field.name, field.default) for field in known}
    problems += [Problem(field.name, told) for field in known if (told := field.problem(values[field.name]))]
    if problems:
        raise DatasetError(problems)
    return {field.name: int(values[field.name]) if field.kind == "whole" else values[field.name] for field in known}


def captioning_options(values: Mapping[str, Any]) -> CaptioningOptions:
    """How captions are written, from values that were read; those of the captioner itself are passed over."""
    named = {field.name for field in fields(CaptioningOptions)}
    chosen = {name: value for name, value in values.items() if name in named}
    if "unwanted" in chosen:
        chosen["unwanted"] = tuple(tag.strip() for tag in chosen["unwanted"].split(SEPARATOR) if tag.strip())
    return CaptioningOptions(**chosen)


def _or(choices: Mapping[str, str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}"
