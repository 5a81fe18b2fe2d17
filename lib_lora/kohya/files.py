"""Read settings files as entries: kohya_ss' JSON, sd-scripts' TOML (flat or in sections), its dataset files, and ours."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lib_lora.config.groups import all_options
from lib_lora.config.keyword_arguments import split_arguments
from lib_lora.config.toml_reader import MAX_DEPTH, parse_toml
from lib_lora.errors import ConfigError
from lib_lora.kohya.lora_easy import is_lora_easy, lora_easy_entries
from lib_lora.kohya.table import NETWORK_ARGS, key_table

Form = Literal["kohya_ss", "sd-scripts", "dataset", "ours"]
OUR_SECTION = "sd_webui_train_lora"  # what sd-scripts lacks; sd-scripts and kohya_ss ignore it
COMPOSITE = ("network_args", "network_args_custom", "additional_parameters")
ARGUMENT = "--"  # prefix of the keys of command line arguments
FORMS_OWN = "LoRA_type"  # only in files of kohya_ss' form; network_module only in files for sd-scripts
OF_KOHYA = {FORMS_OWN, "network_module"}
FOLDERS_ABOVE = 3
MAX_BYTES, MAX_NUMBER = 256 * 2**10, 2**63


@dataclass(frozen=True)
class Entry:
    """One key of a file. `key`: unique in it; `name`: kohya's name; `place`: in a dataset file, () for all, (i,) or (i, j)."""

    key: str
    name: str
    value: Any
    place: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Source:
    """All entries of a file.

    Args:
        parts: the entries inside an entry's value, by the entry's key.
        unread: why the file that an entry names cannot be read, by the entry's key.
        left_out: why the program that wrote the file would not have passed an entry on, by the entry's key.
    """

    form: Form
    entries: tuple[Entry, ...]
    parts: Mapping[str, tuple[Entry, ...]]
    unread: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_file(path: Path) -> dict[str, Any]:
    """The file as a dictionary. The format of its extension is tried first, then the other.

    Raises:
        ConfigError: it is neither JSON nor TOML, holds no table of keys, or is too large or nested too deep.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe would block
            raise OSError("it is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise OSError(f"it is larger than {MAX_BYTES // 2**10} KB")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # also for a path with a null character
        raise ConfigError([f"Settings file (config): {str(path)!r} cannot be read ({error})."]) from error
    readers: list[Callable[[str], Any]] = [json.loads, parse_toml]
    if path.suffix.lower() == ".toml":
        readers.reverse()
    problem: Exception | None = None
    for read in readers:
        try:
            found = read(text)
        except (ValueError, RecursionError, IndexError) as error:
            problem = problem or error
            continue
        has_keys = isinstance(found, dict) and (found or problem is None)  # an empty text is also TOML, but not meant as such
        problem = _unfit(found) if has_keys else problem or ValueError("it contains no keys")
        if problem is None:
            return dict(found)
        break
    what = "TOML" if path.suffix.lower() == ".toml" else "JSON"
    reason = " ".join(str(problem).split())
    raise ConfigError([f"Settings file (config): {str(path)!r} cannot be read as {what} ({reason})."])


def _unfit(settings: dict[str, Any]) -> ValueError | None:
    """An error if the settings have values that later code cannot handle."""
    level: list[Any] = [settings]
    for _ in range(MAX_DEPTH):
        if any(type(value) is int and abs(value) >= MAX_NUMBER for value in level):
            return ValueError("it contains a whole number of more than 64 bits")
        inside = [
            list(value.values()) if isinstance(value, dict) else value for value in level if isinstance(value, (dict, list))
        ]
        level = [value for values in inside for value in values]
        if not level:
            return None
    return ValueError(f"it is nested more than {MAX_DEPTH} levels deep")


def source_of(
    settings: Mapping[str, Any],
    *,
    toml: bool,
    folder: Path | None = None,
    ours_first: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> Source:
    """The entries of a file.

    Args:
        settings: the file as a dictionary.
        toml: whether it is a TOML file, as sd-scripts reads them.
        folder: the file's folder; if given, a dataset file that it names is read too.
        ours_first: whether a file of names that we and kohya share is one of ours.
        arguments: kohya's options of a command line, which override the file and do not decide its form.
    """
    easy = is_lora_easy(settings)
    found = list(lora_easy_entries(settings)) if easy else []
    entries = [Entry(*entry) for *entry, _ in found] if easy else [*_entries(settings)]
    left_out = {key: why for key, _, _, _, why in found if why}
    form = "sd-scripts" if easy else _form(settings, entries, toml=toml, ours_first=ours_first)
    unread: dict[str, str] = {}
    for named in [entry for entry in entries if entry.name == "dataset_config"] if folder else []:
        try:
            entries += _named_dataset(named, folder)
        except ConfigError as error:
            unread[named.key] = " ".join(error.problems)
    entries += [Entry(ARGUMENT + name, name, value) for name, value in (arguments or {}).items()]
    parts = {entry.key: {part.name: part for part in _parts(entry)} for entry in entries if entry.name in COMPOSITE}
    last_of_each = {key: tuple(found.values()) for key, found in parts.items()}  # as on every command line
    return Source(form, tuple(entries), last_of_each, unread, left_out)


def _form(settings: Mapping[str, Any], entries: list[Entry], *, toml: bool, ours_first: bool) -> Form:
    """The form of a file: ours if more keys are only ours than only kohya's, else decided by `LoRA_type` and `network_module`.

    network_args count for neither, since we accept them too.
    """
    names = {entry.name for entry in entries if not entry.key.startswith(f"{OUR_SECTION}.")}
    if "datasets" in settings and set(settings) <= {"datasets", "general"}:
        return "dataset"
    names = {name for name in names if not name.startswith("network_args")}
    ours, kohya = {opt.name for opt in all_options()}, set(key_table())
    pairs = any(entry.name == "resolution" and _is_pair(entry.value) for entry in entries)  # a shared name in kohya's spelling
    lead = len((names & ours) - kohya) - len((names & kohya) - ours) - pairs
    if lead > 0 or (lead == 0 and ours_first and names and not toml and not names & OF_KOHYA):
        return "ours"
    if len(names & OF_KOHYA) == 1:
        return "kohya_ss" if FORMS_OWN in names else "sd-scripts"
    return "sd-scripts" if toml else "kohya_ss"


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and "," in value)


def _entries(settings: Mapping[str, Any]) -> Iterator[Entry]:
    """Flatten as sd-scripts does: one level of sections; datasets and their subsets by number."""
    has_datasets = isinstance(settings.get("datasets"), list)
    for key, value in settings.items():
        if key == "datasets" and has_datasets:
            yield from _dataset_entries(value)
        elif isinstance(value, dict) and key != "network_args" and value:
            place = () if key == "general" and has_datasets else None
            yield from (Entry(f"{key}.{name}", name, inner, place) for name, inner in value.items())
        else:
            yield Entry(key, key, value)


def _dataset_entries(datasets: list[Any]) -> Iterator[Entry]:
    for i, dataset in enumerate(datasets):
        if not isinstance(dataset, dict):
            yield Entry(f"datasets[{i}]", f"datasets[{i}]", dataset)
            continue
        for name, value in dataset.items():
            if name != "subsets" or not isinstance(value, list):
                yield Entry(f"datasets[{i}].{name}", name, value, (i,))
                continue
            for j, subset in enumerate(value):
                start = f"datasets[{i}].subsets[{j}]"
                inside = subset.items() if isinstance(subset, dict) else [("", subset)]
                yield from (Entry(f"{start}.{inner}".rstrip("."), inner or start, found, (i, j)) for inner, found in inside)


def _named_dataset(named: Entry, folder: Path | None) -> list[Entry]:
    """The entries of the dataset file that `dataset_config` names.

    Raises:
        ConfigError: it is missing, or cannot be read.
    """
    if folder is None or not isinstance(named.value, str) or not named.value.strip():
        return []
    settings = read_file(_where(folder, Path(named.value.strip().replace("\\", "/"))))
    return [dataclasses.replace(entry, key=f"{named.key}.{entry.key}") for entry in _entries(settings)]


def _where(folder: Path, named: Path) -> Path:
    """The path from the file's folder or one of its parents: kohya_ss' paths are relative to where it was started.

    If it does not exist, such as a path of another machine, the file of that name beside the file.
    """
    for above in (folder, *list(folder.absolute().parents)[:FOLDERS_ABOVE]):
        try:
            if (above / named).is_file():
                return above / named
        except OSError:  # the name is too long; reported when it is read
            return folder / named
    beside = folder / named.name
    return beside if named.name and beside.is_file() else folder / named


def _parts(entry: Entry) -> Iterator[Entry]:
    """The entries inside `network_args` (key=value …) or `additional_parameters` (a command line)."""
    if entry.name in ("network_args", "network_args_custom"):
        for name, value in _pairs(entry.value):
            yield Entry(entry.key, NETWORK_ARGS + name, value)
        return
    words = _words(entry.value) if isinstance(entry.value, str) else []
    while words:
        word = words.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        values = [value] if equals else []
        while not equals and words and not re.match(r"--[A-Za-z]", words[0]):
            values.append(words.pop(0))
        name = name.replace("-", "_")
        if name == "network_args":
            yield from (Entry(entry.key, NETWORK_ARGS + inner, found) for inner, found in _pairs(values))
        else:
            yield Entry(entry.key, name, True if not values else values[0] if len(values) == 1 else values)


def _words(value: Any) -> list[str]:
    try:
        return shlex.split(str(value))
    except ValueError:  # an unclosed quote
        return str(value).split()


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
        return
    texts = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    for text in texts:
        for part in split_arguments(str(text).replace('"', "")):
            name, _, inner = part.partition("=")
            yield name.strip(), inner.strip()
