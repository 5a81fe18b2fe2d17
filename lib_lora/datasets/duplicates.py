"""Which images are there more than once: the same file, or almost the same picture."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lib_lora.data.image_facts import ImageFacts
from lib_lora.data.sizes import Crop
from lib_lora.datasets.image_set import ImageEntry

NEAR = 5  # bits of 64 in which the hashes of nearly equal images differ at most
RATIO = 0.05  # by which their ratios of width to height differ at most
TELLING = 8  # bits of each kind in the hash of an image that is not plain; plain images have like hashes
_BANDS = NEAR + 1  # if at most NEAR bits differ, one of so many bands is equal
_WIDTH = -(-64 // _BANDS)


class Group(NamedTuple):
    """Images of which one is enough. `keep`: the place of the one to keep. `exact`: they are the same file."""

    keep: str
    others: tuple[str, ...]
    exact: bool


class _Known(NamedTuple):
    """What decides of an image. `captioned`: whether it has a caption that says something."""

    place: str
    crop: Crop | None
    captioned: bool
    facts: ImageFacts


def duplicates(entries: Sequence[ImageEntry], facts: Mapping[str, ImageFacts]) -> list[Group]:
    """Groups of equal and of nearly equal images; every image is among the `others` of one group at most.

    Images that are left out are passed over, and so is the same file with another crop. Each of a group is nearly equal to the
    one that is kept, not only to another of the group: a series of photos is not taken for one. Of equal files the one to keep
    may be nearly equal to a better image.
    """
    return list(_groups(tuple(
        _Known(entry.place, entry.edit.crop, bool(entry.caption and entry.caption.strip()), facts[entry.place])
        for entry in entries
        if entry.place in facts and not entry.edit.left_out
    )))  # fmt: skip


@functools.lru_cache(maxsize=8)  # a page asks again and again, and hardly anything changes
def _groups(known: tuple[_Known, ...]) -> tuple[Group, ...]:
    order = sorted(known, key=_worth, reverse=True)
    same: dict[object, list[_Known]] = {}
    for image in order:
        same.setdefault((image.facts.sha256, image.crop), []).append(image)
    groups = [Group(first.place, _places(rest), True) for first, *rest in same.values() if rest]
    firsts = [group[0] for group in same.values() if _is_telling(group[0].facts)]
    return (*groups, *_near(firsts))


def _near(order: list[_Known]) -> Iterator[Group]:
    """Groups of nearly equal images, of different files; `order`: the best first."""
    by_band: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(order):
        for band in _bands(image.facts.hash):
            by_band.setdefault(band, []).append(index)
    taken: set[int] = set()
    for index, image in enumerate(order):
        if index in taken:
            continue
        maybe = {other for band in _bands(image.facts.hash) for other in by_band[band] if other > index} - taken
        alike = [other for other in sorted(maybe) if is_near(image.facts, order[other].facts)]
        if alike:
            taken.update(alike)
            yield Group(image.place, _places([order[other] for other in alike]), False)


def _is_telling(facts: ImageFacts) -> bool:
    """Whether the hash says something of the image."""
    return TELLING <= facts.hash.bit_count() <= 64 - TELLING


def is_near(one: ImageFacts, other: ImageFacts) -> bool:
    """Whether two different files look almost the same, if both hashes are telling."""
    if one.sha256 == other.sha256 or (one.hash ^ other.hash).bit_count() > NEAR:
        return False
    ratios = one.size.width / one.size.height, other.size.width / other.size.height
    return abs(ratios[0] / ratios[1] - 1) <= RATIO


def _bands(bits: int) -> list[tuple[int, int]]:
    return [(band, bits >> band * _WIDTH & (1 << _WIDTH) - 1) for band in range(_BANDS)]


def _worth(image: _Known) -> tuple[bool, int, float]:
    """What makes an image the one to keep: it has a caption, it is larger, it is sharper; among equals the first stays first."""
    return image.captioned, image.facts.size.area, image.facts.sharpness


def _places(images: Sequence[_Known]) -> tuple[str, ...]:
    return tuple(image.place for image in images)
