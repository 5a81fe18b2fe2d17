"""Weighted captions and the two rules of long captions, against values of the webui's and sd-scripts' own functions."""

from __future__ import annotations

from itertools import groupby
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib_lora.config.text import TextConfig
from lib_lora.data.chunking import Tokens, batch_tokens
from lib_lora.data.prompt_emphasis import attention_weights
from lib_lora.data.tokens import load_tokenizer
from lib_lora.model.conditioning import TextInputs, encode
from lib_lora.model.text_encoders import ClipEncoder
from lib_lora.training.precision import Precision
from lib_lora.training.texts import Texts

TOKENIZER = load_tokenizer()
END = TOKENIZER.eos_token_id

# what the webui's prompt_parser.parse_prompt_attention gave
WEBUI: dict[str, list[Any]] = {
    "a (red:1.3) [blue] cat": [["a ", 1.0], ["red", 1.3], [" ", 1.0], ["blue", 0.9090909090909091], [" cat", 1.0]],
    "(x: 1.2) BREAK y": [["x", 1.2], ["", 1.0], ["BREAK", -1], ["y", 1.0]],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ["a ", 1.0], ["house", 1.5730000000000004], [" ", 1.1], ["on", 1.0], [" a ", 1.1], ["hill", 0.55], [", sun, ", 1.1],
        ["sky", 1.4641000000000006], [".", 1.1]],
    "(a (very) big:0.5) \\(dog\\) [[thing]": [["a ", 0.5], ["very", 0.55], [" big", 0.5], [" (dog) ", 1.0], ["thing", 0.8264462809917354]],
    "a) b] (c": [["a) b] ", 1.0], ["c", 1.1]],
    "a BREAK (b BREAK c:1.5)": [["a", 1.0], ["BREAK", -1], ["", 1.0], ["b", 1.5], ["BREAK", -1.5], ["c", 1.5]],
    "c:\\d (e:+.5) f\\\\ :)": [["c:d ", 1.0], ["e", 0.5], [" f\\ :)", 1.0]],
    "": [["", 1.0]],
}  # fmt: skip


@pytest.mark.parametrize("text", WEBUI)
def test_the_webuis_grammar(text: str) -> None:
    assert [[piece.text, piece.weight] for piece in attention_weights(text, webui=True)] == WEBUI[text]


def test_sd_scripts_grammar_knows_neither_break_nor_spaces_at_a_number() -> None:
    pieces = attention_weights("(x: 1.2) BREAK y", webui=False)
    assert [(piece.text, piece.weight) for piece in pieces] == [("x: 1.2", 1.1), (" BREAK y", 1.0)]
    same = "(a (very) big:0.5) \\(dog\\) [[thing]"
    assert [[piece.text, piece.weight] for piece in attention_weights(same, webui=False)] == WEBUI[same]


@pytest.mark.parametrize("text", ["(a:...)", "(a:1.2.3)", "(a:-)"])
def test_what_is_no_number_is_text(text: str) -> None:
    assert [(piece.text, piece.weight) for piece in attention_weights(text, webui=True)] == [(text[1:-1], 1.1)]


def one(caption: str, **text: Any) -> Tokens:
    return batch_tokens(TOKENIZER, [caption], TextConfig(**text))


def runs(weights: list[float]) -> list[tuple[float, int]]:
    return [(value, len(list(same))) for value, same in groupby(round(weight, 6) for weight in weights)]


@pytest.mark.parametrize("length", ["75", "150"])
def test_weighted_tokens_of_sd_scripts(length: str) -> None:
    """Against SdTokenizeStrategy.tokenize_with_weights."""
    tokens = one("(a (very) big:0.5) \\(dog\\) [[thing]", max_token_length=length, weighted_captions=True)
    assert tokens.weights is not None and len(tokens.ids[0]) == len(tokens.weights[0]) == int(length) // 75
    assert tokens.ids[0][0][1:9] == [320, 1070, 1205, 263, 1929, 264, 946, END]
    assert runs(tokens.weights[0][0])[:6] == [(1.0, 1), (0.5, 1), (0.55, 1), (0.5, 1), (1.0, 3), (0.826446, 1)]
    assert one("(a) b", max_token_length=length).weights is None


def test_a_long_weighted_caption_of_sd_scripts() -> None:
    caption = ", ".join(f"word{i} (thing:1.5)" for i in range(30))
    short, long = (one(caption, max_token_length=length, weighted_captions=True) for length in ("75", "150"))
    for tokens, ids, weights in ((short, 72299, 83.5), (long, 672905, 165.0)):
        assert tokens.weights is not None
        assert sum(sum(chunk[1:-1]) for chunk in tokens.ids[0]) == ids
        assert sum(sum(chunk[1:-1]) for chunk in tokens.weights[0]) == pytest.approx(weights)


