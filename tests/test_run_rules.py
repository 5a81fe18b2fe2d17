"""Rules of saves, states and samples; sample prompts as sd-scripts reads them; names of files in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_lora.config.groups import build_config
from lib_lora.config.prompts import Prompt, read_prompts
from lib_lora.config.rules import config_problems


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        ({"save_every_n_epochs": 1, "save_n_epoch_ratio": 2}, "(save_n_epoch_ratio): both say how often"),
        ({"save_last_n_epochs": 2}, "(save_last_n_epochs): nothing is saved by epochs"),
        ({"save_last_n_steps": 2}, "(save_last_n_steps): nothing is saved by steps"),
        ({"save_last_n_epochs_state": 2, "save_every_n_epochs": 1}, "(save_last_n_epochs_state): no state is saved by epochs"),
        ({"save_last_n_steps_state": 2, "save_state": True}, "(save_last_n_steps_state): no state is saved by steps"),
        ({"sample_prompts": "a cat --q 3"}, "(sample_prompts): line 1 has --q, must be one of --n"),
        ({"sample_prompts": "a\nb --w wide"}, "line 2 has --w 'wide', must be a number"),
        ({"sample_prompts": "a --w 8"}, "line 1 has --w 8, must be from 64 to 2048"),
        ({"sample_prompts": "missing.txt"}, "got 'missing.txt', which cannot be read"),
        ({"sample_prompts": "prompts.toml"}, "must be a .txt"),
        ({"sample_prompts": "# nothing"}, "holds no prompt"),
    ],
)
def test_what_does_not_fit_is_one_sentence(flat: dict[str, object], said: str) -> None:
    problems = config_problems(build_config({"name": "x", **flat}), None)
    assert len(problems) == 1 and said in problems[0] and problems[0].endswith(".")


@pytest.mark.parametrize(
    "flat",
    [
        {"save_every_n_epochs": 1, "save_last_n_epochs": 2},
        {"save_n_epoch_ratio": 3, "save_last_n_epochs": 2},
        {"save_every_n_steps": 1, "save_last_n_steps": 2},
        {"save_state": True, "save_every_n_steps": 1, "save_last_n_steps_state": 2},
        {"save_state": True, "save_n_epoch_ratio": 1, "save_last_n_epochs_state": 2},
        {"sample_prompts": "a cat\n# b\n\na dog --n cat --w 128 --h 64 --d 1 --l 2.5 --s 3"},
    ],
)
def test_what_fits(flat: dict[str, object]) -> None:
    assert config_problems(build_config({"name": "x", **flat}), None) == []


def test_prompts(tmp_path: Path) -> None:
    text = "# title\n\na cat, red --n ugly, bad --w 320 --h 200 --d 7 --l 3.5 --s 12\n  plain\nx --W 64"
    wanted = [Prompt("a cat, red", "ugly, bad", 320, 200, 7, 3.5, 12), Prompt("plain"), Prompt("x", width=64)]
    assert read_prompts(text) == wanted
    (tmp_path / "p.txt").write_text("\ufeff" + text, encoding="utf-8")
    assert read_prompts(str(tmp_path / "p.txt")) == wanted
    assert read_prompts("") == []


@pytest.mark.parametrize(
    ("there", "flat", "taken"),
    [
        ("cat-000001.safetensors", {"save_every_n_epochs": 2}, True),
        ("sub/Cat-000004.pt", {"save_n_epoch_ratio": 2}, True),
        ("cat-step00000500.safetensors", {"save_every_n_steps": 100}, True),
        ("cat-000001.safetensors", {"save_every_n_steps": 100}, False),
        ("cat-step00000500.safetensors", {"save_every_n_epochs": 1}, False),
        ("cat-000001.safetensors", {}, False),
        ("cat-000001.safetensors", {"save_every_n_epochs": 2, "overwrite": True}, False),
        ("cat-2.safetensors", {"save_every_n_epochs": 1}, False),
        ("cats-000001.safetensors", {"save_every_n_epochs": 1}, False),
    ],
)
def test_files_of_the_runs_own_pattern(there: str, flat: dict[str, object], taken: bool, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    problems = config_problems(build_config({"name": "cat", **flat}), tmp_path)
    assert len(problems) == taken
    if taken:
        assert Path(there).stem in problems[0] and "use 'cat-2'" in problems[0]
