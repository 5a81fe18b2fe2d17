"""Import of kohya's settings: our options, and a verdict on every key. Rules over several keys are in `rules.py`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lib_lora.config.groups import TrainConfig, all_options, build_config, is_read, options_by_name, unread
from lib_lora.config.optimizer_specs import code_of_others
from lib_lora.config.options import Option, bounds_problem, parse_typed
from lib_lora.errors import ConfigError
from lib_lora.kohya import datasets
from lib_lora.kohya.adapter_types import TYPE_RULES, lycoris_values
from lib_lora.kohya.files import ARGUMENT, OUR_SECTION, Entry, Source, read_file, source_of
from lib_lora.kohya.handed import not_handed_on
from lib_lora.kohya.images import IMAGE_RULES
from lib_lora.kohya.known import NEUTRAL, REMEDIES, SECRETS, Verdict
from lib_lora.kohya.other_forms import OTHER_RULES, is_of_another_model
from lib_lora.kohya.rules import RULES, SD_SCRIPTS_DEFAULTS, Context, Finding, closing_values, empty
from lib_lora.kohya.spelling import (
    BLANK,
    OWN_TEXT_RATE,
    TRIGGER_KEPT,
    ZERO_DROPPED,
    is_never_reached,
    is_off,
    number,
    spelled,
    truth,
    unclear_argument,
)
from lib_lora.kohya.table import NETWORK_ARGS, KeyFact, key_table, options_by_kohya

SAID_OTHERWISE = "Overridden by an argument."
WORST: tuple[Verdict, ...] = ("not_supported", "unknown", "used", "ignored")  # a key gets the first of these that a part has
# sd-scripts' defaults for absent keys of a complete configuration, if ours differ
KOHYA_DEFAULTS: dict[str, Any] = {
    "network_dim": SD_SCRIPTS_DEFAULTS["rank"],
    "network_alpha": SD_SCRIPTS_DEFAULTS["alpha"],
    "learning_rate": SD_SCRIPTS_DEFAULTS["unet_lr"],
    "max_train_steps": SD_SCRIPTS_DEFAULTS["steps"],
    "mixed_precision": SD_SCRIPTS_DEFAULTS["mixed_precision"],
}
ALL_RULES = (OTHER_RULES, TYPE_RULES, RULES, IMAGE_RULES)
CODE = "{value!r} is code of a package, which settings files may not load; if you trust it, enter the name yourself in {title}."


@dataclass(frozen=True)
class Said:
    """A key, and the reason of its verdict. `parts`: names and reasons, if the value consists of several arguments."""

    key: str
    value: Any
    why: str
    parts: tuple[tuple[str, str], ...] = ()

    def line(self, say: Callable[[str], str] = str) -> str:
        """Key, value and reason; `say` translates a reason."""
        why = " ".join(f"{name}: {say(reason)}" for name, reason in self.parts) if self.parts else say(self.why)
        return f"{self.key} = {self.value!r}: {why}"


@dataclass
class Imported:
    """Every key in exactly one list; `flat`: the options that the file sets, with legal values."""

    used: list[Said] = field(default_factory=list)
    not_supported: list[Said] = field(default_factory=list)
    ignored: list[Said] = field(default_factory=list)
    unknown: list[Said] = field(default_factory=list)
    flat: dict[str, Any] = field(default_factory=dict)

    def config(self) -> TrainConfig:
        """A whole configuration; options that the file does not set have our defaults."""
        return build_config(self.flat)

    def problems(self) -> list[str]:
        """A sentence for every key that is not used and would change the result."""
        return [said.line() for said in (*self.not_supported, *self.unknown)]

    def report(self) -> dict[str, Any]:
        """As JSON: the four lists, and `config`, without names and paths unless they were imported."""
        lists = {
            name: [{"key": said.key, "value": said.value, "why": said.why} for said in getattr(self, name)]
            for name in ("used", "not_supported", "ignored", "unknown")
        }
        left_out = {name for name, opt in options_by_name().items() if opt.not_inherited and name not in self.flat}
        return {**lists, "config": {name: value for name, value in self.config().to_flat().items() if name not in left_out}}


def import_file(path: Path, *, keep_names: bool = False, follow: bool = True) -> Imported:
    """Read and translate a file.

    Args:
        path: a kohya_ss JSON, an sd-scripts TOML, a dataset file in JSON or TOML, or settings of ours.
        keep_names: also import names and paths.
        follow: also read the dataset file that it names.
    """
    settings = read_file(path)
    toml = path.suffix.lower() == ".toml"
    source = source_of(settings, toml=toml, folder=path.parent if follow else None)
    return import_source(source, keep_names=keep_names)


def import_source(
    source: Source, *, keep_names: bool = False, with_defaults: bool = True, given: Mapping[str, Any] = MappingProxyType({})
) -> Imported:
    """Translate the entries of a file.

    Args:
        source: the entries.
        keep_names: also import names and paths.
        with_defaults: fill in sd-scripts' defaults for absent keys.
        given: options that are given elsewhere, with their values; keys that only decide these are ignored.
    """
    overruled = frozenset(given)
    context = _context(source, keep_names=keep_names, with_defaults=with_defaults, overruled=overruled)
    judged = {
        entry.key: [(part, _finding(part, context, overruled)) for part in source.parts.get(entry.key) or (entry,)]
        for entry in _by_weight(source.entries)
    }
    _drop_overruled(judged)
    _settle_bounds(judged, context, given)
    if not keep_names:
        _leave_out_code(judged)
    result = Imported()
    for entry in source.entries:
        findings = judged[entry.key]
        verdict = min((found.verdict for _, found in findings), key=WORST.index)
        why = findings[0][1].why
        parts: tuple[tuple[str, str], ...] = ()
        if source.parts.get(entry.key):
            parts = tuple((part.name, found.why) for part, found in findings)
            why = " ".join(f"{name}: {reason}" for name, reason in parts)
            verdict = "not_supported" if verdict == "unknown" else verdict  # the key itself is known
        value = "(hidden)" if entry.name in SECRETS and truth(entry.value) else plain(entry.value)
        getattr(result, verdict).append(Said(entry.key, value, why, parts))
    for findings in judged.values():
        for _, found in findings:
            result.flat.update(found.values)
    _close(result, context)
    return result


def _by_weight(entries: Sequence[Entry]) -> list[Entry]:
    """Entries by precedence, the last wins: the file, its `additional_parameters`, its datasets, the command line."""
    return sorted(
        entries,
        key=lambda entry: (entry.key.startswith(ARGUMENT), entry.place is not None, entry.name == "additional_parameters"),
    )


def _drop_overruled(judged: dict[str, list[tuple[Entry, Finding]]]) -> None:
    """If two keys set one option, the later wins, and the other is reported as ignored."""
    setter: dict[str, tuple[str, Any]] = {}
    for findings in judged.values():
        setter.update({name: (part.name, value) for part, found in findings for name, value in found.values.items()})
    for key, findings in judged.items():
        for number_of, (part, found) in enumerate(findings):
            winners = [setter[name] for name in found.values]
            if winners and all(
                by != part.name and value != found.values[name] for name, (by, value) in zip(found.values, winners)
            ):
                judged[key][number_of] = (part, Finding("ignored", f"Overridden by {winners[0][0]}."))


def _settle_bounds(judged: dict[str, list[tuple[Entry, Finding]]], context: Context, given: Mapping[str, Any]) -> None:
    """Judge numbers outside their bounds, now that every key that affects them is known."""
    flat = {name: value for findings in judged.values() for _, found in findings for name, value in found.values.items()}
    flat.update(_checked(Finding("used", "", dict(given))).values)
    said = out_of_bounds(flat, lambda rest: {**closing_values(context, rest), **lycoris_values(context, rest)})
    for findings in judged.values() if said else ():
        for place, (part, found) in enumerate(findings):
            verdicts = [said[name] for name in found.values if name in said]
            if verdicts:
                findings[place] = (part, Finding(*min(verdicts, key=lambda each: WORST.index(each[0]))))


def out_of_bounds(
    flat: Mapping[str, Any], closing: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> dict[str, tuple[Verdict, str]]:
    """Option -> verdict and sentence, for every number outside its bounds.

    Args:
        flat: option name -> value.
        closing: returns the options that follow from the others, which also decide whether an option is read.
    """
    problems = {opt.name: bounds_problem(opt, flat[opt.name]) for opt in all_options() if opt.name in flat}
    outside = {name: problem for name, problem in problems.items() if problem}
    if not outside:
        return {}
    rest = {name: value for name, value in flat.items() if name not in outside}
    try:
        config = build_config({**rest, **closing(rest)})
    except ConfigError:  # an error of derived options is reported with them
        config = build_config(rest)
    since = dict(unread(config))
    return {
        name: ("not_supported", problem)
        if is_read(config, name)
        else ("ignored", f"No effect, because {since.get(name, 'nothing reads it')}.")
        for name, problem in outside.items()
    }


def _leave_out_code(judged: dict[str, list[tuple[Entry, Finding]]]) -> None:
    """Refuse classes of packages: imported files must not run code; the user has to name them."""
    for findings in judged.values():
        for number_of, (part, found) in enumerate(findings):
            named = code_of_others(found.values)
            if named is not None:
                name, value = named
                findings[number_of] = (
                    part,
                    Finding("not_supported", CODE.format(value=str(value)[:80], title=options_by_name()[name].title)),
                )


def _is_overruled(entry: Entry, options: Set[str]) -> bool:
    """Whether `options`, which are given elsewhere, include all that `entry` decides."""
    fact = key_table().get(entry.name)
    decided = set(REMEDIES.get(entry.name) or fact.options) if fact else {entry.name} & options_by_name().keys()
    return bool(decided) and decided <= options and not entry.key.startswith(ARGUMENT)


def _context(source: Source, *, keep_names: bool, with_defaults: bool, overruled: Set[str]) -> Context:
    told = {**datasets.overruled(source.entries), **datasets.captions(source.entries)}
    told.update({key: ("not_supported", why) for key, why in source.unread.items()})
    told.update({key: ("ignored", why) for key, why in not_handed_on(source).items()})
    told.update({entry.key: ("ignored", SAID_OTHERWISE) for entry in source.entries if _is_overruled(entry, overruled)})
    if source.form == "kohya_ss":  # the form has a field for each
        inner = {part.name.removeprefix(NETWORK_ARGS) for part in source.parts.get(f"{ARGUMENT}network_args", ())}
        told.update({entry.key: ("ignored", SAID_OTHERWISE) for entry in source.entries if entry.name in inner})
    if keep_names:
        told.update(datasets.of_folders(source.entries))
    values: dict[str, Any] = {}
    last: dict[str, str] = {}
    for entry in _by_weight(source.entries):
        for part in source.parts.get(entry.key) or (entry,):
            if entry.key not in told and not _is_overruled(part, overruled):
                values[part.name] = part.value
                last[part.name] = entry.key
    trigger = datasets.trigger(source.entries)
    return Context(source.form, values, keep_names, told, last, datasets.folders(source.entries), with_defaults, trigger)


def _finding(entry: Entry, context: Context, overruled: Set[str] = frozenset()) -> Finding:
    """The finding of one entry: by its own rules first, then options, then the table of reasons."""
    if _is_overruled(entry, overruled):
        return Finding("ignored", SAID_OTHERWISE)
    if entry.key in context.told:
        verdict, why = context.told[entry.key]
        return Finding(verdict, why)
    if entry.place is None and context.last.get(entry.name, entry.key) != entry.key:
        return Finding("ignored", "Overridden further down.")
    if entry.key.startswith(f"{OUR_SECTION}.") or (context.form == "ours" and entry.name in options_by_name()):
        return _own(entry, context)
    for rules in ALL_RULES:
        found = rules[entry.name](entry.value, context) if entry.name in rules else None
        if found is not None:
            return _checked(found)
    opt = options_by_kohya().get(entry.name)
    if opt is not None:
        return _option(opt, entry, context)
    return _reason(key_table().get(entry.name), entry, context)


def _own(entry: Entry, context: Context) -> Finding:
    """The finding of one of our options under our name."""
    if entry.name == "set_by_itself" and isinstance(entry.value, list):
        return Finding("used", "The program decides.", {str(name): "auto" for name in entry.value if name in options_by_name()})
    if entry.name == OWN_TEXT_RATE:
        return Finding("used", "If text_encoder_lr still has this value, it was not given.")
    if entry.name == TRIGGER_KEPT:
        return Finding("used", "One of keep_tokens is for the trigger word, which is always kept here.")
    if entry.name == "note" and entry.key.startswith(f"{OUR_SECTION}."):
        return Finding("ignored", "A comment.")
    if entry.name not in options_by_name():
        return _reason(None, entry, context)
    return _option(options_by_name()[entry.name], entry, context)


def _option(opt: Option, entry: Entry, context: Context) -> Finding:
    value = entry.value
    if value is False and opt.type in (int, float):
        return empty(opt)
    if value in BLANK and not (context.form == "ours" and opt.type in (str, tuple) and context.keep_names):
        return empty(opt)
    reason = "" if context.keep_names else opt.not_inherited_value(value)
    if reason:
        return Finding("ignored", reason)
    title = f"{opt.title}: more than any run has." if is_never_reached(opt, value) else f"{opt.title}."
    found = Finding("used", title, {opt.name: spelled(opt, value)})
    unclear = unclear_argument(opt, found.values[opt.name])
    if unclear is not None:
        return Finding("not_supported", f"{opt.title}: {unclear}")
    if context.form == "kohya_ss" and opt.name in ZERO_DROPPED and number(value) == 0:
        found = Finding("used", f"{opt.title} is 0 here; kohya_ss drops a 0, and {ZERO_DROPPED[opt.name]}.", found.values)
    return _checked(found)


def _checked(found: Finding) -> Finding:
    """The finding with parsed values; illegal ones make it not supported, with the option's own sentence.

    Numbers outside their bounds are left to `_settle_bounds`.
    """
    values, problems = {}, []
    for name, raw in found.values.items():
        try:
            values[name] = parse_typed(options_by_name()[name], raw)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return Finding("not_supported", " ".join(problems))
    shown = ", ".join(f"{name} = {value!r}" for name, value in values.items())
    why = found.why if not shown or found.verdict != "used" else f"{found.why} Becomes {shown}."
    return Finding(found.verdict, why, values)


def _reason(fact: KeyFact | None, entry: Entry, context: Context) -> Finding:
    """The finding of a key that is no option: the table's, unless its value has no effect."""
    if fact is None:
        if is_off(entry.value):
            return Finding("ignored", "Not a key of kohya's or ours, and as it is set it has no effect.")
        own = options_by_name().get(entry.name)
        if own and own.declaration.kohya:
            return Finding("unknown", f"Our name in a kohya file; kohya's name is {own.declaration.kohya}.")
        near = difflib.get_close_matches(entry.name, [*key_table(), *options_by_name()], 1, 0.8)
        meant = f"Not a key of kohya's or ours; did you mean {near[0]!r}?" if near else "Not a key of kohya's or ours."
        return Finding("unknown", meant)
    if fact.verdict == "not_supported":
        if is_off(entry.value, NEUTRAL.get(entry.name, ())):
            return Finding("ignored", "Has no effect as it is set.")
        if fact.switches and not _is_asked_for(fact, context):
            return Finding("ignored", "Has no effect for the type of LoRA and model in this file.")
    return Finding(fact.verdict, fact.why)


