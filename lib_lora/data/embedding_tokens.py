"""Token ids of embeddings (textual inversion) in captions and prompts.

Their ids are above CLIP's vocabulary. As in the webui (`EmbeddingDatabase.find_embedding_at_position`), names are found in a
text by token ids: case is ignored, and the longest name at a position wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from lib_lora.data.tokens import Tokenizer, plain_ids

FIRST = 49408  # the first id after CLIP's vocabulary


def placed(counts: Sequence[int]) -> list[range]:
    """Token ids of embeddings with `counts` vectors. One id between two embeddings is left out, so that runs of ids differ."""
    places, start = [], FIRST
    for count in counts:
        places.append(range(start, start + count))
        start += count + 1
    return places


def units(ids: Sequence[int]) -> list[list[int]]:
    """The tokens of a text, grouped by embedding: the webui never splits an embedding at the end of a chunk."""
    found: list[list[int]] = []
    for token in ids:
        if found and token > FIRST and token == found[-1][-1] + 1:
            found[-1].append(token)
        else:
            found.append([token])
    return found


class EmbeddingTokenizer:
    """CLIP's tokenizer, which reads each of `names` as `counts` tokens. Duplicates: the first wins."""

    def __init__(self, tokenizer: Tokenizer, names: Sequence[str], counts: Sequence[int]) -> None:
        self.bos_token_id, self.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._tokenizer = tokenizer
        read = [(plain_ids(tokenizer, name), place) for name, place in zip(names, placed(counts))]
        self._words: dict[int, list[tuple[list[int], range]]] = {}
        for ids, place in sorted((entry for entry in read if entry[0]), key=lambda entry: -len(entry[0])):
            self._words.setdefault(ids[0], []).append((ids, place))

    def __call__(self, text: str, **options: Any) -> Any:
        """See `plain_ids`, the only caller."""
        return SimpleNamespace(input_ids=self._replaced(self._tokenizer(text, **options).input_ids))

    def _replaced(self, ids: list[int]) -> list[int]:
        found: list[int] = []
        position = 0
        while position < len(ids):
            word, place = self._at(ids, position)
            found += place or ids[position : position + 1]
            position += len(word) or 1
        return found

    def _at(self, ids: list[int], position: int) -> tuple[list[int], range]:
        """Token ids of the name at `position`, and the ids of its embedding; both empty if there is none."""
        for word, place in self._words.get(ids[position], ()):
            if ids[position : position + len(word)] == word:
                return word, place
        return [], range(0)


def named_in(tokenizer: Tokenizer, names: Sequence[str], text: str) -> set[int]:
    """Indices of the `names` that occur in `text`."""
    places = placed([1] * len(names))
    found = set(plain_ids(EmbeddingTokenizer(tokenizer, names, [1] * len(names)), text))
    return {number for number, place in enumerate(places) if place[0] in found}
