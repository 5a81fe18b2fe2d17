"""CLIP's byte pair encoding of one word, equal to the reference (openai/CLIP `simple_tokenizer.bpe`), in O(n log n).

The reference scans the whole word for each pair that it merges. Here the parts of a word form a linked list, and pairs of
neighbours a heap: the pairs of the lowest rank are merged next, from left to right.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

END_OF_WORD = "</w>"
KEPT, LONGEST_KEPT = 20_000, 64  # words in the cache, and letters of the longest


class Merges:
    """`bpe` of a CLIP tokenizer: a word -> its parts, joined by spaces. `ranks`: pair -> merge rank, lowest first."""

    def __init__(self, ranks: Mapping[tuple[str, str], int], whole: Sequence[str] = ()) -> None:
        self._ranks = ranks
        self._whole = frozenset(whole)  # special tokens, which are not split
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
        """The parts after all merges. Meanwhile, a part that was merged into the one before it is empty."""
        after = [*range(1, len(parts)), -1]
        before = [*range(-1, len(parts) - 1)]

        def rank_at(left: int) -> int | None:
            """Merge rank of the pair that begins at `left`; None if it is never merged."""
            return self._ranks.get((parts[left], parts[after[left]])) if left >= 0 and after[left] >= 0 else None

        heap = [(rank, place) for place in range(len(parts)) if (rank := rank_at(place)) is not None]
        heapq.heapify(heap)
        while heap:
            now = heap[0][0]
            for left in _lowest(heap):
                if not parts[left] or rank_at(left) != now:
                    continue  # one of the two was merged with another part
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
    """Pop the places of the lowest rank from the heap, from left to right. Merging them makes no new pair of that rank."""
    rank, places = heap[0][0], []
    while heap and heap[0][0] == rank:
        places.append(heapq.heappop(heap)[1])
    return places


def with_quick_merges(tokenizer: Any) -> Any:
    """`tokenizer`, or a copy that uses `Merges` if its own merging is written in Python (transformers 4)."""
    ranks = getattr(tokenizer, "bpe_ranks", None)
    if not isinstance(ranks, dict) or isinstance(getattr(tokenizer, "bpe", None), Merges):
        return tokenizer
    quick = copy.copy(tokenizer)  # the webui's tokenizer stays unchanged
    quick.bpe = Merges(ranks, [tokenizer.bos_token, tokenizer.eos_token])
    return quick
