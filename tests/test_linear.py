"""Four times the text takes four times the steps: every pattern of the sources, and every loop over foreign text or files."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_lora.config.groups import build_config
from lib_lora.config.keyword_arguments import parse_arguments, split_arguments
from lib_lora.config.literals import LiteralError, literal
from lib_lora.data import image_headers
from lib_lora.data import image_headers as jpeg
from lib_lora.data.caption_processing import Moment, shown_caption
from lib_lora.data.captions import with_trigger
from lib_lora.data.chunking import batch_tokens
from lib_lora.data.image_files import image_size
from lib_lora.data.images import load_pixels
from lib_lora.data.merges import Merges, with_quick_merges
from lib_lora.data.prompt_emphasis import MAX_OPEN, attention_weights
from lib_lora.data.tokens import VOCABULARY, load_tokenizer, plain_ids
from lib_lora.errors import DatasetError
from tests.steps import SCANNING, Matcher, attacks, patterns, steps_of

ROOMS = Path(__file__).parent.parent / "lib_lora"
PATTERNS = list(patterns(ROOMS))
SHORT, LONG = 12, 48
MOST = 6.0  # linear is 4, n log n below 5, quadratic 16


@pytest.mark.parametrize(("pattern", "flags", "uses"), [found[1:] for found in PATTERNS], ids=[found[0] for found in PATTERNS])
def test_every_pattern_is_linear(pattern: str | bytes, flags: int, uses: set[str]) -> None:
    matcher = Matcher(pattern, flags)
    for use in uses:
        way = {"scans": use in SCANNING, "first_only": use == "search"}
        for text in attacks(matcher):
            short, long = (matcher.run(text(n), **way) for n in (SHORT, LONG))
            assert long <= MOST * short + 50, (use, text(3))


@pytest.mark.parametrize(
    ("pattern", "way"),
    [(r"\s+(?=[A-Za-z_]\w*\s*=)", "split"), (rb"\xff+([^\x00\xff])", "search"), (r"\s*\bBREAK\b\s*", "split"), (r":(?:\d+\.?\d*)\)", "match"),
     (r"(?:a|aa)+!", "match")],
)  # fmt: skip
def test_the_count_knows_a_pattern_that_is_not(pattern: str | bytes, way: str) -> None:
    matcher = Matcher(pattern)
    scans = way in SCANNING
    pairs = [[matcher.run(text(n), scans=scans) for n in (8, 32) if len(text(n)) < 36] for text in attacks(matcher)]
    assert any(len(pair) == 2 and pair[1] > MOST * pair[0] + 50 for pair in pairs)


def quietly(function: Callable[..., object], *values: Any) -> Callable[[], object]:
    def called() -> object:
        try:
            return function(*values)
        except (ValueError, DatasetError) as error:
            return error

    return called


MOMENT = Moment(1, 10, 0, 0)
PLAIN = build_config({}).text
SHUFFLED = build_config({"enable_wildcard": True, "trigger": "cat", "keep_tokens": 1, "shuffle_caption": False,
                         "caption_tag_dropout_rate": 0.0, "token_warmup_step": 0.5}).text  # fmt: skip
WEIGHTED = build_config({"weighted_captions": True, "token_rule": "webui", "max_token_length": "225"}).text
RANKS = {
    tuple(line.split()): rank
    for rank, line in enumerate((VOCABULARY / "merges.txt").read_text(encoding="utf-8").split("\n")[1:48895])
}
MERGES = Merges(RANKS)  # type: ignore[arg-type]
LOOPS: dict[str, Callable[[str], object]] = {
    "split_arguments": split_arguments,
    "parse_arguments": lambda text: parse_arguments([text]),
    "parse_arguments of a value": lambda text: parse_arguments([f"a={text}"]),
    "parse_arguments one by one": lambda text: parse_arguments([f"a={part}" for part in text]),
    "literal": literal,
    "literal in brackets": lambda text: literal(f"({text})"),
    "weights of the webui": lambda text: attention_weights(text, webui=True),
    "weights of sd-scripts": lambda text: attention_weights(text, webui=False),
    "a caption": lambda text: shown_caption(SHUFFLED, text, MOMENT, 1),
    "a trigger": lambda text: with_trigger(text, "cat"),
    "merges": lambda text: MERGES(text or "x"),
    "scans of a JPEG": lambda text: jpeg.jpeg_problem(b"\xff\xd8" + text.encode("latin-1", "replace")),
}
PUMPS = [" ", "a", "a ", "a=", "a=1 ", "=", "(", ")", "()", "[", "[]", ",", "a,", "1,", "'", "'a'", '"', "1", "1+", "-", "\\", "\\(", "(a", "(a)",
         "(a:1.1)", ":1", ": ", "{", "}", "{a|b}", "{{", "{a", "|", "BREAK ", " BREAK", "cat,", "cat", "\xff", "\xff\xd0", "\xff\xc4\x00\x00", "\xff\xda\x00\x02",
         "\n", "ab", "is", "e1", "a=(1,2) ", "a=[ "]  # fmt: skip


@pytest.mark.parametrize("name", list(LOOPS))
def test_every_loop_is_linear(name: str) -> None:
    limit = sys.getrecursionlimit()
    for pump in PUMPS:
        few = 25 if name.endswith("one by one") else 100
        short, long = (steps_of(quietly(LOOPS[name], pump * n)) for n in (few, 4 * few))
        assert long <= MOST * short + 3000, pump
    assert sys.getrecursionlimit() == limit


def test_the_count_knows_a_loop_that_is_not() -> None:
    def quadratic(text: str) -> int:
        return sum(1 for i in range(len(text)) for _ in range(i))

    short, long = (steps_of(lambda n=n: quadratic("x" * n)) for n in (100, 400))  # type: ignore[misc]
    assert long > MOST * short


def reference(word: str) -> str:
    """Byte pair encoding as openai/CLIP describes it: the pair of the lowest rank is joined wherever it stands, again and again."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        best = min(zip(parts, parts[1:]), key=lambda pair: RANKS.get(pair, 10**9))
        if best not in RANKS:
            break
        joined: list[str] = []
        while parts:
            both = len(parts) > 1 and (parts[0], parts[1]) == best
            joined.append("".join(parts[: 1 + both]))
            parts = parts[1 + both :]
        parts = joined
    return " ".join(parts)


