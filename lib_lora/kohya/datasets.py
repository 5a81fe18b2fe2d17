"""Dataset files give settings per folder; here all folders share theirs, but for repeats.

Which entry counts, and what is said of the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from lib_lora.data.folders import MAX_REPEATS
from lib_lora.kohya.files import Entry
from lib_lora.kohya.known import CLASS_TOKENS, Verdict
from lib_lora.kohya.spelling import with_trigger_prefix

OF_A_FOLDER = {"image_dir", "is_reg", "class_tokens", "metadata_file", "conditioning_data_dir", "custom_attributes"}
_NUMBERED = re.compile(r"(\d+)_(.*)", re.DOTALL)
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
        if name == "caption_prefix" and trigger(entries):
            looked_at = regular
            found.update(_without_trigger(members, set(leaves) - set(regular)))
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


def _without_trigger(members: Sequence[Entry], leaves: set[tuple[int, ...]]) -> dict[str, tuple[Verdict, str]]:
    why = "The trigger word is never put in front of regularisation images."
    return {entry.key: ("used", why) for entry in members if entry.place in leaves}


def trigger(entries: Sequence[Entry]) -> str:
    """The trigger word: what the prefix of the images has, up to a comma, and that of regularisation images has not."""
    placed = [entry for entry in entries if entry.place is not None]
    prefixes: tuple[set[str], set[str]] = (set(), set())
    for leaf in _leaves(placed):
        value = _at(placed, "caption_prefix", leaf)
        prefixes[_is_reg(placed, leaf)].add("" if value is _MISSING else str(value))
    if any(len(found) != 1 for found in prefixes):
        return ""
    (regular,), (reg,) = prefixes
    word = regular.removeprefix(reg).strip().removesuffix(",")
    return word if word and regular == with_trigger_prefix(reg, word) else ""


def folders(entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
    """The image folders, and those of regularisation images; DIR|N where a folder needs repeats of its own."""
    placed = [entry for entry in entries if entry.place is not None]
    own = _own_repeats(placed)
    found: tuple[list[str], list[str]] = ([], [])
    for entry in placed:
        if entry.name == "image_dir" and entry.place is not None:
            behind = f"|{own[entry.place]}" if entry.place in own else ""
            found[_is_reg(placed, entry.place)].append(f"{entry.value}{behind}")
    return found


def of_folders(entries: Sequence[Entry]) -> dict[str, tuple[Verdict, str]]:
    """Numbers of repeats that are taken with their folders, as DIR|N."""
    placed = [entry for entry in entries if entry.place is not None]
    own, alike = _own_repeats(placed), _alike(placed)
    found: dict[str, tuple[Verdict, str]] = {}
    for entry in placed if own or not alike and _legal(placed) else []:
        below = [place for place in own if place[: len(entry.place or ())] == entry.place]
        if entry.name == "num_repeats" and below:
            found[entry.key] = (
                "used",
                f"Stands behind each folder that it is for, as in {_dir(placed, below[0])}|{own[below[0]]}.",
            )
        elif entry.name == "num_repeats" and not alike:
            found[entry.key] = ("used", "The folder's name says it too.")
    return found


def captions(entries: Sequence[Entry]) -> dict[str, tuple[Verdict, str]]:
    """`class_tokens`: ignored; where the folder's name says something else, that is told."""
    found: dict[str, tuple[Verdict, str]] = {}
    for entry in entries:
        if entry.name == "class_tokens" and entry.place is not None:
            named = _NUMBERED.fullmatch(_name(_at(entries, "image_dir", entry.place)))
            if (named[2].strip() if named else "") != entry.value:
                told = f"{named[2].strip()!r}" if named else "nothing, so each needs a caption file or a Trigger word (trigger)"
                found[entry.key] = ("ignored", f"{CLASS_TOKENS} The name of this folder says {told}.")
    return found


def _own_repeats(placed: Sequence[Entry]) -> dict[tuple[int, ...], int]:
    """Place -> repeats, for folders that neither their name nor the one number for all gives the right repeats."""
    if not _legal(placed):
        return {}  # told by the option itself
    found: dict[tuple[int, ...], int] = {}
    for place, repeats in _repeats(placed).items():
        match = _NUMBERED.fullmatch(_name(_dir(placed, place)))
        shared = 1 if _is_reg(placed, place) else repeats if _alike(placed) else None
        if (int(match[1]) if match else shared) != repeats:
            found[place] = repeats
    return found


def _repeats(placed: Sequence[Entry]) -> dict[tuple[int, ...], Any]:
    places = [entry.place for entry in placed if entry.name == "image_dir" and entry.place is not None]
    given = {place: _at(placed, "num_repeats", place) for place in places}
    return {place: 1 if value is _MISSING else value for place, value in given.items()}


def _legal(placed: Sequence[Entry]) -> bool:
    return all(type(n) is int and 1 <= n <= MAX_REPEATS for n in _repeats(placed).values())


def _alike(placed: Sequence[Entry]) -> bool:
    """Whether one number holds for all folders but those of regularisation images."""
    return len({repr(n) for place, n in _repeats(placed).items() if not _is_reg(placed, place)}) <= 1


def _dir(placed: Sequence[Entry], place: tuple[int, ...]) -> Any:
    return _at(placed, "image_dir", place)


def _name(folder: Any) -> str:
    return PurePath(str(folder).replace("\\", "/")).name


def _is_reg(placed: Sequence[Entry], place: tuple[int, ...]) -> bool:
    return _truth(_at(placed, "is_reg", place))


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
