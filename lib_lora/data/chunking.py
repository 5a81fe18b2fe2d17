"""Captions of a batch -> token ids and weights, by the configured token rule.

`kohya`: always as many chunks as `max_token_length` gives (sd-scripts `_get_input_ids`, `_get_weighted_input_ids`).
`webui`: as many chunks as the longest caption needs, split at a comma if one is near (the webui's `tokenize_line`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lib_lora.config.text import TextConfig
from lib_lora.data.embedding_tokens import units
from lib_lora.data.prompt_emphasis import Weighted, attention_weights
from lib_lora.data.tokens import CHUNK, Tokenizer, chunked, plain_ids

BODY = CHUNK - 2
SHOWN_CHARACTERS, ENOUGH_CHARACTERS = 40, 40  # of a caption in a message; 40 characters are at least one token
COMMA_BACKTRACK = 20  # tokens; the webui's default (comma_padding_backtrack)


@dataclass(frozen=True)
class Tokens:
    """Token ids of a batch and their weights, both `[B][chunks][77]`; weights are None without `weighted_captions`."""

    ids: list[list[list[int]]]
    weights: list[list[list[float]]] | None


@dataclass
class _Chunk:
    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def batch_tokens(tokenizer: Tokenizer, captions: Sequence[str], text: TextConfig, pad_id: int | None = None) -> Tokens:
    """Tokens of `captions`, padded to the same number of chunks; `pad_id` as in `caption_ids`."""
    one = _webui_chunks if text.token_rule == "webui" else _kohya_chunks
    lines = [one(tokenizer, _pieces(caption, text), int(text.max_token_length), pad_id) for caption in captions]
    most = max(len(chunks) for chunks in lines)
    for chunks in lines:
        chunks += [_closed(tokenizer, _Chunk(), pad_id) for _ in range(most - len(chunks))]
    weights = [[chunk.weights for chunk in chunks] for chunks in lines] if text.weighted_captions else None
    return Tokens([[chunk.ids for chunk in chunks] for chunks in lines], weights)


def cut_captions(tokenizer: Tokenizer, captions: Sequence[str], text: TextConfig) -> list[str]:
    """A note if captions are longer than `max_token_length`; else an empty list."""
    limit = int(text.max_token_length)
    long = [caption for caption in dict.fromkeys(captions) if len(caption) > limit and _is_longer(tokenizer, caption, limit)]
    if not long:
        return []
    subject = "1 caption is" if len(long) == 1 else f"{len(long)} captions are"
    return [
        f"{subject} longer than {limit} tokens and cut off, such as {long[0][:SHOWN_CHARACTERS] + '…'!r}; shorten it, or raise "
        "Caption length (max_token_length)."
    ]


def _is_longer(tokenizer: Tokenizer, caption: str, limit: int) -> bool:
    """Whether a line of `caption` has more than `limit` tokens; very long lines are not counted to their end."""
    return any(len(plain_ids(tokenizer, line[: ENOUGH_CHARACTERS * limit])) > limit for line in caption.split("\n"))


def token_count(tokenizer: Tokenizer, caption: str, text: TextConfig) -> int:
    """The number of tokens of a line, before it is cut off; with `weighted_captions`, brackets and weights are none.

    Raises:
        DatasetError: brackets are nested too deep.
    """
    return sum(len(plain_ids(tokenizer, piece.text)) for piece in _pieces(caption, text) if not piece.is_break)


def _pieces(caption: str, text: TextConfig) -> list[Weighted]:
    if not text.weighted_captions:
        return [Weighted(caption)]
    return attention_weights(caption, webui=text.token_rule == "webui")


def _kohya_chunks(tokenizer: Tokenizer, pieces: Sequence[Weighted], max_token_length: int, pad_id: int | None) -> list[_Chunk]:
    body = _Chunk()
    for piece in pieces:
        ids = plain_ids(tokenizer, piece.text)
        body.ids += ids
        body.weights += [piece.weight] * len(ids)
    chunks = []
    for number, ids in enumerate(chunked(tokenizer, body.ids, max_token_length, pad_id)):
        weights = body.weights[:max_token_length][number * BODY : (number + 1) * BODY]
        chunks.append(_Chunk(ids, [1.0, *weights, *[1.0] * (BODY + 1 - len(weights))]))
    return chunks


def _webui_chunks(tokenizer: Tokenizer, pieces: Sequence[Weighted], max_token_length: int, pad_id: int | None) -> list[_Chunk]:
    """Chunks of begin, 75 tokens, end. The text after the last comma moves to the next chunk if the comma is near the end.

    So does an embedding that does not fit; sd-scripts' rule splits it.
    """
    comma = plain_ids(tokenizer, ",")[0]
    chunks: list[_Chunk] = []
    current, last_comma = _Chunk(), -1

    def next_chunk(keep: int) -> None:
        """Close the chunk after its first `keep` tokens; the others begin the next one."""
        nonlocal current, last_comma
        chunks.append(_closed(tokenizer, _Chunk(current.ids[:keep], current.weights[:keep]), pad_id))
        current, last_comma = _Chunk(current.ids[keep:], current.weights[keep:]), -1

    for piece in pieces:
        if piece.is_break:
            next_chunk(BODY)
            continue
        for unit in units(plain_ids(tokenizer, piece.text)):
            if unit[0] == comma:
                last_comma = len(current.ids)
            elif len(current.ids) == BODY and last_comma != -1 and BODY - last_comma <= COMMA_BACKTRACK:
                next_chunk(last_comma + 1)
            if len(current.ids) + len(unit) > BODY:
                next_chunk(BODY)
            current.ids += unit
            current.weights += [piece.weight] * len(unit)
    if current.ids or not chunks:
        next_chunk(BODY)
    return chunks[: max_token_length // BODY]


def _closed(tokenizer: Tokenizer, chunk: _Chunk, pad_id: int | None) -> _Chunk:
    missing, end = CHUNK - 1 - len(chunk.ids), tokenizer.eos_token_id
    ids = [tokenizer.bos_token_id, *chunk.ids, end, *[end if pad_id is None else pad_id] * (missing - 1)]
    return _Chunk(ids, [1.0, *chunk.weights, *[1.0] * missing])