def _is_asked_for(fact: KeyFact, context: Context) -> bool:
    """Whether a switch of the key is on (the form writes all its fields), or the file is for another model."""
    if "LoRA_type" in fact.switches:  # LyCORIS' keys have no effect on kohya's types; keys of other types are judged before
        return context.switched_on("LoRA_type") is not False
    if context.form == "kohya_ss" or "enable_contrastive" in fact.switches or "enable_preview" in fact.switches:
        return any(context.switched_on(switch) for switch in fact.switches)
    return is_of_another_model(context)


def _close(result: Imported, context: Context) -> None:
    """Add options that follow from several keys together, and from absent ones."""
    for closing in (closing_values, lycoris_values):
        for name, value in closing(context, result.flat).items():
            checked = _checked(Finding("used", "", {name: value}))
            result.flat.update(
                {name: found for name, found in checked.values.items() if not bounds_problem(options_by_name()[name], found)}
            )


def plain(value: Any) -> Any:
    """`value` as JSON: dates, NaN and infinities become strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def from_kohya(settings: Mapping[str, Any], *, without_effect: Set[str] = frozenset()) -> Imported:
    """Translate sd-scripts' options, with names and paths, and without defaults for absent ones.

    Args:
        settings: option name -> value, as in a recorded run.
        without_effect: names that the caller knows to have no effect.
    """
    looked_at = {key: value for key, value in settings.items() if key not in without_effect}
    return import_source(source_of(looked_at, toml=True), keep_names=True, with_defaults=False)
