"""Dataset files give settings per folder; here all folders share theirs. Which entry counts, and what is said of the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from lib_lora.kohya.files import Entry
from lib_lora.kohya.known import Verdict

OF_A_FOLDER = {"image_dir", "is_reg", "class_tokens", "metadata_file", "conditioning_data_dir", "custom_attributes"}
_MISSING = object()


def overruled(entries: Sequence[Entry]) -> dict[str, tuple[Verdict, str]]:
    """Entry key -> verdict and reason, for all that does not count."""
    placed = [entry for entry in entries if entry.place is not None]
    leaves = _leaves(placed)
    regular = [leaf for leaf in leaves if not _truth(_at(placed, "is_reg", leaf))]
    found: dict[str, tuple[Verdict, str]] = {}
    for name in dict.fromkeys(entry.name for entry in placed if entry.name not in OF_A_FOLDER):
        members = [entry for entry in placed if entry.name == name]
        looked_at = regular if name == "num_repeats" and regular else leaves
        if name == "num_repeats":
            found.update(_of_regularisation(members, set(leaves) - set(looked_at)))
        values = [_at(placed, name, leaf) for leaf in looked_at]
        chosen = next((value for value in values if value is not _MISSING), members[0].value)
        differ = any(value != chosen for value in values)
        for entry in members:
            if entry.key in found or entry.value == chosen and not differ:
                continue
            found.update(_told(entry, chosen, differ=differ))
    return found


def _told(entry: Entry, chosen: Any, *, differ: bool) -> dict[str, tuple[Verdict, str]]:
    if not differ:
        return {entry.key: ("ignored", "Said again for the folder itself, which wins.")}
    if entry.value != chosen:
        why = f"All folders share this setting here; {chosen!r}, which comes first, is taken."
        return {entry.key: ("not_supported", why)}
    return {}


def _of_regularisation(members: Sequence[Entry], leaves: set[tuple[int, ...]]) -> dict[str, tuple[Verdict, str]]:
    why = "Regularisation images are repeated until they are as many as the others."
    return {entry.key: ("ignored", why) for entry in members if entry.place in leaves}


def folders(entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
    """The image folders, and those of regularisation images."""
    placed = [entry for entry in entries if entry.place is not None]
    regular: list[str] = []
    reg: list[str] = []
    for entry in placed:
        if entry.name == "image_dir" and entry.place is not None:
            (reg if _truth(_at(placed, "is_reg", entry.place)) else regular).append(str(entry.value))
    return regular, reg


def misnamed(entries: Sequence[Entry]) -> dict[str, tuple[Verdict, str]]:
    """Folders whose name says another number of repeats than the file: here the name wins."""
    placed = [entry for entry in entries if entry.place is not None]
    found: dict[str, tuple[Verdict, str]] = {}
    for entry in placed:
        if entry.name != "image_dir" or entry.place is None or _truth(_at(placed, "is_reg", entry.place)):
            continue
        named = re.match(r"(\d+)_", PurePath(str(entry.value).replace("\\", "/")).name)
        wanted = _at(placed, "num_repeats", entry.place)
        if named and int(named[1]) != (1 if wanted is _MISSING else wanted):
            why = f"The folder's name says {int(named[1])} repeats, which counts here; rename the folder to change that."
            key = next((e.key for e in placed if e.name == "num_repeats" and e.place == entry.place), entry.key)
            found[key] = ("not_supported", why)
    return found


def _truth(value: Any) -> bool:
    return value is not _MISSING and bool(value)


def _leaves(entries: Sequence[Entry]) -> list[tuple[int, ...]]:
    """The places that images come from: subsets, or datasets that have none."""
    places = list(dict.fromkeys(entry.place for entry in entries if entry.place))
    return [place for place in places if len(place) == 2 or not any(p[:1] == place and len(p) == 2 for p in places)] or [()]


def _at(entries: Sequence[Entry], name: str, leaf: tuple[int, ...]) -> Any:
    """The value of `name` for a folder: its own, its dataset's, or the one for all."""
    for length in range(len(leaf), -1, -1):
        for entry in entries:
            if entry.name == name and entry.place == leaf[:length]:
                return entry.value
    return _MISSING
