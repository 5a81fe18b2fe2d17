"""Sample prompts: lines and files as sd-scripts reads them, and notes on what is not read."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lib_lora.config.prompts import Prompt, prompt_notes, read_prompts

TEXT = "# title\n\na cat, red --n ugly, bad --w 320 --h 200 --d 7 --l 3.5 --s 12\n  plain\nx --W 64"
WANTED = [Prompt("a cat, red", "ugly, bad", 320, 200, 7, 3.5, 12), Prompt("plain"), Prompt("x", width=64)]


def test_lines_and_files_of_lines(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\ufeff" + TEXT, encoding="utf-8")
    assert read_prompts(TEXT) == read_prompts(str(tmp_path / "p.txt")) == WANTED
    assert prompt_notes(TEXT) == [] and read_prompts("") == []
    assert read_prompts(TEXT.replace("\n", "\r\n")) == read_prompts(TEXT.replace("\n", "\r")) == WANTED
    assert [prompt.text for prompt in read_prompts("one\u2028two\x0bthree\x85four")] == ["one\u2028two\x0bthree\x85four"]


def test_files_of_tables(tmp_path: Path) -> None:
    toml, items = tmp_path / "p.TOML", tmp_path / "p.json"
    toml.write_text(
        '[prompt]\nwidth = 320\nheight = 8\nsample_sampler = "euler"\n[[prompt.subset]]\nprompt = "a cat"\nseed = 3\nscale = 4\n'
        '[[prompt.subset]]\nprompt = "a dog"\nnegative_prompt = "cat"\nwidth = 64\nsample_steps = 9\n'
    )
    assert read_prompts(str(toml)) == [Prompt("a cat", "", 320, 64, 3, 4.0), Prompt("a dog", "cat", 64, 64, None, None, 9)]
    assert len(prompt_notes(str(toml))) == 1 and "'sample_sampler' (prompt 1 and 1 more)" in prompt_notes(str(toml))[0]
    items.write_text(
        json.dumps(["a cat --s 2 --ss ddim", {"prompt": "b", "width": 64.0, "seed": -1, "scale": 2.5, "enum": 1}, {}])
    )
    assert read_prompts(str(items)) == [Prompt("a cat", steps=2), Prompt("b", width=64, guidance=2.5), Prompt("")]
    assert "--ss (prompt 1), seed -1 (prompt 2)" in prompt_notes(str(items))[0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "prompt = 1", "has no [prompt]"),
        ("a.toml", "[prompt", "cannot be read"),
        ("a.toml", "a" + ".a" * 5000 + " = 1", "nested"),
        ("a.json", "{}", "not a list of prompts"),
        ("a.json", "[1]", "not a list of prompts"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.json", '["a --w 9999"]', "prompt 1 has --w 9999"),
        ("a.json", '[{"width": 1' + "0" * 4000 + "}]", "prompt 1 has width 1000"),
    ],
)
def test_files_that_are_none_are_one_sentence(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="prompt|cannot|nested") as caught:
        read_prompts(str(tmp_path / name))
    assert said in str(caught.value) and len(str(caught.value)) < 400
    assert prompt_notes(str(tmp_path / name)) == []


@pytest.mark.parametrize(
    ("line", "prompt", "told"),
    [
        ("a --ss euler_a --s 2", Prompt("a", steps=2), ["--ss (line 1)"]),
        ("a --g 3.5 --cn C:/x.png --ctr 0.2 --rcfg 1 --fs 3", Prompt("a"), ["--g", "--cn", "--ctr", "--rcfg", "--fs"]),
        ("a --am 0.5 --of x --ow 64", Prompt("a"), ["--am", "--of", "--ow"]),
        ("a --n  --w 64", Prompt("a", width=64), []),
        ("a --n", Prompt("a"), []),
        ("a --d -1", Prompt("a"), ["--d -1 (line 1)"]),
        ("a --s 28.0 --w 64.", Prompt("a", steps=28, width=64), []),
        ("a --s 0 --h 8", Prompt("a", steps=1, height=64), []),
        ("a --s 5000", Prompt("a", steps=1000), []),
        ("a --w 512px --l 7,5", Prompt("a", width=512, guidance=7.0), ["px after --w", ",5 after --l"]),
        ("a --l 1e999", Prompt("a", guidance=1.0), ["e999 after --l"]),
        ("a --l nan --w inf --h wide --l 1.2.3", Prompt("a"), ["--l nan", "--w inf", "--h wide", "--l 1.2.3"]),
        (f"a --w {'9' * 5000}", Prompt("a"), ["--w 99999999999999999999…"]),
        ("a --\x07 b", Prompt("a"), ["--\\x07 b…"]),
        ("a cat --very cute", Prompt("a cat"), ["--very"]),
        ("--n b", Prompt("--n b"), []),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_sd_scripts_passes_over_is_passed_over_and_told(line: str, prompt: Prompt, told: list[str]) -> None:
    assert read_prompts(line) == [prompt]
    notes = prompt_notes(line)
    assert len(notes) == bool(told) and all(what in notes[0] for what in told)


def test_it_is_told_once() -> None:
    (note,) = prompt_notes("a --ss x\n" * 500 + "b --q --r 1 --t 1 --u 1 --v 1 --x 1")
    assert "--ss (line 1 and 499 more)" in note and "and 2 more" in note and len(note) < 300


def test_any_text_is_prompts_or_one_sentence() -> None:
    rng = random.Random(7)
    values = [
        "9" * 400,
        "9" * 5000,
        "-1",
        "1e999",
        "nan",
        "inf",
        ".",
        "28.0",
        "1.2.3",
        "\u0663",
        "²",
        "x" * 3000,
        "0",
        "",
        "a\nb",
        "\r",
        "\t",
        '"',
        "\u2028",
    ]
    flags = ["w", "h", "d", "s", "l", "n", "ss", "cn", "W", "", "-", "#", "{"]
    refused = 0
    for _ in range(3000):
        parts = [f" --{rng.choice(flags)}{rng.choice(['', ' ', '  '])}{rng.choice(values)}" for _ in range(rng.randrange(8))]
        text = rng.choice(["a", "", "#"]) + "".join(parts)
        try:
            assert all(isinstance(prompt, Prompt) for prompt in read_prompts(text))
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 300
        assert all(len(note) < 600 for note in prompt_notes(text))
    assert 20 < refused < 3000
