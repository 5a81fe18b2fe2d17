"""Forty situations of users: from 3 to 3,000 photos, every family, from 6 to 24 GB, with tags, sentences or no captions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from lib_lora.advice.situation import Captions, Kind, Photo, Situation
from lib_lora.config.groups import options_by_name
from lib_lora.data.sizes import Size
from lib_lora.families.family import Family
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL

COUNTS = (3, 5, 8, 15, 40, 120, 700, 3000)
MODELS: tuple[tuple[Family, float], ...] = ((SD1, 6.0), (SD1, 12.0), (SD2, 8.0), (SDXL, 12.0), (SDXL, 24.0))
KINDS: tuple[Kind, ...] = ("person", "style", "object")
CAPTIONS: tuple[Captions, ...] = ("tags", "sentences", "none")
SIDES: Sequence[tuple[int, int]] = ((1024, 768), (768, 1024), (3000, 4000), (1500, 1500), (900, 700), (2000, 700))


def photos(count: int, seed: int = 0) -> tuple[Photo, ...]:
    """Photos of mixed shapes."""
    drawn = random.Random(seed)
    return tuple(Photo(Size(*drawn.choice(SIDES))) for _ in range(count))


SITUATIONS = [
    Situation(
        kind=KINDS[number % 3],
        name="my cat",
        photos=photos(count, number),
        regularisation=photos(count // 2, number) if number % 7 == 0 else (),
        captions=CAPTIONS[number // 2 % 3],
        longest_caption=(40, 120, 200)[number % 3],
        family=family,
        free_gb=free,
        eight_bit=number % 2 == 0,
    )
    for number, (count, (family, free)) in enumerate(itertools.product(COUNTS, MODELS))
]


def named(situation: Situation) -> str:
    """The situation in a few words, as the id of a test."""
    return f"{len(situation.photos)}-{situation.family.id}-{situation.free_gb:g}GB-{situation.captions}-{situation.kind}"


def legal(name: str, drawn: random.Random) -> Any:
    """A legal value of an option, at random."""
    opt = options_by_name()[name]
    if opt.type is bool:
        return drawn.random() < 0.5
    if opt.choices:
        return drawn.choice(opt.choices)
    if opt.type in (int, float) and opt.declaration.between:
        low, high = opt.declaration.between
        return opt.type(drawn.uniform(low, min(high, low + 20)))
    return opt.default
