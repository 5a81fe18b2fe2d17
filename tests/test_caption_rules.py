"""The caption of a step: each rule by itself, their order, and that random draws depend only on their place."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from lib_lora.config.text import TextConfig
from lib_lora.data.caption_processing import Moment, shown_caption, varies

TAGS = "ohwx, red hair, blue sky, smile"


def shown(caption: str, *, step: int = 0, epoch: int = 0, place: int = 0, steps: int = 100, seed: int = 3, **options: Any) -> str:
    return shown_caption(TextConfig(**options), caption, Moment(step, steps, epoch, place), seed)


def all_shown(caption: str, **options: Any) -> list[str]:
    return [shown(caption, step=step, **options) for step in range(400)]


def test_without_rules_a_caption_is_taken_as_it_is() -> None:
    assert shown("  a,b ,  (c:1.2) {x|y} ") == "  a,b ,  (c:1.2) {x|y} "
    assert shown("first line\nsecond") == "first line"
    assert not varies(TextConfig(caption_prefix="x", caption_suffix="y", keep_tokens=1))


def test_prefix_and_suffix() -> None:
    assert shown("a cat", caption_prefix="photo of", caption_suffix="at night") == "photo of a cat at night"


@pytest.mark.parametrize(
    "options",
    [{"enable_wildcard": True}, {"shuffle_caption": True}, {"caption_dropout_rate": 0.1}, {"caption_dropout_every_n_epochs": 2},
     {"caption_tag_dropout_rate": 0.1}, {"token_warmup_step": 0.1}],
    ids=str,
)  # fmt: skip
def test_what_makes_captions_vary(options: dict[str, Any]) -> None:
    assert varies(TextConfig(**options))


def test_dropout_has_its_rate() -> None:
    dropped = sum(text == "" for text in all_shown("a cat", caption_dropout_rate=0.25))
    assert 70 <= dropped <= 130
    assert shown("a cat", caption_dropout_rate=1.0, caption_prefix="x") == ""


def test_dropout_epochs_count_from_one() -> None:
    told = [shown("a cat", epoch=epoch, caption_dropout_every_n_epochs=3) for epoch in range(6)]
    assert told == ["a cat", "a cat", "", "a cat", "a cat", ""]


def test_wildcards() -> None:
    found = Counter(all_shown("a {red|blue} car {{x}}", enable_wildcard=True))
    assert set(found) == {"a red car {x}", "a blue car {x}"} and min(found.values()) > 140
    assert set(all_shown("{a|b}{a|b}", enable_wildcard=True)) == {"aa", "ab", "ba", "bb"}
    assert set(all_shown("one\ntwo", enable_wildcard=True)) == {"one", "two"}
    assert shown("a {red} car", enable_wildcard=True) == "a red car"


def test_shuffling_keeps_all_tags_and_those_in_front() -> None:
    told = all_shown(TAGS, shuffle_caption=True, keep_tokens=1)
    assert len(set(told)) == 6 and all(text.startswith("ohwx, ") for text in told)
    assert all(sorted(text.split(", ")) == sorted(TAGS.split(", ")) for text in told)
    assert any(not text.startswith("ohwx") for text in all_shown(TAGS, shuffle_caption=True))


def test_the_trigger_stays_in_front() -> None:
    told = all_shown(TAGS, shuffle_caption=True, caption_tag_dropout_rate=0.9, trigger="ohwx")
    assert all(text.split(", ")[0] == "ohwx" for text in told)


@pytest.mark.parametrize("caption", ["a, ohwx, b", "OHWX cat, a, b", "a, photo of ohwx, b"])
def test_the_trigger_is_never_dropped_wherever_it_stands(caption: str) -> None:
    told = all_shown(caption, shuffle_caption=True, caption_tag_dropout_rate=0.9, trigger="ohwx")
    assert all("ohwx" in text.casefold() for text in told) and len(set(told)) > 1


def test_separator_of_kept_tags() -> None:
    told = set(all_shown("a, b ||| c, d ||| e", shuffle_caption=True, keep_tokens_separator="|||"))
    assert told == {"a, b, c, d, e", "a, b, d, c, e"}
    assert shown("x, y", shuffle_caption=False, caption_tag_dropout_rate=0.0, keep_tokens_separator="|||") == "x, y"


def test_secondary_separator_joins_tags() -> None:
    told = set(all_shown("a;;;b, c", shuffle_caption=True, secondary_separator=";;;"))
    assert told == {"a,b, c", "c, a,b"}


def test_other_separator() -> None:
    assert set(all_shown("a. b", shuffle_caption=True, caption_separator=".")) == {"a, b", "b, a"}


def test_tag_dropout_has_its_rate() -> None:
    told = all_shown(TAGS, caption_tag_dropout_rate=0.5, keep_tokens=1)
    kept = sum(len(text.split(", ")) - 1 for text in told)
    assert all(text.startswith("ohwx") for text in told) and 520 <= kept <= 680


def test_tags_warm_up() -> None:
    counts = [len(shown("a, b, c, d, e", step=step, token_warmup_step=10, token_warmup_min=1).split(", ")) for step in range(12)]
    assert counts == [1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5]
    share = [len(shown("a, b, c, d, e", step=step, steps=20, token_warmup_step=0.5).split(", ")) for step in range(12)]
    assert share == counts


def test_chance_depends_on_seed_step_and_place_alone() -> None:
    options: dict[str, Any] = {"shuffle_caption": True}
    long = ", ".join("abcdefghij")
    assert shown(long, step=5, **options) == shown(long, step=5, **options)
    assert len({shown(long, step=5, **options), shown(long, step=6, **options), shown(long, step=5, place=1, **options),
                shown(long, step=5, seed=4, **options)}) == 4  # fmt: skip
