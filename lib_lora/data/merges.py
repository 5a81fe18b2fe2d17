"""CLIP's byte pair encoding of one word, with the reference's result (openai/CLIP `simple_tokenizer.bpe`) in n log n steps.

The reference goes over the whole word once for each pair that it joins. Here the parts of a word are a chain, and the pairs of
neighbours wait in a heap: of all pairs those of the lowest rank are joined next, from left to right.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

END_OF_WORD = "</w>"
KEPT, LONGEST_KEPT = 20_000, 64  # words, and letters of one, whose parts are remembered


class Merges:
    """`bpe` of a CLIP tokenizer: a word -> its parts with spaces between them. `ranks`: pair -> when it is joined."""

    def __init__(self, ranks: Mapping[tuple[str, str], int], whole: Sequence[str] = ()) -> None:
        self._ranks = ranks
        self._whole = frozenset(whole)  # texts with a meaning of their own, which are no words
        self._known: dict[str, str] = {}

    def __call__(self, word: str) -> str:
        if word in self._whole:
            return word
        known = self._known.get(word)
        if known is None:
            known = " ".join(self._joined([*word[:-1], word[-1] + END_OF_WORD]))
            if len(word) <= LONGEST_KEPT and len(self._known) < KEPT:
                self._known[word] = known
        return known

    def _joined(self, parts: list[str]) -> list[str]:
        """The parts when no pair is left to join; a part that was joined to the one before it is empty."""
        after = [*range(1, len(parts)), -1]
        before = [*range(-1, len(parts) - 1)]

        def rank_at(left: int) -> int | None:
            """When the pair that begins at `left` is joined; None for never."""
            return self._ranks.get((parts[left], parts[after[left]])) if left >= 0 and after[left] >= 0 else None

        heap = [(rank, place) for place in range(len(parts)) if (rank := rank_at(place)) is not None]
        heapq.heapify(heap)
        while heap:
            now = heap[0][0]
            for left in _lowest(heap):
                if not parts[left] or rank_at(left) != now:
                    continue  # one of the two was joined to another part
                right = after[left]
                parts[left], parts[right], after[left] = parts[left] + parts[right], "", after[right]
                if after[left] >= 0:
                    before[after[left]] = left
                for place in (before[left], left):
                    rank = rank_at(place)
                    if rank is not None:
                        heapq.heappush(heap, (rank, place))
        return [part for part in parts if part]


def _lowest(heap: list[tuple[int, int]]) -> list[int]:
    """Take the places of the lowest rank from the heap, from left to right. What is joined of them has no such rank again."""
    rank, places = heap[0][0], []
    while heap and heap[0][0] == rank:
        places.append(heapq.heappop(heap)[1])
    return places


def with_quick_merges(tokenizer: Any) -> Any:
    """`tokenizer`, or a copy that joins pairs as above where it would do that in Python, letter by letter (transformers 4)."""
    ranks = getattr(tokenizer, "bpe_ranks", None)
    if not isinstance(ranks, dict) or isinstance(getattr(tokenizer, "bpe", None), Merges):
        return tokenizer
    quick = copy.copy(tokenizer)  # the webui's own stays as it is
    quick.bpe = Merges(ranks, [tokenizer.bos_token, tokenizer.eos_token])
    return quick
