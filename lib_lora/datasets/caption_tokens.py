"""Captions as training shows them to the model, and their numbers of tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from lib_lora.config.text import TextConfig, TokenRule
from lib_lora.data.captions import lines_of, with_trigger
from lib_lora.data.chunking import token_count
from lib_lora.data.tokens import load_tokenizer, plain_ids
from lib_lora.errors import DatasetError

LONGEST_COUNTED = 20_000  # characters of a line; more are not counted
_CACHED, _SHORT = 20_000, 2000  # lines whose counts are kept, and their characters at most


def trained_lines(caption: str | None, text: TextConfig) -> list[str]:
    """The lines of which training shows one, with trigger, prefix and suffix, before tags are shuffled or dropped.

    Without Wildcards (enable_wildcard) that is the first line that is not blank. An image without caption has the trigger.
    """
    said = [line.strip() for line in lines_of(caption or "") if line.strip()] or [""]
    lines = [with_trigger(line, text.trigger) for line in (said if text.enable_wildcard else said[:1])]
    if text.caption_prefix:
        lines[0] = f"{text.caption_prefix} {lines[0]}"
    if text.caption_suffix:
        lines[-1] = f"{lines[-1]} {text.caption_suffix}"
    return lines


def token_counts(captions: Sequence[str | None], text: TextConfig) -> list[int]:
    """The number of CLIP tokens of each caption as it is trained; of several lines, of the longest.

    Training cuts off what is above `token_limit`. Brackets that it refuses are counted as text, and names of embeddings too.
    """
    return [max(_count(line, text) for line in trained_lines(caption, text)) for caption in captions]


def token_limit(text: TextConfig) -> int:
    """The number of tokens of a caption that is trained."""
    return int(text.max_token_length)


def _count(line: str, text: TextConfig) -> int:
    if text.secondary_separator:
        line = line.replace(text.secondary_separator, text.caption_separator)
    line = line[:LONGEST_COUNTED]
    if not line:  # as of photos that nobody has captioned yet: their page does not wait for the vocabulary
        return 0
    count = _kept_count if len(line) <= _SHORT else _counted
    return count(line, text.weighted_captions, text.token_rule)


@functools.lru_cache(_CACHED)
def _kept_count(line: str, weighted: bool, rule: TokenRule) -> int:
    return _counted(line, weighted, rule)


def _counted(line: str, weighted: bool, rule: TokenRule) -> int:
    tokenizer = load_tokenizer()
    try:
        return token_count(tokenizer, line, TextConfig(weighted_captions=weighted, token_rule=rule))
    except DatasetError:  # training tells of it
        return len(plain_ids(tokenizer, line))
