"""Command line arguments from the options: own names and kohya's, with dashes or underscores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.config.optimizer_specs import code_of_others
from lib_lora.config.options import Option
from lib_lora.config.presets import PRESETS
from lib_lora.errors import ConfigError
from lib_lora.kohya.files import ARGUMENT, read_file, source_of
from lib_lora.kohya.importing import from_kohya, import_source
from lib_lora.kohya.table import NETWORK_ARGS, inner_names, key_table

OURS, KOHYA = "option:", "kohya:"  # prefixes of an argument's `dest`
HAVE_THEIR_OWN = {"learning_rate", "network_args", "config_file", "network_args_custom"}


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add `--config FILE` and `--preset NAME`."""
    parser.add_argument(
        "--config",
        "--config_file",
        "--config-file",
        type=Path,
        help="settings file: ours (JSON), kohya_ss (JSON) or sd-scripts (TOML); arguments override it",
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="preset to start from; --config and arguments override it")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add one argument per option, those of `add_files`, and kohya's `--learning_rate` and `--network_args`."""
    add_files(parser)
    parser.add_argument(
        "--learning_rate",
        "--learning-rate",
        dest=f"{KOHYA}learning_rate",
        metavar="NUMBER",
        default=argparse.SUPPRESS,
        help="sets both learning rates",
    )
    parser.add_argument(
        "--network_args",
        "--network-args",
        dest=f"{KOHYA}network_args",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=argparse.SUPPRESS,
        help="options of the LoRA in the form of sd-scripts, such as rank_dropout=0.1",
    )
    for opt in all_options():
        names = [name for name in dict.fromkeys((opt.name, opt.declaration.kohya)) if name and "." not in name]
        flags = list(dict.fromkeys(f"--{spelled}" for name in names for spelled in (name.replace("_", "-"), name)))
        extra: dict[str, Any] = {"nargs": "?", "const": "true"} if opt.type is bool else {}
        if opt.type is tuple:
            extra = {"action": "extend", "nargs": "+"}
        parser.add_argument(
            *flags, dest=f"{OURS}{opt.name}", default=argparse.SUPPRESS, metavar=_metavar(opt), help=_help(opt), **extra
        )
    _add_others(parser)


def _add_others(parser: argparse.ArgumentParser) -> None:
    """Add every other option of sd-scripts and kohya_ss; they are judged as keys of a file."""
    own = {name for opt in all_options() for name in (opt.name, opt.declaration.kohya)}
    for key in key_table():
        if key.startswith(NETWORK_ARGS) or key in own | inner_names() | HAVE_THEIR_OWN:
            continue
        flags = list(dict.fromkeys((f"--{key}", f"--{key.replace('_', '-')}")))
        parser.add_argument(
            *flags, dest=f"{KOHYA}{key}", nargs="?", const=True, default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def config_from(args: argparse.Namespace) -> TrainConfig:
    """The configuration from the arguments and the file that they may name.

    Raises:
        ConfigError: with every problem.
    """
    given = vars(args)
    kohya = {key.removeprefix(KOHYA): value for key, value in given.items() if key.startswith(KOHYA)}
    ours = {key.removeprefix(OURS): value for key, value in given.items() if key.startswith(OURS)}
    if "epochs" in ours and "steps" not in ours:
        ours["steps"] = 0  # else the file's steps would override the requested epochs
    flat = dict(PRESETS[args.preset].settings()) if args.preset else {}
    settings = _file_settings(args.config, kohya, ours)
    problem = _code_problem({name: value for name, value in settings.items() if name not in ours})
    if problem:
        raise ConfigError([problem])
    flat.update(settings)
    flat.update(ours)
    if isinstance(flat.get("resolution"), str):
        flat.update(from_kohya({"resolution": flat["resolution"]}).flat)
    return build_config(flat)


def _file_settings(path: Path | None, arguments: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Options from the file, if any, and from kohya's own arguments; our names override kohya's.

    Args:
        path: the file.
        arguments: arguments that only kohya has; they override keys of the file, but do not affect its detected format.
        given: our options given as arguments; the file's values for them are not judged.

    Raises:
        ConfigError: with every setting that would change the result and is not supported.
    """
    settings = read_file(path) if path else {}
    toml = path is None or path.suffix.lower() == ".toml"
    source = source_of(settings, toml=toml, folder=path.parent if path else None, ours_first=True, arguments=arguments)
    if str(given.get("steps", 0)) != "0":
        given = {"epochs": 1, **given}  # steps override epochs
    found = import_source(source, keep_names=True, with_defaults=path is not None, given=given)
    problems = [
        said.line() if said.key.startswith(ARGUMENT) else f"Settings file (config): {problem}"
        for said, problem in zip((*found.not_supported, *found.unknown), found.problems())
    ]
    if problems:
        raise ConfigError(problems)
    return found.flat


def _code_problem(settings: dict[str, Any]) -> str | None:
    """The problem if a file names code of a package, which only an argument may do; else None."""
    named = code_of_others(settings)
    if named is None:
        return None
    name, value = named
    shown = str(value)[:80]
    return (
        f"Settings file (config): {name} = {shown!r} is code of a package, which settings files may not load; if you trust that "
        f"package, use --{name.replace('_', '-')} {shown}."
    )


def _metavar(opt: Option) -> str:
    return {
        bool: "true|false",
        int: "N",
        float: "NUMBER",
        tuple: {"folder": "DIR", "file": "FILE"}.get(str(opt.declaration.is_path), "NAME=VALUE"),
        str: "TEXT",
    }[opt.type]


def _help(opt: Option) -> str:
    choices = f" One of {', '.join(opt.choices)}." if opt.choices else ""
    return f"{opt.declaration.help}{choices} Default: {opt.default_words}.".replace("%", "%%")
