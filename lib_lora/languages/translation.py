"""The translation of a message, by tables of templates and of the form's labels."""

from __future__ import annotations

import functools
import json
import re
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
_PLAIN = re.compile(r"[-+\d.,:×%/ ]*|'[^']*'|\"[^\"]*\"|\*?\.[a-z]{2,5}")  # numbers, a quoted name, an ending
_COLON, _STOP = "\uff1a", "\u3002"
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
    """What fills a hole. `ours`: it is translated as a whole; else a user or a disk named it, perhaps with labels in it."""

    text: str
    ours: bool
    is_plain: bool = False


class _Message:
    """The translation of one message. Values of a message may be messages themselves."""

    def __init__(self, tables: _Tables) -> None:
        self._tables, self._left = tables, _MOST

    def translated(self, text: str) -> str | None:
        """The translation of a sentence, or of several; None if nothing fits one of them."""
        whole = self._sentence(text, 0)
        if whole is not None:
            return whole
        parts = [self._sentence(part, 0) for part in re.split(r"(?<=\.) (?=[A-Z])", text)]
        return "".join(filter(None, parts)) if all(parts) else None

    def _sentence(self, text: str, depth: int) -> str | None:
        """The translation of a message or a piece of one; None if nothing fits."""
        tables = self._tables
        if text in tables.labels:
            return tables.labels[text]
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            return None
        title = tables.title.match(text)
        if title and text[title.end() :].startswith(": "):
            rest = self._sentence(text[title.end() + 2 :], depth + 1)
            if rest is not None:
                return f"{tables.titles[title[0]]}{_COLON}{rest}"
        return self._whole(text, depth) or self._piece(text, depth)

    def _whole(self, text: str, depth: int) -> str | None:
        """The translation by the template that says most; one that ends without a full stop may have it behind."""
        stops = text.endswith(".")
        for template, foreign in self._tables.pairs:
            adds_stop = stops and not template.text.endswith(".")
            values = template.values(text[:-1] if adds_stop else text)
            if values is None:
                continue
            filled = [self._value(value, depth + 1) for value in values]
            if template.is_telling or all(value.ours or value.is_plain for value in filled):
                return _filled(foreign, filled) + (_STOP if adds_stop else "")
        return None

    def _piece(self, text: str, depth: int) -> str | None:
        """The translation if a piece of a sentence stands at the start or the end."""
        for template, foreign in self._tables.open:
            values = template.open_values(text) if template.is_telling else None
            if values is not None:
                before, *filled, behind = [self._value(value, depth + 1) for value in values]
                return before.text + _filled(foreign, filled) + behind.text
        return None

    def _value(self, value: str, depth: int) -> _Value:
        if _PLAIN.fullmatch(value):
            return _Value(value, ours=False, is_plain=True)
        found = self._sentence(value, depth)
        if found is not None:
            return _Value(found, ours=True)
        titles = self._tables.titles
        labelled = self._tables.title.sub(lambda title: titles[title[0]], value)
        return _Value(labelled, ours=value in titles)


def _filled(template: Template, values: list[_Value]) -> str:
    """A translation with its values, without spaces where wide letters of ours meet."""
    text = template.pieces[0]
    for hole, piece in zip(template.holes, template.pieces[1:]):
        value = values[hole]
        if value.ours and text[-1:] == " " and _WIDE.match(text[-2:-1]) and _WIDE.match(value.text):
            text = text[:-1]
        is_close = value.ours and piece[:1] == " " and _WIDE.match(value.text[-1:]) and _WIDE.match(piece[1:2])
        text += value.text + (piece[1:] if is_close else piece)
    return text
