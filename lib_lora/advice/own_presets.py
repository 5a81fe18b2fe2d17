"""The user's own presets: a file each in a private folder, which can be shared.

A file is a JSON object: `train_lora_preset` with the version of the form, `name`, `settings` (option name -> value). What
belongs to a person or a computer (names, folders, files) is in no preset.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_lora.advice.differences import preset_options
from lib_lora.config.groups import TrainConfig, build_config, options_by_name, read_config
from lib_lora.config.optimizer_specs import code_of_others
from lib_lora.config.options import shown
from lib_lora.config.presets import PRESETS
from lib_lora.errors import ConfigError, Problem
from lib_lora.files.atomic import write_atomically
from lib_lora.files.plain_json import read_json

MARK, VERSION = "train_lora_preset", 1
MOST, LONGEST_NAME, LONGEST_FILE = 500, 80, 256 * 1024  # presets; characters; bytes
MOST_NESTED = 2000  # lists and objects of a file
_ID = re.compile(r"preset-[0-9a-f]{16}")
_GONE = "This preset does not exist any more; choose another."


@dataclass(frozen=True)
class OwnPreset:
    """A preset of the user. `id`: of its file; empty for one that is not saved.

    `left_out`: what of a file from elsewhere is not used, and why.
    """

    name: str
    settings: Mapping[str, Any]
    id: str = ""
    left_out: tuple[Problem, ...] = field(default=(), compare=False)

    def config(self) -> TrainConfig:
        """Its settings; what it does not set has the default."""
        return build_config(self.settings)

    def to_text(self) -> str:
        """The file to share."""
        return (
            json.dumps({MARK: VERSION, "name": self.name, "settings": dict(self.settings)}, indent=1, ensure_ascii=False) + "\n"
        )


class OwnPresets:
    """The presets in the folder `root`, which is made when the first is saved. Any thread may call its methods."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()

    def all(self) -> list[OwnPreset]:
        """Every preset that can be read, by name."""
        with self._lock:
            return sorted((found for id_ in self._ids() if (found := self._read(id_))), key=lambda one: one.name.casefold())

    def get(self, preset_id: str) -> OwnPreset:
        """The preset of an untrusted id.

        Raises:
            ConfigError: there is none, or its file cannot be read.
        """
        with self._lock:
            found = self._read(preset_id) if _ID.fullmatch(preset_id) else None
        if found is None:
            raise ConfigError([_GONE])
        return found

    def save(self, name: str, config: TrainConfig, *, instead: str = "") -> OwnPreset:
        """Save what a preset may hold of `config`; `instead`: the id of the preset to replace.

        Raises:
            ConfigError: the name is taken or not allowed, there are too many presets, or the one to replace is gone.
            OSError: the disk refused; nothing changed.
        """
        with self._lock:
            if instead:
                self.get(instead)
            elif len(self._ids()) >= MOST:
                raise ConfigError([f"There are {MOST} presets; delete one first."])
            settings = {opt.name: _plain(config.value(opt)) for opt in preset_options()}
            return self._write(OwnPreset(self._free_name(name, instead), settings, instead or f"preset-{uuid.uuid4().hex[:16]}"))

    def rename(self, preset_id: str, name: str) -> OwnPreset:
        """Give a preset another name.

        Raises:
            ConfigError, OSError: as `save`.
        """
        with self._lock:
            found = self.get(preset_id)
            return self._write(OwnPreset(self._free_name(name, preset_id), found.settings, preset_id))

    def delete(self, preset_id: str) -> None:
        """Remove a preset.

        Raises:
            ConfigError: there is none.
            OSError: the disk refused; the preset is still there.
        """
        with self._lock:
            self.get(preset_id)
            self._path(preset_id).unlink()

    def receive(self, content: bytes) -> OwnPreset:
        """Save a shared file of untrusted content, under a free name; its `left_out` says what is not used.

        Raises:
            ConfigError: it is no preset of this extension, or there are too many presets.
            OSError: the disk refused.
        """
        read = read_preset(content)
        with self._lock:
            saved = self.save(self.free_name(read.name), read.config())
        return OwnPreset(saved.name, saved.settings, saved.id, read.left_out)

    def free_name(self, wanted: str) -> str:
        """`wanted`, or with the smallest of 2, 3, … that no preset has."""
        stem = _tidy(wanted)[: LONGEST_NAME - 4].strip() or "Preset"
        taken, name, number = self._taken(), stem, 2
        while name.casefold() in taken:
            name, number = f"{stem} {number}", number + 1
        return name

    def _free_name(self, name: str, own: str) -> str:
        text = " ".join(name.split())
        if not text or len(text) > LONGEST_NAME or _tidy(text) != text:
            raise ConfigError([f"Name of the preset: got {shown(text)}, must have 1 to {LONGEST_NAME} characters."])
        if text.casefold() in self._taken(own):
            raise ConfigError([f"Name of the preset: {shown(text)} is taken; choose another."])
        return text

    def _taken(self, own: str = "") -> set[str]:
        """Names of all presets but `own`, and of ours."""
        return {"defaults", *(preset.title.casefold() for preset in PRESETS.values())} | {
            found.name.casefold() for found in self.all() if found.id != own
        }

    def _ids(self) -> list[str]:
        try:
            names = [path.stem for path in self._root.iterdir() if path.suffix == ".json"]
        except FileNotFoundError:
            return []
        return [name for name in names if _ID.fullmatch(name)]

    def _path(self, preset_id: str) -> Path:
        return self._root / f"{preset_id}.json"

    def _read(self, preset_id: str) -> OwnPreset | None:
        """The preset in a file; None if there is none, or it is damaged."""
        path = self._path(preset_id)
        try:
            if path.is_symlink() or path.stat().st_size > LONGEST_FILE:
                return None
            read = read_preset(path.read_bytes())
        except (OSError, ConfigError):
            return None
        return OwnPreset(read.name, read.settings, preset_id, read.left_out)

    def _write(self, preset: OwnPreset) -> OwnPreset:
        write_atomically(self._path(preset.id), preset.to_text().encode())
        return preset


