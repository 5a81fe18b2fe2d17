"""The translation of a message, by tables of templates and of the form's labels."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_lora.config.groups import all_options
from lib_lora.languages.template import Template

LANGUAGES = ("zh_CN", "zh_TW", "ja")
LABELS = Path(__file__).parents[2] / "localizations"  # the webui's own place, where its page finds them too
MESSAGES = Path(__file__).parent
LONGEST = 4000  # characters; a longer message stays English
_DEEPEST = 5  # of messages within messages
_MOST = 300  # messages within a message, looked for before it is given up
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_CODE = re.compile(r"(?<![A-Za-z0-9.])[A-Za-z0-9.]+_\w*")  # names of options and keys, which every language has
_NAMED = re.compile(r"(?:'[^']*'|\"[^\"]*\") ")
_PLAIN = re.compile(r"[-+\d.,:×%/ ]*|'[^']*'|\"[^\"]*\"|\*?\.[a-z]{2,5}")  # numbers, a quoted name, an ending
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_COLON, _SEMICOLON, _STOP, _COMMA = "\uff1a", "\uff1b", "\u3002", "\u3001"
_WIDE = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")  # letters and signs that need no space around them


def language_of(name: str) -> str:
    """The language that a localization of the webui is for, as other extensions name them (`zh-Hans (Stable)`, `ja_JP`).

    It is "" for languages without tables, among them English.
    """
    words = re.findall(r"[a-z]+", name.lower()[:80])
    if "zh" in words[:1]:
        return "zh_TW" if {"tw", "hk", "mo", "hant"} & set(words) else "zh_CN"
    return "ja" if words[:1] == ["ja"] else ""


@functools.lru_cache(maxsize=4096)
def translated(text: str, language: str) -> str:
    """`text` in `language`, one of LANGUAGES; unchanged if it is long, or no template fits it."""
    if language not in LANGUAGES or len(text) > LONGEST:
        return text
    return _Message(_Tables.of(language)).translated(text) or text


class _Tables:
    """The labels and templates of a language, by which a message is translated."""

    def __init__(self, language: str) -> None:
        self.labels: dict[str, str] = json.loads((LABELS / f"{language}.json").read_text(encoding="utf-8"))
        messages: dict[str, str] = json.loads((MESSAGES / f"{language}.json").read_text(encoding="utf-8"))
        pairs = [(Template(english), Template(foreign)) for english, foreign in messages.items()]
        self.pairs = sorted(pairs, key=lambda pair: (-pair[0].letters, -len("".join(pair[0].pieces))))
        self.open = [pair for pair in self.pairs if pair[0].opens_left or pair[0].opens_right]
        labels = {opt.title: self.labels.get(opt.declaration.label, opt.declaration.label) for opt in all_options()}
        self.titles = {opt.title: f"{labels[opt.title]} ({opt.name})" for opt in all_options()}
        longest_first = sorted(self.titles, key=len, reverse=True)
        self.title = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})")

    @classmethod
    @functools.cache
    def of(cls, language: str) -> _Tables:
        """The tables, read once."""
        return cls(language)


@dataclass(frozen=True)
class _Value:
    """What fills a hole, or a message. `unknown`: how many letters of it are neither translated nor quoted."""

    text: str
    unknown: int = 0
    ours: bool = True

    @property
    def is_known(self) -> bool:
        return self.unknown == 0


class _Message:
    """The translation of one message. Values of a message may be messages themselves.

    Of several templates that fit, the one that leaves the fewest letters unknown is taken, and of these the one that says most.
    """

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables
        self._found: dict[str, _Value | None] = {}

    def translated(self, text: str) -> str | None:
        """The translation of a sentence, or of several; None if nothing fits one of them."""
        whole = self._sentence(text, 0)
        if whole is not None and whole.is_known:
            return whole.text
        parts = [self._sentence(part, 0) for part in re.split(r"(?<=\.) (?=[A-Z])", text)]
        if len(parts) > 1 and all(parts) and (whole is None or sum(part.unknown for part in parts if part) <= whole.unknown):
            return "".join(part.text for part in parts if part)
        return whole.text if whole else None

    def _sentence(self, text: str, depth: int) -> _Value | None:
        """The translation of a message or a piece of one; None if nothing fits."""
        if text in self._tables.labels:
            return _Value(self._tables.labels[text])
        if text not in self._found:
            if depth > _DEEPEST or len(self._found) > _MOST:
                return None
            self._found[text] = None  # while it is looked for
            self._found[text] = self._best(text, depth)
        return self._found[text]

    def _best(self, text: str, depth: int) -> _Value | None:
        best: _Value | None = None
        for found in self._candidates(text, depth):
            if best is None or found.unknown < best.unknown:
                best = found
            if best.is_known:
                break
        return best

    def _candidates(self, text: str, depth: int) -> Iterator[_Value]:
        tables = self._tables
        title = tables.title.match(text)
        if title and text[title.end() :].startswith(": "):
            rest = self._sentence(text[title.end() + 2 :], depth + 1)
            if rest is not None:
                yield _Value(f"{tables.titles[title[0]]}{_COLON}{rest.text}", rest.unknown)
        if title and text[title.end() :] in ("", "."):
            yield _Value(tables.titles[title[0]] + _STOP * (text[-1] == "."))
        yield from self._joined(text, "; ", _SEMICOLON, depth)
        yield from self._counted(text, depth)
        named = _NAMED.match(text)
        what = self._sentence(text[named.end() :], depth + 1) if named else None
        if named and what:
            yield _Value(f"{named[0]}{what.text}", what.unknown)
        for template, foreign in tables.pairs:
            if template.longest not in text:
                continue
            if text.endswith(".") and not template.text.endswith("."):
                yield from self._fitting(template, foreign, template.values(text[:-1]), depth, _STOP)
            yield from self._fitting(template, foreign, template.values(text), depth)
        yield from self._joined(text, ": ", _COLON, depth)
        for template, foreign in tables.open:
            if template.longest in text:
                yield from self._fitting(template, foreign, template.open_values(text), depth, is_piece=True)

    def _fitting(
        self, template: Template, foreign: Template, fits: list[list[str]], depth: int, stop: str = "", *, is_piece: bool = False
    ) -> Iterator[_Value]:
        """The translations by a template, unless it says little and the values are not known."""
        for values in fits:
            if any(value.endswith(",") for value in values):  # it is cut amid a sentence
                continue
            filled = [self._value(value, depth + 1) for value in values]
            unknown = sum(value.unknown for value in filled)
            if unknown <= template.bears:
                before, behind = (filled.pop(0).text, filled.pop().text) if is_piece else ("", "")
                yield _Value(before + _filled(foreign, filled) + behind + stop, unknown)

    def _counted(self, text: str, depth: int) -> Iterator[_Value]:
        """The translation of names with a number behind each: `U-Net 1.6, text encoders 0.2`."""
        parts = [part.rpartition(" ") for part in text.split(", ")]
        if not all(name and _NUMBER.fullmatch(number) for name, _, number in parts):
            return
        names = [self._value(name, depth + 1) for name, _, _ in parts]
        if any(name.ours for name in names):
            told = _COMMA.join(f"{name.text} {number}" for name, (_, _, number) in zip(names, parts))
            yield _Value(told, sum(name.unknown for name in names))

    def _joined(self, text: str, mark: str, wide: str, depth: int) -> Iterator[_Value]:
        """The translation of `why; remedy` or of `names: what of them`, of which no template is in one place."""
        bare = text.rstrip(".")
        before, found, behind = bare.rpartition(mark) if mark == "; " else bare.partition(mark)
        told = self._sentence(behind, depth + 1) if found else None
        start = self._value(before, depth + 1) if told else None
        if told and start and (start.ours or mark != "; "):
            yield _Value(f"{start.text}{wide}{told.text}{_STOP if bare != text else ''}", start.unknown + told.unknown)

    def _value(self, value: str, depth: int) -> _Value:
        if _PLAIN.fullmatch(value):
            return _Value(value, ours=False)
        labelled = self._labelled(value)
        found = self._sentence(value, depth)
        return found if found is not None and found.unknown <= labelled.unknown else labelled

    def _labelled(self, value: str) -> _Value:
        """What a user or a disk named, with the titles of options in it."""
        titles, title = self._tables.titles, self._tables.title
        text, rest = value, value
        if "(" in value:
            text, rest = title.sub(lambda found: titles[found[0]], value), title.sub("", value)
        return _Value(text, sum(map(str.isalpha, _CODE.sub("", _QUOTED.sub("", rest)))), value in titles)


def _filled(template: Template, values: Sequence[_Value]) -> str:
    """A translation with its values, without spaces where wide letters of ours meet."""
    text = template.pieces[0]
    for hole, piece in zip(template.holes, template.pieces[1:]):
        value = values[hole]
        if value.ours and text[-1:] == " " and _WIDE.match(text[-2:-1]) and _WIDE.match(value.text):
            text = text[:-1]
        is_close = value.ours and piece[:1] == " " and _WIDE.match(value.text[-1:]) and _WIDE.match(piece[1:2])
        text += value.text + (piece[1:] if is_close else piece)
    return text
