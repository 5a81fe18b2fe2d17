"""The table of all keys and their verdicts. Keys that are used follow from the option list."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora.config.groups import FollowsOptions, all_options
from lib_lora.config.options import Option
from lib_lora.kohya.known import ALIASES, DECIDING, GROUPS, Verdict

NETWORK_ARGS = "network_args."
TAKEN_ANYWAY = ("image_dir", "is_reg")  # names and paths, like options that are not inherited


@dataclass(frozen=True)
class KeyFact:
    """The verdict on one key. `options`: ours that it sets or affects."""

    key: str
    verdict: Verdict
    why: str
    options: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


@FollowsOptions
def options_by_kohya() -> dict[str, Option]:
    """Option by kohya's name; those inside `network_args` also without the prefix, as in kohya_ss' form."""
    found: dict[str, Option] = {}
    for opt in all_options():
        if opt.declaration.kohya:
            found[opt.declaration.kohya] = opt
            found[opt.declaration.kohya.removeprefix(NETWORK_ARGS)] = opt
    found.update({alias: found[key] for alias, key in ALIASES.items()})
    return found


@FollowsOptions
def key_table() -> dict[str, KeyFact]:
    """Key -> its verdict. Options override the reasons of `known.py`."""
    table = {key: KeyFact(key, group.verdict, group.why, (), group.switches) for group in GROUPS for key in group.keys}
    for key, (options, why) in DECIDING.items():
        verdict: Verdict = "ignored" if key in TAKEN_ANYWAY else "used"
        table[key] = KeyFact(key, verdict, why, options)
    for key, opt in options_by_kohya().items():
        reason = opt.not_inherited
        table[key] = KeyFact(key, "ignored" if reason else "used", reason or f"{opt.title}.", (opt.name,))
    return table


@FollowsOptions
def inner_names() -> frozenset[str]:
    """Keys that sd-scripts reads only inside `network_args`, without the prefix."""
    inside = {name.removeprefix(NETWORK_ARGS) for name in key_table() if name.startswith(NETWORK_ARGS)}
    declared = {opt.declaration.kohya for opt in all_options()}
    return frozenset(inside - {name for name in declared if name} - {"dropout", "train_t5xxl"})
