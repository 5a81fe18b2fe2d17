"""Tags of a dataset by frequency, and its images filtered and sorted by their captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from lib_lora.data.caption_processing import tags_of
from lib_lora.datasets.caption_changes import SEPARATOR
from lib_lora.datasets.image_set import ImageEntry

SortBy = Literal["name", "size", "tokens"]
_NUMBER = re.compile(r"([0-9]{1,18})")


class TagCount(NamedTuple):
    """A tag, in its commonest spelling, and the number of images that have it."""

    tag: str
    images: int


def tag_counts(entries: Sequence[ImageEntry], separator: str = SEPARATOR) -> list[TagCount]:
    """The tags of the captions, the commonest first; of equally common ones, the one that comes first in the dataset."""
    images: Counter[str] = Counter()
    spellings: dict[str, Counter[str]] = {}
    for entry in entries:
        tags = _tags(entry, separator)
        images.update(dict.fromkeys(map(str.casefold, tags)).keys())
        for tag in tags:
            spellings.setdefault(tag.casefold(), Counter())[tag] += 1
    return [TagCount(spellings[key].most_common(1)[0][0], count) for key, count in images.most_common()]


def matching(entries: Sequence[ImageEntry], text: str) -> list[ImageEntry]:
    """The images whose captions contain `text`, in any case."""
    wanted = text.casefold()
    return [entry for entry in entries if wanted in (entry.caption or "").casefold()]


def has_caption(entry: ImageEntry) -> bool:
    """Whether an image has a caption that says something."""
    return bool((entry.caption or "").strip())


def in_order(entries: Sequence[ImageEntry], by: SortBy, values: Mapping[str, int] | None = None) -> list[ImageEntry]:
    """The images sorted by name, numbers in it as numbers, or by `values`; equal ones stay in their order.

    `values`: pixels or tokens by the images' places. Images without a value are the last.
    """
    if by == "name":
        return sorted(entries, key=lambda entry: _parts(entry.place))
    found = values or {}
    known = [entry for entry in entries if entry.place in found]
    ordered = sorted(known, key=lambda entry: found[entry.place])
    return [*ordered, *(entry for entry in entries if entry.place not in found)]


def _tags(entry: ImageEntry, separator: str) -> list[str]:
    return [tag for line in (entry.caption or "").split("\n") for tag in tags_of(line, separator) if tag]


def _parts(name: str) -> list[tuple[int, int, str]]:
    """`name` as texts and numbers, which can be compared."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part.casefold()) for part in _NUMBER.split(name) if part]
