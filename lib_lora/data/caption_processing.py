"""The caption of one step: prefix, dropout, wildcards, shuffled and dropped tags (sd-scripts `process_caption`).

A pure function of the text, the options, and (seed, step, place in the step); the rules apply in sd-scripts' order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from lib_lora.config.text import TextConfig
from lib_lora.data.captions import has_trigger
from lib_lora.randomness import permutation, uniform

_OPEN, _CLOSED = "\ufdd0", "\ufdd1"  # placeholders for {{ and }}: Unicode noncharacters
_WILDCARD = re.compile(r"\{([^{}]+)\}")

Draw = Callable[[str], float]


@dataclass(frozen=True)
class Moment:
    """When a caption is shown: at update `step` of `steps`, in `epoch`, at `place` in the step; all from 0."""

    step: int
    steps: int
    epoch: int
    place: int


def varies(text: TextConfig) -> bool:
    """Whether captions may change from step to step."""
    return text.enable_wildcard or text != unvaried(text)


def unvaried(text: TextConfig) -> TextConfig:
    """The options without dropout, shuffling and token warm-up, for the full caption."""
    return replace(
        text,
        shuffle_caption=False,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        caption_tag_dropout_rate=0.0,
        token_warmup_step=0.0,
    )


def shown_caption(text: TextConfig, caption: str, moment: Moment, seed: int) -> str:
    """The caption that the model is given at `moment`."""

    def draw(what: str) -> float:
        return uniform(seed, "caption", what, moment.step, moment.place)

    if text.caption_prefix:
        caption = f"{text.caption_prefix} {caption}"
    if text.caption_suffix:
        caption = f"{caption} {text.caption_suffix}"
    every = text.caption_dropout_every_n_epochs
    if draw("dropout") < text.caption_dropout_rate or (every and (moment.epoch + 1) % every == 0):
        return ""
    caption = _without_wildcards(caption, draw) if text.enable_wildcard else caption.split("\n")[0]
    if text.tags_move:
        caption = _with_moved_tags(text, caption, moment, seed, draw)
    return caption.replace(text.secondary_separator, text.caption_separator) if text.secondary_separator else caption


def in_order(text: TextConfig, caption: str, seed: int) -> str:
    """The full caption as a prompt: tags in their order, without `keep_tokens_separator`."""
    shown = shown_caption(unvaried(text), caption, Moment(0, 1, 0, 0), seed)
    if not text.tags_move or not text.keep_tokens_separator:
        return shown
    parts = shown.split(text.keep_tokens_separator, 2)
    return ", ".join(tag for part in parts for tag in tags_of(part, text.caption_separator) if tag) if len(parts) > 1 else shown


def _without_wildcards(caption: str, draw: Draw) -> str:
    """One of the lines, with one alternative of every `{a|b}`; `{{` and `}}` are literal braces."""
    caption = _choice(caption.split("\n"), draw("line"))
    caption = caption.replace("{{", _OPEN).replace("}}", _CLOSED)
    numbers = iter(range(len(caption)))
    caption = _WILDCARD.sub(lambda match: _choice(match[1].split("|"), draw(f"wildcard {next(numbers)}")), caption)
    return caption.replace(_OPEN, "{").replace(_CLOSED, "}")


def _with_moved_tags(text: TextConfig, caption: str, moment: Moment, seed: int, draw: Draw) -> str:
    first, middle, last = _kept_and_free(text, caption)
    warmup = text.token_warmup_step if text.token_warmup_step >= 1 else math.floor(text.token_warmup_step * moment.steps)
    if moment.step < warmup:
        grown = math.floor(moment.step * (len(middle) - text.token_warmup_min) / warmup)
        middle = middle[: grown + text.token_warmup_min]
    if text.shuffle_caption:
        order = permutation(len(middle), seed, "caption", "shuffle", moment.step, moment.place)
        middle = [middle[i] for i in order]
    middle = [tag for i, tag in enumerate(middle) if draw(f"tag {i}") >= text.caption_tag_dropout_rate]
    return ", ".join(first + middle + last)


def _kept_and_free(text: TextConfig, caption: str) -> tuple[list[str], list[str], list[str]]:
    """Tags kept in front, tags that are shuffled and dropped, tags kept at the end."""
    if text.keep_tokens_separator and text.keep_tokens_separator in caption:
        parts = [*caption.split(text.keep_tokens_separator, 2), ""][:3]
        first, middle, last = ([tag for tag in tags_of(part, text.caption_separator) if tag] for part in parts)
    else:
        tags = tags_of(caption, text.caption_separator)
        first, middle, last = tags[: text.keep_tokens], tags[text.keep_tokens :], []
    named = [text.trigger != "" and has_trigger(tag, text.trigger) for tag in middle]
    kept, free = ([tag for tag, is_named in zip(middle, named) if is_named is wanted] for wanted in (True, False))
    return first + kept, free, last


def tags_of(caption: str, separator: str) -> list[str]:
    """The tags of a line; brackets do not hold tags together (sd-scripts)."""
    return [tag.strip() for tag in caption.strip().split(separator)]


def _choice(alternatives: list[str], number: float) -> str:
    """One of the alternatives; `number` from 0 to 1."""
    return alternatives[min(int(number * len(alternatives)), len(alternatives) - 1)]