# for each chunk: where the first end token is, and the sum of all ids mod 100003; with emphasis off and on, from tokenize_line
LONG: dict[str, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {
    "word " * 74 + "red, blue cat": ([(76, 95865), (4, 60390)], [(76, 95865), (4, 60390)]),
    "word " * 60 + ", " + "cat " * 30: ([(62, 49931), (31, 93099)], [(62, 49931), (31, 93099)]),
    "word " * 50 + ", " + "cat " * 30: ([(76, 88556), (7, 21999)], [(76, 88556), (7, 21999)]),
    "word " * 75 + ", cat": ([(76, 97782), (3, 8048)], [(76, 97782), (3, 8048)]),
    "cat " * 75: ([(76, 76407)], [(76, 76407)]),
    "(one (two:1.5), " * 40 + "BREAK end": ([(76, 46845), (76, 47472), (76, 48588)], [(76, 52335), (48, 17653)]),
    "BREAK a": ([(3, 8301)], [(1, 4224), (2, 55140)]),
    "": ([(1, 4224)], [(1, 4224)]),
}


@pytest.mark.parametrize("caption", LONG, ids=lambda caption: caption[:20])
@pytest.mark.parametrize("weighted", [False, True])
def test_chunks_of_the_webui(caption: str, weighted: bool) -> None:
    tokens = one(caption, max_token_length="225", token_rule="webui", weighted_captions=weighted)
    assert [(chunk.index(END, 1), sum(chunk) % 100003) for chunk in tokens.ids[0]] == LONG[caption][weighted]
    assert (tokens.weights is not None) == weighted


def test_weights_move_with_the_tokens_behind_a_comma() -> None:
    tokens = one("word " * 60 + ", (" + "cat " * 30 + ":1.5)", max_token_length="225", token_rule="webui", weighted_captions=True)
    assert tokens.weights is not None
    assert [runs(weights) for weights in tokens.weights[0]] == [[(1.0, 77)], [(1.0, 1), (1.5, 30), (1.0, 46)]]


def test_a_batch_is_filled_with_empty_chunks() -> None:
    tokens = batch_tokens(TOKENIZER, ["cat", "cat " * 90], TextConfig(token_rule="webui", max_token_length="225"))
    assert [len(chunks) for chunks in tokens.ids] == [2, 2]
    assert tokens.ids[0][1] == [TOKENIZER.bos_token_id] + [END] * 76
    cut = one("cat " * 500, token_rule="webui", max_token_length="150")
    assert len(cut.ids[0]) == 2


@pytest.fixture(scope="module")
def encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    config = CLIPTextConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, projection_dim=32)
    return CLIPTextModel(config).eval().requires_grad_(False)


def hidden(encoder: Any, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    """Hidden states of single chunks, `[chunks, 77, 32]`."""
    return torch.cat([encode([ClipEncoder(encoder)], TextInputs((chunk[None, None],)), clip_skip).context for chunk in ids])


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_contexts_are_weighted_chunk_by_chunk(encoder: Any, clip_skip: int) -> None:
    """sd-scripts: bodies alone, rejoined; the webui: whole chunks. Neither brings the mean back."""
    base: Any = SimpleNamespace(tokenizer=TOKENIZER, text_encoders=(ClipEncoder(encoder),), device=torch.device("cpu"))
    caption = "(red:1.5) cat, " + "[blue] dog, " * 40
    for rule in ("kohya", "webui"):
        text = TextConfig(weighted_captions=True, max_token_length="150", clip_skip=clip_skip, token_rule=rule)
        read = Texts(base, text, Precision("no", torch.float32)).tokens([caption])
        ids, weights = read.ids[0], read.weights
        assert weights is not None and ids.shape == weights.shape == (1, 2, 77)
        states = hidden(encoder, ids[0], clip_skip) * weights[0, :, :, None]
        wanted = states.flatten(0, 1)
        if rule == "kohya":
            wanted = torch.cat([states[0, :1], states[0, 1:-1], states[1, 1:-1], states[1, -1:]])
        context = Texts(base, text, Precision("no", torch.float32)).context([caption]).context
        assert context.shape == (1, 152 if rule == "kohya" else 154, 32)
        assert torch.allclose(context[0], wanted, atol=1e-5)


def test_contexts_of_unequal_captions_equal_those_of_a_batch(encoder: Any) -> None:
    base: Any = SimpleNamespace(tokenizer=TOKENIZER, text_encoders=(ClipEncoder(encoder),), device=torch.device("cpu"))
    texts = Texts(base, TextConfig(token_rule="webui", max_token_length="225"), Precision("no", torch.float32))
    captions = ["cat", "dog, " * 60, ""]
    read = texts.tokens(captions)
    together = encode(base.text_encoders, read, 1).context
    assert read.whole_chunks
    assert together.shape == (3, 154, 32) and torch.allclose(texts.context(captions).context, together, atol=1e-5)
