"""Captions -> token ids for CLIP, by sd-scripts' rule (strategy_base.py `_get_input_ids`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lib_lora.data.merges import with_quick_merges

CHUNK = 77  # CLIP's context: begin, 75 tokens, end
VOCABULARY = Path(__file__).resolve().parent.parent / "assets" / "clip"


class Tokenizer(Protocol):
    """The part of a CLIP tokenizer that is used (transformers `CLIPTokenizer`)."""

    bos_token_id: int
    eos_token_id: int

    def __call__(self, text: str, **options: Any) -> Any: ...


def load_tokenizer() -> Tokenizer:
    """CLIP's tokenizer from the bundled vocabulary, without network access."""
    from transformers import CLIPTokenizer

    tokenizer: Tokenizer = with_quick_merges(CLIPTokenizer.from_pretrained(str(VOCABULARY), local_files_only=True))
    return tokenizer


def caption_ids(tokenizer: Tokenizer, caption: str, max_token_length: int, pad_id: int | None = None) -> list[list[int]]:
    """Token ids of `caption` as chunks of 77, each begin + 75 + end: one chunk for 75, two for 150, three for 225.

    Args:
        tokenizer: CLIP's.
        caption: taken literally; brackets and the like have no meaning.
        max_token_length: 75, 150 or 225; longer captions are truncated.
        pad_id: padding token. None: the end token (SD 1.x, SDXL's first encoder); 0 for SD 2.x and SDXL's second.

    Returns:
        ids: `[chunks][77]`
    """
    return chunked(tokenizer, plain_ids(tokenizer, caption), max_token_length, pad_id)


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of `text` without truncation, begin and end."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    return ids


def chunked(tokenizer: Tokenizer, body: Sequence[int], max_token_length: int, pad_id: int | None = None) -> list[list[int]]:
    """Token ids `body` in chunks, as in `caption_ids`."""
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    fill = end if pad_id is None else pad_id
    line = [*body[:max_token_length], end]
    line += [fill] * (max_token_length + 1 - len(line))
    if max_token_length <= CHUNK - 2:
        return [[begin, *line]]
    return [_chunk(line, first, begin, end, fill) for first in range(0, max_token_length, CHUNK - 2)]


def _chunk(line: Sequence[int], first: int, begin: int, end: int, fill: int) -> list[int]:
    """The chunk of `line` that starts at `first`; it is closed with `end` if the text continues in the next chunk."""
    body = list(line[first : first + CHUNK - 2])
    last = line[-1] if body[-1] in (end, fill) else end
    if fill != end and body[0] == fill:
        body[0] = end
    return [begin, *body, last]
