"""The presets against the options and the rules."""

from __future__ import annotations

import importlib.util

import pytest

from lib_lora.config.groups import all_options, build_config
from lib_lora.config.presets import PRESETS, Preset
from lib_lora.config.rules import config_problems
from lib_lora.kohya.files import source_of
from lib_lora.kohya.importing import import_source
from tests.test_cli import parsed
from tests.test_kohya_import import BASIC

OPTIONS = {opt.name: opt for opt in all_options()}
PERSONAL = {name for name, opt in OPTIONS.items() if opt.declaration.set_by != "preset"}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_values_are_legal_and_reasons_are_given(preset: Preset) -> None:
    names = [choice.name for choice in preset.choices]
    assert len(set(names)) == len(names) and set(names) <= set(OPTIONS) and not set(names) & PERSONAL
    assert all(choice.why.endswith(".") for choice in preset.choices) and preset.text.endswith(".")
    config = build_config(preset.settings())
    assert all(config.value(OPTIONS[choice.name]) == choice.value for choice in preset.choices)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_no_rule_is_broken_but_a_missing_package_which_is_told(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_config({**preset.settings(), "name": "x", "data": ["photos"]})
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest))
    problems = config_problems(config)
    if config.optimizer.optimizer == "AdamW8bit":
        assert len(problems) == 1 and "bitsandbytes" in problems[0]
        assert "bitsandbytes" in next(choice.why for choice in preset.choices if choice.name == "optimizer")
    else:
        assert problems == []


def test_names_and_paths_are_the_persons_own() -> None:
    assert {
        "data", "reg_data", "mask_data", "name", "trigger", "overwrite", "out", "checkpoint", "network_weights", "dim_from_weights",
        "base_weights", "base_weights_multiplier", "resume", "sample_prompts", "training_comment", "metadata_title",
        "metadata_author", "metadata_description", "metadata_license", "metadata_tags", "metadata_usage_hint",
    } == PERSONAL  # fmt: skip
    assert {name for name, opt in OPTIONS.items() if opt.not_inherited} == {
        "data", "reg_data", "mask_data", "name", "out", "checkpoint", "network_weights", "dim_from_weights", "base_weights",
        "base_weights_multiplier", "resume", "metadata_title",
    }  # fmt: skip


def test_the_tutorial_follows_its_file() -> None:
    imported = import_source(source_of(BASIC, toml=False)).config()
    preset = build_config(PRESETS["tutorial"].settings())
    for choice in PRESETS["tutorial"].choices:
        if choice.name != "repeats":  # the folders' names in the tutorial
            assert preset.value(OPTIONS[choice.name]) == imported.value(OPTIONS[choice.name]), choice.name


def test_presets_on_the_command_line() -> None:
    assert parsed("--preset", "style").adapter.rank == PRESETS["style"].settings()["rank"]
    assert parsed("--preset", "style", "--rank", "5").adapter.rank == 5
