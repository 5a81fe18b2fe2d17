"""The table of kohya's keys against kohya's own names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_lora.config.groups import all_options
from lib_lora.kohya.known import ALIASES, DECIDING, GROUPS, NEUTRAL, SECRETS
from lib_lora.kohya.rules import RULES
from lib_lora.kohya.table import NETWORK_ARGS, key_table, options_by_kohya

KEYS = json.loads((Path(__file__).parent / "data" / "kohya-keys.json").read_text())
IN_ARGS = {
    NETWORK_ARGS + key for name in ("network_args_lora", "network_args_dylora", "network_args_lycoris") for key in KEYS[name]
}
OTHERS = ("kohya_ss_older", "lora_scripts", "lora_easy", "whole_models")
EVERY = {
    *(key for name in OTHERS for key in KEYS[name]),
    *KEYS["sd_scripts"],
    *KEYS["kohya_ss"],
    *KEYS["dataset"],
    *KEYS["textual_inversion"],
    *IN_ARGS,
}
# of networks.dylora, and a list whose arguments are looked at
OF_LISTS = {"network_args.unit", "network_args_custom"}
OURS = {opt.name for opt in all_options()}


def test_counts_of_the_names() -> None:
    assert len(set(KEYS["sd_scripts"])) == 196 and len(set(KEYS["kohya_ss"])) == 295


def test_the_table_is_complete() -> None:
    assert sorted(EVERY - set(key_table())) == []


def test_the_table_names_nothing_that_kohya_has_not() -> None:
    inside = {opt.declaration.kohya.removeprefix(NETWORK_ARGS) for opt in all_options() if opt.declaration.kohya}
    assert sorted(set(key_table()) - EVERY - inside - OF_LISTS) == []


@pytest.mark.parametrize("fact", key_table().values(), ids=lambda fact: fact.key)
def test_every_key_has_a_verdict_and_a_reason(fact: object) -> None:
    assert fact.verdict in {"used", "not_supported", "ignored"}  # type: ignore[attr-defined]
    assert fact.why.endswith(".") and len(fact.why) > 5  # type: ignore[attr-defined]
    assert set(fact.options) <= OURS  # type: ignore[attr-defined]


def test_what_is_used_follows_from_the_options() -> None:
    table = key_table()
    for opt in all_options():
        name = opt.declaration.kohya
        if name:
            assert table[name].options == (opt.name,)
            assert table[name].verdict == ("ignored" if opt.not_inherited else "used")


def test_a_key_is_in_one_group_only_and_no_option_is_in_any() -> None:
    grouped = [key for group in GROUPS for key in group.keys]
    assert len(grouped) == len(set(grouped))
    assert not set(grouped) & (set(options_by_kohya()) | set(DECIDING))


def test_the_lists_beside_the_table_name_keys_and_options_that_exist() -> None:
    assert {*ALIASES, *ALIASES.values(), *NEUTRAL, *SECRETS, *RULES} <= set(key_table())


def test_what_kohyas_form_lacks() -> None:
    sd_scripts = {opt.declaration.kohya for opt in all_options()} & set(KEYS["sd_scripts"])
    assert sd_scripts - set(KEYS["kohya_ss"]) - {"resolution", "optimizer_type"} == {
        opt.declaration.kohya for opt in all_options() if not opt.declaration.in_kohya_form
    }


def test_the_page_of_keys_is_current() -> None:
    from tools.kohya_table import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tools.kohya_table"
