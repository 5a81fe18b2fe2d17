"""Embeddings: how captions are read with them, what a file contains, and notes before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib_lora.config.groups import build_config
from lib_lora.config.rules import config_problems
from lib_lora.config.text import TextConfig
from lib_lora.data.chunking import Tokens, batch_tokens
from lib_lora.data.embedding_tokens import FIRST, EmbeddingTokenizer, named_in, placed, units
from lib_lora.data.tokens import caption_ids, load_tokenizer, plain_ids
from lib_lora.errors import LoraFileError
from lib_lora.kohya.importing import from_kohya
from lib_lora.model.base import Embedding
from lib_lora.model.embeddings import bundle, bundled, without_bundle
from lib_lora.settle import settle
from lib_lora.training.continued_files import weights_problems
from tests.test_weights import TEXT, lora, tensors

TOKENIZER = load_tokenizer()
NAMES, COUNTS = ["ohwx", "my ohwx cat", "cat"], [2, 3, 1]
OHWX, MY_CAT, CAT = ([*place] for place in placed(COUNTS))


def read(text: str) -> list[int]:
    return plain_ids(EmbeddingTokenizer(TOKENIZER, NAMES, COUNTS), text)


def plain(text: str) -> list[int]:
    return plain_ids(TOKENIZER, text)


def test_words_are_found_in_any_case_and_the_longest_wins() -> None:
    assert (OHWX, MY_CAT, CAT) == ([FIRST, FIRST + 1], [FIRST + 3, FIRST + 4, FIRST + 5], [FIRST + 7])
    assert len(plain("my ohwx cat")) == 3, "a word of several tokens"
    assert read("a photo of OHWX, big") == plain("a photo of") + OHWX + plain(", big")
    assert read("my  Ohwx cat") == MY_CAT and read("my ohwx dog") == plain("my") + OHWX + plain("dog")
    assert read("cat cat") == CAT * 2 and read("catalogue") == plain("catalogue") and read("") == []
    assert named_in(TOKENIZER, NAMES, "a Cat of ohwx") == {0, 2}
    assert plain_ids(EmbeddingTokenizer(TOKENIZER, ["my", "my ohwx cat"], [1, 1]), "my ohwx cat") == [FIRST + 2], "the longest"
    assert plain_ids(EmbeddingTokenizer(TOKENIZER, ["cat", "CAT"], [1, 1]), "cat") == [FIRST], "of equal words the first one"


def test_tokens_of_one_word_stay_together() -> None:
    assert units(read("ohwx ohwx cat red my ohwx cat")) == [OHWX, OHWX, CAT, plain("red"), MY_CAT]


def one(caption: str, **text: Any) -> Tokens:
    return batch_tokens(EmbeddingTokenizer(TOKENIZER, NAMES, COUNTS), [caption], TextConfig(**text))


def test_every_vector_is_a_token_of_the_caption() -> None:
    """75 in all; the webui's rule moves a word that does not fit, sd-scripts' cuts it."""
    caption = "red " * 74 + "ohwx"
    cut = one(caption, max_token_length="150").ids[0]
    assert cut[0][75] == OHWX[0] and cut[1][1:3] == [OHWX[1], 49407]
    moved = one(caption, max_token_length="150", token_rule="webui").ids[0]
    assert moved[0][75] == 49407 and moved[1][1:4] == [*OHWX, 49407]
    whole = one("red " * 73 + "ohwx", max_token_length="150", token_rule="webui").ids[0]
    assert len(whole) == 1 and whole[0][74:] == [*OHWX, 49407]


@pytest.mark.parametrize("rule", ["kohya", "webui"])
def test_weights_reach_every_vector(rule: str) -> None:
    tokens = one("a (ohwx:1.5) cat", weighted_captions=True, token_rule=rule)
    assert tokens.ids[0][0][1:6] == [*plain("a"), *OHWX, *CAT, 49407]
    assert tokens.weights is not None and tokens.weights[0][0][:6] == [1.0, 1.0, 1.5, 1.5, 1.0, 1.0]


def test_samples_read_prompts_with_the_words() -> None:
    assert caption_ids(EmbeddingTokenizer(TOKENIZER, NAMES, COUNTS), "ohwx", 75, 0)[0][:5] == [49406, *OHWX, 49407, 0]


def word(*widths: int, name: str = "ohwx", count: int = 2) -> Embedding:
    return Embedding(name, tuple(torch.randn(count, width) for width in widths))


def test_a_bundle_has_the_keys_of_sd_scripts_and_comes_back() -> None:
    one_encoder, two = word(8), word(8, 6)
    assert set(bundle(one_encoder)) == {"bundle_emb.ohwx.emb_params"}
    assert set(bundle(two)) == {"bundle_emb.ohwx.clip_l", "bundle_emb.ohwx.clip_g"}
    for made in (one_encoder, two):
        state = {**tensors(TEXT), **bundle(made)}
        (back,) = bundled(state)
        assert back.name == "ohwx" and all(torch.equal(a, b) for a, b in zip(back.vectors, made.vectors))
        assert set(without_bundle(state)) == set(tensors(TEXT))


def test_other_keys_that_the_webui_reads() -> None:
    vectors = torch.randn(2, 8)
    old, single = bundled({"bundle_emb.a.string_to_param.*": vectors, "bundle_emb.b.<b>": vectors[0]})
    assert torch.equal(old.vectors[0], vectors) and torch.equal(single.vectors[0], vectors[:1])
    for broken in ({"x": vectors, "y": vectors}, {"clip_l": vectors, "clip_g": vectors[:1]}, {"x": vectors[None]}):
        with pytest.raises(LoraFileError, match="embedding 'a' is incomplete or has an unknown type"):
            bundled({f"bundle_emb.a.{key}": value for key, value in broken.items()})


@pytest.mark.parametrize(("flat", "told"), {
    "no word": ({"embedding_vectors": 2}, "give a Trigger word"),
    "a dot": ({"embedding_vectors": 2, "trigger": "my.cat"}, "'my.cat', but a word with an embedding must not contain any of"),
    "AND": ({"embedding_vectors": 2, "trigger": "salt AND pepper"}, "or AND or BREAK"),
    "half a step": ({"embedding_vectors": 1, "trigger": "x", "stop_embedding_training": 1.5}, "Stop the embedding"),
    "one rate": ({"embedding_vectors": 1, "trigger": "x", "optimizer": "Prodigy", "unet_lr": 1, "text_encoder_lr": 0},
                 "and Learning rate, embedding (embedding_lr) to the same value"),
    "its own rate": ({"embedding_vectors": 1, "trigger": "x", "optimizer": "AdaFactor", "lr_scheduler": "adafactor"}, "has no effect"),
}.values())  # fmt: skip
def test_rules(flat: dict[str, Any], told: str) -> None:
    problems = config_problems(build_config({"name": "x", "data": ["y"], **flat}))
    assert any(told in problem for problem in problems), problems


def test_a_word_with_an_embedding_may_have_these() -> None:
    config = build_config({"name": "x", "data": ["y"], "trigger": "OHWX_cat-2 it's", "embedding_vectors": 1})
    assert config_problems(config) == []


def test_a_file_with_an_embedding_is_gone_on_with_as_a_whole(tmp_path: Path) -> None:
    path = lora(tmp_path, {**tensors(TEXT), **bundle(word(8))})
    flat = {"rank": 4, "alpha": 2, "network_weights": path}

    def problems(**changes: Any) -> list[str]:
        return weights_problems(settle(build_config({**flat, **changes}), None))

    assert problems(trigger="ohwx", embedding_vectors=2) == []
    for changes in (
        {"trigger": "ohwx"},
        {"trigger": "other", "embedding_vectors": 2},
        {"trigger": "ohwx", "embedding_vectors": 3},
    ):
        (told,) = problems(**changes)
        assert "contains the embedding 'ohwx' with 2 vectors; set Trigger word (trigger) to ohwx" in told
    save_file({**tensors(TEXT), **bundle(word(8)), **bundle(word(8, name="b"))}, path)
    assert "contains 2 embeddings" in problems()[0]


def test_a_file_with_an_embedding_is_not_merged_below(tmp_path: Path) -> None:
    path = lora(tmp_path, {**tensors(TEXT), **bundle(word(8))})
    (told,) = weights_problems(settle(build_config({"base_weights": [path]}), None))
    assert told.startswith("Merge first (base_weights):") and "contains an embedding" in told


def test_textual_inversion_of_kohya() -> None:
    found = from_kohya({"token_string": "mycat", "num_vectors_per_token": 4, "init_word": "cat"})
    assert found.problems() == []
    assert found.flat == {"trigger": "mycat", "embedding_vectors": 4, "init_word": "cat"}
    assert from_kohya({"token_string": "mycat"}).flat["embedding_vectors"] == 1
    rates = ("embedding_lr", "unet_lr", "text_encoder_lr")
    alone = from_kohya({"token_string": "mycat", "learning_rate": 0.005}).flat
    beside = from_kohya({"token_string": "mycat", "learning_rate": 0.005, "network_dim": 4}).flat
    assert [alone.get(name) for name in rates] == [0.005, None, None]
    assert [beside.get(name) for name in rates] == [None, 0.005, 0.005]
    assert from_kohya({"num_vectors_per_token": 4, "init_word": "cat"}).flat == {}
