"""What the fault campaign accepts as a sentence."""

from __future__ import annotations

import pytest

from tests.house import assert_one_sentence

GOOD = "Rank (rank): got 0, must be at least 1; choose 4, 8 or 16."


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "Name (name): got 'xxxx..., it is too long; at most 100 bytes.",
        "'a.png' cannot be read (No space left on device); free space on that disk.",
    ],
)
def test_sentences(text: str) -> None:
    assert_one_sentence(text)


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "Failed.", "rank must be at least 1 here.", f"{GOOD} ", GOOD[:-1], f"{GOOD}\n{GOOD}", f"{GOOD}.",
        "The file cannot be read (<_io.TextIOWrapper object at 0x7f10>); choose another.", "The file {name} cannot be read; choose another.",
        "Traceback (most recent call last): the file cannot be read.", "A part, of <class 'int'>, cannot be read here.",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        assert_one_sentence(text)