def read_preset(content: bytes) -> OwnPreset:
    """The preset in a file of untrusted content.

    Raises:
        ConfigError: it is no preset of this extension.
    """
    if len(content) > LONGEST_FILE:
        raise ConfigError([f"The file is larger than {LONGEST_FILE // 1024} KB, so it is no preset of this extension."])
    try:
        found = read_json(content.decode("utf-8-sig"), MOST_NESTED)
    except (ValueError, RecursionError) as error:
        raise ConfigError(["The file is no readable JSON, so it is no preset; export it again."]) from error
    settings = found.get("settings") if isinstance(found, dict) else None
    if not isinstance(found, dict) or MARK not in found or not isinstance(settings, dict):
        raise ConfigError(["The file is no preset of this extension; files of kohya_ss and sd-scripts are taken by Import."])
    if found[MARK] != VERSION:
        raise ConfigError(["The preset is of a newer version of this extension; update it."])
    name = found.get("name")
    used, left_out = _legal(settings)
    return OwnPreset(_tidy(name if isinstance(name, str) else "")[:LONGEST_NAME].strip() or "Preset", used, "", left_out)


def _legal(settings: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """The settings that a preset may set, with legal values, and why the others are left out."""
    allowed, options = {opt.name for opt in preset_options()}, options_by_name()
    problems = [
        Problem(name, f"{options[name].title}: belongs to one person's training, so no preset sets it.")
        for name in settings
        if name in options and name not in allowed
    ]
    code = code_of_others(settings)
    if code:
        start = f"{options[code[0]].title}: {shown(code[1])}"
        text = f"{start} is code of a package, which no preset may choose; if you trust it, enter the name yourself."
        problems.append(Problem(code[0], text))
    refused = {problem.option for problem in problems}
    config, illegal = read_config({name: value for name, value in settings.items() if name not in refused})
    refused |= {problem.option for problem in illegal}
    used = {name: _plain(config.value(options[name])) for name in settings if name in allowed and name not in refused}
    return used, (*problems, *illegal)


def _tidy(name: str) -> str:
    """A name without control characters, in one line."""
    return "".join(letter for letter in " ".join(name[: 4 * LONGEST_NAME].split()) if letter.isprintable())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
