"""Command line arguments from the option list: our names and kohya's, dashes and underscores alike."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.config.optimizers import code_of_others
from lib_lora.config.options import Option
from lib_lora.config.presets import PRESETS
from lib_lora.errors import ConfigError
from lib_lora.kohya.files import read_file, source_of
from lib_lora.kohya.importing import from_kohya, import_source


def add_files(parser: argparse.ArgumentParser) -> None:
    """`--config FILE` and `--preset NAME`: where settings come from."""
    parser.add_argument(
        "--config",
        "--config_file",
        "--config-file",
        type=Path,
        help="settings: ours as JSON, or kohya's as JSON or TOML; arguments win over it",
    )
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), help="start from these settings; --config and arguments win over them"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """One argument per option, where settings come from, and kohya's `--learning_rate` and `--network_args`."""
    add_files(parser)
    parser.add_argument(
        "--learning_rate",
        "--learning-rate",
        dest="kohya:learning_rate",
        metavar="NUMBER",
        default=argparse.SUPPRESS,
        help="both learning rates at once",
    )
    parser.add_argument(
        "--network_args",
        "--network-args",
        dest="kohya:network_args",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=argparse.SUPPRESS,
        help="options of the LoRA as sd-scripts takes them, such as rank_dropout=0.1",
    )
    for opt in all_options():
        names = [name for name in dict.fromkeys((opt.name, opt.declaration.kohya)) if name and "." not in name]
        flags = list(dict.fromkeys(f"--{spelled}" for name in names for spelled in (name.replace("_", "-"), name)))
        extra: dict[str, Any] = {"nargs": "?", "const": "true"} if opt.kind is bool else {}
        if opt.kind is tuple:
            extra = {"action": "extend", "nargs": "+"}
        parser.add_argument(
            *flags, dest=f"option:{opt.name}", default=argparse.SUPPRESS, metavar=_metavar(opt), help=_help(opt), **extra
        )


def config_from(args: argparse.Namespace) -> TrainConfig:
    """The configuration that the arguments, and the file they may name, ask for.

    Raises:
        ConfigError: with every problem.
    """
    given = vars(args)
    kohya = {key.removeprefix("kohya:"): value for key, value in given.items() if key.startswith("kohya:")}
    flat = dict(PRESETS[args.preset].settings()) if args.preset else {}
    settings = _file_settings(args.config, kohya)
    problem = _code_problem({name: value for name, value in settings.items() if f"option:{name}" not in given})
    if problem:
        raise ConfigError([problem])
    flat.update(settings)
    flat.update({key.removeprefix("option:"): value for key, value in given.items() if key.startswith("option:")})
    if "option:epochs" in given and "option:steps" not in given:
        flat["steps"] = 0  # steps of the file would win over the epochs that are asked for
    if isinstance(flat.get("resolution"), str):
        flat.update(from_kohya({"resolution": flat["resolution"]}).flat)
    return build_config(flat)


def _file_settings(path: Path | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """Our options from the file, if there is one, and from arguments that only kohya has; ours win over kohya's.

    The arguments win over the same keys of the file, whose form hangs on the file alone.

    Raises:
        ConfigError: with every setting that would change the result and is not supported.
    """
    settings = read_file(path) if path else {}
    toml = path is not None and path.suffix.lower() == ".toml"
    form = source_of(settings, toml=toml, ours_first=True).form
    inner = settings.pop("network_args", None)
    if inner:
        arguments = {
            **arguments,
            "network_args": [*(inner if isinstance(inner, list) else [inner]), *arguments.get("network_args", [])],
        }
    merged = {**{key: value for key, value in settings.items() if key not in arguments}, **arguments}
    source = source_of(merged, toml=toml, folder=path.parent if path else None, form=form)
    found = import_source(source, keep_names=True)
    if found.problems():
        raise ConfigError([f"Settings file (config): {problem}" for problem in found.problems()])
    return found.flat


def _code_problem(settings: dict[str, Any]) -> str | None:
    """A file may not bring in code by itself: the person names it."""
    named = code_of_others(settings)
    if named is None:
        return None
    name, value = named
    shown = str(value)[:80]
    return (
        f"Settings file (config): {name} = {shown!r} is code of a package, which a file does not bring in; if you trust that "
        f"package, say so with --{name.replace('_', '-')} {shown}."
    )


def _metavar(opt: Option) -> str:
    return {
        bool: "true|false",
        int: "N",
        float: "NUMBER",
        tuple: "DIR" if opt.name in ("data", "reg_data") else "NAME=VALUE",
        str: "TEXT",
    }[opt.kind]


def _help(opt: Option) -> str:
    choices = f" One of {', '.join(opt.choices)}." if opt.choices else ""
    return f"{opt.declaration.help}{choices} Default: {opt.default_words}.".replace("%", "%%")
