"""Numbers of tokens are those of the model's tokenizer, of the captions that training shows."""

from __future__ import annotations

import pytest
from transformers import CLIPTokenizer

from lib_lora.config.text import TextConfig
from lib_lora.data.caption_processing import Moment, shown_caption, unvaried
from lib_lora.data.chunking import batch_tokens
from lib_lora.data.tokens import VOCABULARY, load_tokenizer
from lib_lora.datasets.caption_tokens import token_counts, token_limit, trained_lines

CAPTIONS = ["a photo of a cat", "猫, 🐈‍⬛", "naruto \\(series\\), (red hair:1.2)", "x" * 300, ""]


def test_counts_are_those_of_transformers() -> None:
    theirs = CLIPTokenizer.from_pretrained(str(VOCABULARY), local_files_only=True)
    expected = [len(theirs(caption, add_special_tokens=False).input_ids) for caption in CAPTIONS]
    assert token_counts(CAPTIONS, TextConfig()) == expected
    assert token_counts(["a photo of a cat", None], TextConfig()) == [5, 0]


def test_the_trigger_is_counted_as_training_puts_it() -> None:
    text = TextConfig(trigger="ohwx cat")
    assert trained_lines("a red hat", text) == ["ohwx cat, a red hat"]
    assert trained_lines("an OHWX cat with a hat", text) == ["an OHWX cat with a hat"]
    assert trained_lines(None, text) == ["ohwx cat"]
    plain = token_counts(["a red hat", "ohwx cat"], TextConfig())
    assert token_counts(["a red hat", None], text) == [plain[0] + plain[1] + 1, plain[1]]  # and a comma


def test_lines_are_what_training_shows() -> None:
    text = TextConfig(trigger="ohwx", caption_prefix="photo,", caption_suffix=", indoors")
    for caption in ("a cat", "", "first\nsecond"):
        written = "\n".join(trained_lines(caption, TextConfig(trigger="ohwx")))
        assert trained_lines(caption, text)[0] == shown_caption(unvaried(text), written, Moment(0, 1, 0, 0), 0)


def test_of_lines_the_longest_counts_where_they_are_used() -> None:
    lines = "a\na photo of a cat"
    assert token_counts([lines], TextConfig()) == [1]
    assert token_counts([lines], TextConfig(enable_wildcard=True)) == [5]
    assert token_counts(["\n\n a cat"], TextConfig()) == [2]


@pytest.mark.parametrize("rule", ["kohya", "webui"])
def test_weights_are_no_tokens_where_they_are_read(rule: str) -> None:
    text = TextConfig(weighted_captions=True, token_rule=rule)  # type: ignore[arg-type]
    tokenizer = load_tokenizer()
    for caption in ("a (red:1.3) cat", "[blue] cat", "a cat \\(x\\)"):
        (count,) = token_counts([caption], text)
        (ids,) = batch_tokens(tokenizer, [caption], text).ids[0]
        assert ids[1 : count + 2].index(tokenizer.eos_token_id) == count
    assert token_counts(["a (red:1.3) cat"], TextConfig()) > token_counts(["a (red:1.3) cat"], text)


def test_a_caption_of_brackets_does_not_hide_the_other_counts() -> None:
    assert token_counts(["(" * 500, "a cat"], TextConfig(weighted_captions=True))[1] == 2


def test_the_limit_is_the_caption_length() -> None:
    assert [token_limit(TextConfig(max_token_length=length)) for length in ("75", "150", "225")] == [75, 150, 225]  # type: ignore[arg-type]


def test_a_caption_of_a_megabyte_is_counted_to_a_bound() -> None:
    assert token_counts(["a " * 500_000], TextConfig()) == [10_000]
