"""Command line arguments from the option list: our names and kohya's, dashes and underscores alike."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.config.kohya import from_kohya
from lib_lora.config.options import Option
from lib_lora.errors import ConfigError


def add_options(parser: argparse.ArgumentParser) -> None:
    """One argument per option, plus `--config FILE` and kohya's `--learning_rate`."""
    parser.add_argument(
        "--config",
        "--config_file",
        "--config-file",
        type=Path,
        help="settings as JSON: ours by option name, or kohya's; arguments win over it",
    )
    parser.add_argument(
        "--learning_rate",
        "--learning-rate",
        dest="kohya:learning_rate",
        metavar="NUMBER",
        default=argparse.SUPPRESS,
        help="both learning rates at once",
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
    rate = {"learning_rate": given["kohya:learning_rate"]} if "kohya:learning_rate" in given else {}
    flat = _translated({**(_file_settings(args.config) if args.config else {}), **rate})
    flat.update({key.removeprefix("option:"): value for key, value in given.items() if key.startswith("option:")})
    if isinstance(flat.get("resolution"), str):
        flat.update(from_kohya({"resolution": flat["resolution"]}).flat)
    return build_config(flat)


def _file_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"Settings file (config): {str(path)!r} cannot be read as JSON ({error})."]) from error
    if not isinstance(settings, Mapping):
        raise ConfigError([f"Settings file (config): {str(path)!r} must hold a JSON object of options."])
    return dict(settings)


def _translated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Our options as they are, kohya's under our names; ours win."""
    ours = {opt.name for opt in all_options()}
    own = {key: value for key, value in settings.items() if key in ours}
    kohya = from_kohya({key: value for key, value in settings.items() if key not in ours})
    if kohya.unsupported:
        raise ConfigError([f"Settings file (config): {problem}" for problem in kohya.unsupported])
    return {**kohya.flat, **own}


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
    return f"{opt.declaration.help}{choices} Default: {opt.default}.".replace("%", "%%")
