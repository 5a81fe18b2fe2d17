"""Keys of sd-scripts' textual inversion: they become the embedding of the trigger word, trained together with the LoRA."""

from __future__ import annotations

from typing import Any

from lib_lora.kohya.rules import Context, Finding, Rule, empty
from lib_lora.kohya.spelling import BLANK

_VECTORS = "num_vectors_per_token"
_ALONE = "Belongs to token_string, which is not given."


def _token_string(value: Any, context: Context) -> Finding:
    if value in BLANK:
        return empty()
    count = context.given(_VECTORS) or 1  # sd-scripts' default
    return Finding("used", "The word whose embedding is trained.", {"trigger": value, "embedding_vectors": count})


def _of_the_word(name: str, why: str) -> Rule:
    def rule(value: Any, context: Context) -> Finding:
        if value in BLANK:
            return empty()
        if context.given("token_string") is None:
            return Finding("ignored", _ALONE)
        return Finding("used", why, {name: value})

    return rule


WORD_RULES: dict[str, Rule] = {
    "token_string": _token_string,
    _VECTORS: _of_the_word("embedding_vectors", "Number of vectors of the embedding."),
    "init_word": _of_the_word("init_word", "The words that the embedding starts from."),
}
