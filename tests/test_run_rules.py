"""Rules of saves, states and samples; names of files saved between steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_lora.config.groups import build_config
from lib_lora.config.rules import config_notes, config_problems, taken_problems

DRAWN = {"sample_every_n_steps": 1}


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("a\nb --w 4096", "line 2 has --w 4096, must be at most 2048"),
        ("a --l 101", "line 1 has --l 101, must be at most 100"),
        (f"a --d {2**64}", "must be at most 18446744073709551615"),
        (f"a --w {'9' * 400}", "line 1 has --w 99999999999999999999…, must be at most 2048"),
        ("missing.txt", "got 'missing.txt', which cannot be read"),
        ("~nobody-of-this-name/a.txt", "cannot be read"),
        ("x" * 5000 + ".txt", "cannot be read"),
        ("prompts.toml", "got 'prompts.toml', which cannot be read"),
        ("# nothing", "contains no prompt"),
    ],
    ids=lambda text: text[:20],
)
def test_prompts_that_cannot_be_drawn_are_one_sentence(prompts: str, said: str) -> None:
    problems = config_problems(build_config({"name": "x", "sample_prompts": prompts, **DRAWN}))
    assert len(problems) == 1 and said in problems[0] and problems[0].endswith(".") and len(problems[0]) < 300
    never = {"name": "x", "sample_prompts": prompts, "steps": 10, "sample_every_n_steps": 11}
    for flat in ({"name": "x", "sample_prompts": prompts}, never):  # sd-scripts reads them when a sample is due
        assert config_problems(build_config(flat)) == []
        assert any(
            "(sample_prompts): no effect, because no samples are generated" in note for note in config_notes(build_config(flat))
        )


@pytest.mark.parametrize(
    ("flat", "titles"),
    [
        ({"save_every_n_epochs": 1, "save_n_epoch_ratio": 2}, ["Save every … epochs (save_every_n_epochs)"]),
        ({"save_last_n_epochs": 2}, ["Keep last … epochs (save_last_n_epochs)"]),
        ({"save_last_n_steps": 2, "save_every_n_epochs": 1}, ["Keep last … steps (save_last_n_steps)"]),
        ({"save_last_n_epochs_state": 2, "save_every_n_epochs": 1}, ["Keep states of … epochs (save_last_n_epochs_state)"]),
        ({"save_last_n_steps_state": 2, "save_state": True}, ["Keep states of … steps (save_last_n_steps_state)"]),
        ({"save_last_n_steps_state": 1, "save_last_n_steps": 1}, ["save_last_n_steps)", "save_last_n_steps_state)"]),
    ],
)
def test_what_is_to_be_kept_and_is_never_saved_is_told_and_refuses_nothing(flat: dict[str, object], titles: list[str]) -> None:
    config = build_config({"name": "x", **flat})
    notes = config_notes(config)
    assert config_problems(config) == []
    assert len(notes) == len(titles) and all(title in note and "no effect" in note for title, note in zip(titles, notes))


@pytest.mark.parametrize(
    "flat",
    [
        {"save_every_n_epochs": 1, "save_last_n_epochs": 2},
        {"save_n_epoch_ratio": 3, "save_last_n_epochs": 2},
        {"save_every_n_steps": 1, "save_last_n_steps": 2},
        {"save_state": True, "save_every_n_steps": 1, "save_last_n_steps_state": 2},
        {"save_state": True, "save_n_epoch_ratio": 1, "save_last_n_epochs_state": 2},
        {"sample_prompts": "a cat\n# b\n\na dog --n cat --w 128 --h 64 --d 1 --l 2.5 --s 3", **DRAWN},
    ],
)
def test_what_fits(flat: dict[str, object]) -> None:
    config = build_config({"name": "x", **flat})
    assert config_problems(config) == [] and config_notes(config) == []


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
    problems = taken_problems(build_config({"name": "cat", **flat}), tmp_path)
    assert len(problems) == taken
    if taken:
        assert Path(there).stem in problems[0] and "use 'cat-2'" in problems[0]