@pytest.mark.parametrize("alphabet", ["ab", "ha", "aeioustrnl", "abcdefghijklmnopqrstuvwxyz", "!?.-_*=~", "ĠÃ©âĢ¦ðŁĺ"])
def test_merges_are_those_of_the_reference(alphabet: str) -> None:
    rng = random.Random(5)
    for _ in range(400):
        word = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 40)))
        assert MERGES(word) == reference(word)


def test_token_ids_are_those_of_transformers() -> None:
    """Of random texts of words, signs, emoji and spaces, by a tokenizer that nobody touched."""
    from transformers import CLIPTokenizer

    theirs, ours, rng = CLIPTokenizer.from_pretrained(str(VOCABULARY), local_files_only=True), load_tokenizer(), random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz  ,,.!?()'-_0123456789éüß猫犬🐱👩‍🎨\n\t"
    for _ in range(300):
        text = "".join(rng.choice(letters) for _ in range(rng.randint(0, 120)))
        assert plain_ids(ours, text) == theirs(text, add_special_tokens=False).input_ids
    for text in ("<|endoftext|> cat", "<|startoftext|>", "cat<|endoftext|>dog", "it's we'll I'D"):
        assert plain_ids(ours, text) == theirs(text, add_special_tokens=False).input_ids
    assert with_quick_merges(theirs) is theirs or not isinstance(theirs.bpe, Merges), "the host's own stays as it is"


def test_one_long_word_is_read_and_cut() -> None:
    tokens = batch_tokens(load_tokenizer(), ["ab" * 10_000], WEIGHTED)
    assert len(tokens.ids[0]) == 3


def test_brackets_without_end_are_a_sentence() -> None:
    assert attention_weights("(" * MAX_OPEN + "a", webui=True)[0].weight > 1e8
    for text in ("(a" * (MAX_OPEN + 1), "[a" * 100_000):
        with pytest.raises(DatasetError, match="open brackets"):
            attention_weights(text, webui=False)


def test_numbers_and_texts_of_arguments_are_bounded() -> None:
    for text in ("1+" * 110_000 + "1", "(" * 9, "9" * 5000, "[" * 100_000):
        with pytest.raises(ValueError, match=".") as told:
            parse_arguments([f"a={text}"])
        assert len(str(told.value)) < 120_000
    with pytest.raises(LiteralError, match="nested"):
        literal("[[[[[[[[[1]]]]]]]]]")
    assert parse_arguments(["a=1+1"]) == {"a": "1+1"}


class Counted(io.BytesIO):
    """Counts how often it is read."""

    reads = 0

    def read(self, *size: Any) -> bytes:
        self.reads += 1
        return super().read(*size)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_png_of_endless_chunks_is_refused_after_so_many_looks(tmp_path: Path) -> None:
    plain = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(plain, "PNG")
    content = plain.getvalue()
    head, rest = content[:33], content[33:]
    path = tmp_path / "a.png"
    for kind, most in ((b"tEXt", image_headers.MAX_NOTES), (b"abCd", image_headers.MAX_NOTES), (b"IDAT", image_headers.MAX_DATA)):
        made = head + chunk(kind) * 1_000_000 + rest
        counted = Counted(made)
        assert (
            image_headers.png_problem(counted)
            and counted.reads <= image_headers.MAX_NOTES + image_headers.MAX_DATA + 2
            and counted.reads >= most
        )
        path.write_bytes(made)
        for look in (image_size, load_pixels):
            with pytest.raises(DatasetError, match="is a PNG with more than"):
                look(path)
    for usual in (content, head + chunk(b"tEXt", b"a\0b") * 50 + rest, head + chunk(b"IDAT") * 3000 + rest):
        path.write_bytes(usual)
        assert image_size(path) == (8, 8) and load_pixels(path)[0, 0, 0] == 9


@pytest.mark.parametrize(
    "filling", [b"\xff" * 3_000_000, b"\xff\xff\x00" * 1_000_000, b"\x00" * 3_000_000, b"\xff\xe5\x00\x02" * 20_000], ids=["fill", "00", "junk", "segments"]
)  # fmt: skip
def test_a_jpeg_that_is_mostly_filling_is_refused_before_pillow_looks(
    filling: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = io.BytesIO()
    Image.new("RGB", (16, 16)).save(plain, "JPEG")
    content, path = plain.getvalue(), tmp_path / "a.jpg"
    path.write_bytes(content[:2] + b"\xff" * 7 + content[2:])
    assert image_size(path) == (16, 16), "a few are allowed"
    path.write_bytes(content[:2] + filling + content[2:])
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    with pytest.raises(DatasetError, match="is a JPEG with more than"):
        image_size(path)


def test_a_bmp_that_holds_far_more_than_its_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    Image.new("RGB", (8, 8)).save(path)
    assert image_size(path) == (8, 8)
    path.write_bytes(path.read_bytes() + b"\0" * 2_000_000)
    with pytest.raises(DatasetError, match="with far more data than pixels"):
        image_size(path)
