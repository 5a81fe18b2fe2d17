"""Odd values of every option, through every input: a value or one sentence, never an exception, in bounded time."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lib_lora.check import find_images
from lib_lora.cli_options import add_options, config_from
from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.config.options import LONGEST_TEXT, MOST_TEXTS, Option
from lib_lora.config.rules import config_notes, config_problems, taken_problems
from lib_lora.data.folders import MAX_REPEATS, repeats_in
from lib_lora.errors import ConfigError, TrainLoraError
from lib_lora.families.family import DetectedModel
from lib_lora.families.sd1 import SD1
from lib_lora.families.sdxl import SDXL
from lib_lora.kohya.export import ExportForm, export_kohya
from lib_lora.settle import model_problems, settle
from lib_lora.training.continued_files import weights_problems
from lib_lora.training.optimizer import settings_problem
from tests.states import state_folder

OPTIONS = all_options()
FORMS: tuple[ExportForm, ...] = ("toml", "json", "dataset")
NAMED_WHOLE = ("network_weights", "base_weights")  # paths of files that cannot be read
SECONDS = 20  # far more than any takes, far less than what explodes


def deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


TEXTS = [
    "", " ", "0", "-1", "1e999", "-1e999", "nan", "inf", "1_000", "0x10", "٣", "²", "9" * 400, "9" * 5000, "-" + "9" * 5000, "1." + "3" * 5000,
    "\ud800", "a\0b", "\0", "a\nb\rc", "\u202e", "\u2028", "x" * 300, "x" * LONGEST_TEXT, "x" * (LONGEST_TEXT + 1), "é" * 40_000,
    "FOLDER|" + "9" * 5000, "FOLDER|0", "FOLDER|-1", "FOLDER|", "|", "|3", "FOLDER|²", "FOLDER|" + "0" * 5000 + "7", "~nobody-of-this-name/x", "~",
    "//host/share", "\\\\host\\share", ".", "..", "a/" * 3000, "CON", "a.b.c", "..x", ".x", "x.", ".", "__main__.X", "(", "[", "{", "1,2," * 5000,
    ",", "," * 30_000, "1," * 24 + "1", "1," * 24 + "9" * 5000, "nan," * 24 + "nan", "cosine+", "cosine+" + "9" * 5000, "+" * 5000, "=", "a=", "a=1 b=(2",
    "step_rules=" + "9" * 5000 + ":nan", "true", "None", "null", "{}", "-", "--", "-x", "a --w " + "9" * 400, "a --l 1e999", "p.txt", "p.toml",
    "p.json", "x" * 5000 + ".json", " --" * 20_000, "$HOME", "%s%n", "{0}", "*", "?" * 100, "[" * 100,
]  # fmt: skip
VALUES: list[Any] = [
    *TEXTS, None, True, False, 0, -1, 1, 10**400, -(10**400), 10**5000, 2**63, 2**64, 0.5, 1e308, -1e308, math.inf, -math.inf, math.nan, 1e-320,
    [], [""], [[]], [None], [1], [10**5000], [math.nan], ["x"] * (MOST_TEXTS + 1), ["\ud800"], ["a\0"], deep(5000), {}, {"a": deep(5000)}, (), ("x", 1),
    object(), b"x", ["FOLDER|" + "9" * 5000], ["~nobody-of-this-name"], ["1", "9" * 5000],
]  # fmt: skip


def is_sentence(text: str) -> bool:
    """Short, on one line, and writable."""
    return "\n" not in text and "\r" not in text and len(text) < 600 and bool(text.encode()) and text.endswith(".")


def built(flat: dict[str, Any], said: Callable[[str], bool] = is_sentence) -> TrainConfig | None:
    try:
        return build_config(flat)
    except ConfigError as error:
        assert error.problems and all(map(said, error.problems)), error.problems
        return None


@pytest.mark.parametrize("opt", OPTIONS, ids=lambda opt: opt.name)
def test_any_value_is_a_value_or_one_sentence_with_the_options_title(opt: Option) -> None:
    started = time.monotonic()
    for raw in VALUES:
        config = built({opt.name: raw}, lambda text: is_sentence(text) and text.startswith(f"{opt.title}: "))
        if config is not None:
            json.dumps(config.to_flat(), allow_nan=False).encode()
            assert build_config(json.loads(json.dumps(config.to_flat()))) == config
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("name", [*(text for text in TEXTS if text), 7, None, ("a",)])
def test_any_name_of_an_option_is_a_name_or_one_sentence(name: Any) -> None:
    assert built({name: 1}) is None


@pytest.mark.parametrize("opt", OPTIONS, ids=lambda opt: opt.name)
def test_what_was_taken_is_checked_with_sentences(opt: Option, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    for number, raw in enumerate(VALUES):
        if opt.name.endswith("_args") and isinstance(raw, str) and len(raw) > 2000:
            continue  # how arguments are taken apart is bounded by itself
        flat: dict[str, Any] = {
            "name": "x",
            "trigger": "zxq",
            "sample_every_n_steps": 1,
            "masked_loss": True,
            "mask_data": "not a folder",
            opt.name: raw,
        }
        config = built(flat)
        if config is not None:
            told = [*config_problems(config), *taken_problems(config, tmp_path), *config_notes(config)]
            told += find_images(config).problems
            settled = settle(config, DetectedModel((SD1, SDXL)[number % 2], "ε"))
            told += model_problems(settled)
            told += weights_problems(settled) if opt.name in ("network_weights", "base_weights", "dim_from_weights") else []
            if opt.group == "optimizer" and not config_problems(config):
                told += filter(None, [settings_problem(settled.optimizer, torch.device("cpu"))])
            assert all(is_sentence(text) or opt.name in NAMED_WHOLE for text in told), (raw, told)
            export_kohya(config, FORMS[number % 3]).encode()
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("opt", OPTIONS, ids=lambda opt: opt.name)
def test_the_command_line_takes_any_text(opt: Option, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    add_options(parser)
    for text in random.Random(opt.name).sample(TEXTS, 15):
        args = parser.parse_args([f"--{opt.name}={text}"])
        try:
            config_from(args)
        except TrainLoraError as error:
            assert all(map(is_sentence, error.problems)), error.problems


@pytest.mark.parametrize("text", [text for text in TEXTS if "\0" not in text], ids=lambda text: ascii(text[:20]))
def test_a_state_of_any_name_is_found_or_not(text: str, tmp_path: Any) -> None:
    try:
        state_folder(text, tmp_path)
    except TrainLoraError as error:
        assert is_sentence(str(error)) or len(text) > 100


def test_random_settings_together() -> None:
    rng = random.Random(11)
    light = [raw for raw in VALUES if not isinstance(raw, str) or len(raw) < 500]
    for _ in range(300):
        flat = {
            opt.name: rng.choice(light) for opt in rng.sample(OPTIONS, rng.randrange(1, 12)) if not opt.name.endswith("_args")
        }
        config = built(flat)
        if config is not None:
            assert all(map(is_sentence, [*config_problems(config), *config_notes(config)]))


@pytest.mark.parametrize(
    ("text", "repeats"),
    [("7", 7), (" 7 ", 7), ("0" * 5000 + "7", 7), ("0", None), ("10000", MAX_REPEATS), ("10001", None), ("9" * 5000, None), ("²", None), ("", None),
     ("-1", None), ("٣", 3), ("1.0", None)],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_repeats(text: str, repeats: int | None) -> None:
    assert repeats_in(text) == repeats
