"""Dataset files, whose settings per folder become settings for all folders, except repeats.

Decides which entry counts, and the verdict on the others. A setting that a folder lacks comes from its dataset, `[general]`, an
argument or the default, and counts as the folder's own (sd-scripts `generate_params_by_fallbacks`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import PurePath
from typing import Any

from lib_lora.data.folders import MAX_REPEATS
from lib_lora.kohya.files import Entry
from lib_lora.kohya.known import CLASS_TOKENS, Verdict
from lib_lora.kohya.spelling import number, sides, truth, with_trigger_prefix

OF_A_FOLDER = {"image_dir", "is_reg", "class_tokens", "metadata_file", "conditioning_data_dir", "custom_attributes", "cache_info"}
# of a folder (sd-scripts `config_util.py`)
DEFAULTS: dict[str, Any] = {
    "num_repeats": 1, "shuffle_caption": False, "caption_separator": ",", "keep_tokens": 0, "keep_tokens_separator": "",
    "secondary_separator": "", "enable_wildcard": False, "color_aug": False, "flip_aug": False, "face_crop_aug_range": None,
    "random_crop": False, "caption_prefix": "", "caption_suffix": "", "caption_dropout_rate": 0.0,
    "caption_dropout_every_n_epochs": 0, "caption_tag_dropout_rate": 0.0, "token_warmup_min": 1, "token_warmup_step": 0,
    "caption_extension": ".caption", "alpha_mask": False, "resolution": None, "batch_size": 1, "enable_bucket": False,
    "min_bucket_reso": 256, "max_bucket_reso": 1024, "bucket_reso_steps": 64, "bucket_no_upscale": False,
    "network_multiplier": 1.0, "validation_split": 0.0, "validation_seed": None, "resize_interpolation": None,
    "prior_loss_weight": 1.0,
}  # fmt: skip
_MOVES = ("shuffle_caption", "token_warmup_step", "caption_tag_dropout_rate")
_BUCKETS = ("enable_bucket",)
# settings that have no effect for a folder unless it has one of these
READ_WITH: dict[str, tuple[str, ...]] = {
    "keep_tokens": _MOVES, "keep_tokens_separator": _MOVES, "caption_separator": (*_MOVES, "secondary_separator"),
    "token_warmup_min": ("token_warmup_step",), "min_bucket_reso": _BUCKETS, "max_bucket_reso": _BUCKETS,
    "bucket_reso_steps": _BUCKETS, "bucket_no_upscale": _BUCKETS, "validation_seed": ("validation_split",),
}  # fmt: skip
# argument -> the key of a dataset file that it stands in for
_ARGUMENTS = {"train_batch_size": "batch_size", "dataset_repeats": "num_repeats", "caption_extention": "caption_extension"}
_NUMBERED = re.compile(r"(\d{1,18})_(.*)", re.DOTALL)  # more digits are a name
_MISSING = object()
Place = tuple[int, ...]
Told = dict[str, tuple[Verdict, str]]


class _Settings:
    """The settings of all folders. A leaf is a subset, or a dataset without subsets."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.placed = [entry for entry in entries if entry.place is not None]
        self._values = {(_name_of(entry), entry.place): entry.value for entry in entries if entry.value is not None}

    def at(self, name: str, leaf: Place) -> Any:
        """The value for a folder: its own, its dataset's, `[general]`'s or an argument's; `_MISSING` if there is none."""
        places: list[Place | None] = [leaf[:length] for length in range(len(leaf), -1, -1)]
        return next((self._values[name, place] for place in [*places, None] if (name, place) in self._values), _MISSING)

    def value(self, name: str, leaf: Place) -> Any:
        """The value that sd-scripts uses, defaults included."""
        value = self.at(name, leaf)
        return DEFAULTS.get(name, _MISSING) if value is _MISSING else value

    def is_reg(self, leaf: Place) -> bool:
        return _truth(self.at("is_reg", leaf))

    def is_read(self, name: str, leaf: Place) -> bool:
        """Whether the setting has an effect for this folder; assumed if unknown arguments may decide it."""
        deciding = [self.at(other, leaf) for other in READ_WITH.get(name, ())]
        is_open = _MISSING in deciding and len(self.placed) == len(self.entries)
        return not deciding or is_open or any(map(_truth, deciding))

    @cached_property
    def images(self) -> dict[Place, Any]:
        """Place -> folder, with repetitions."""
        return {entry.place: entry.value for entry in self.placed if entry.name == "image_dir" and entry.place is not None}

    @cached_property
    def again(self) -> dict[Place, Place]:
        """Place of a repeated folder -> its first place."""
        first: dict[str, Place] = {}
        return {place: first[str(folder)] for place, folder in self.images.items()
                if first.setdefault(str(folder), place) != place}  # fmt: skip

    @cached_property
    def leaves(self) -> list[Place]:
        """All leaves; folders that a dataset repeats are left out, as in sd-scripts."""
        places = list(dict.fromkeys(entry.place for entry in self.placed if entry.place))
        parents = {place[:1] for place in places if len(place) == 2}
        found = [place for place in places if len(place) == 2 or place not in parents]
        counting = [place for place in found if place in self.images and not self._is_passed_over(place)]
        return counting or found or [()]

    def _is_passed_over(self, place: Place) -> bool:
        return place in self.again and self.again[place][:1] == place[:1]

    @cached_property
    def folders(self) -> dict[Place, Any]:
        """Place -> folder, without repetitions in a dataset."""
        return {place: folder for place, folder in self.images.items() if not self._is_passed_over(place)}

    @cached_property
    def repeats(self) -> dict[Place, Any]:
        return {place: self.value("num_repeats", place) for place in self.folders}

    @property
    def legal(self) -> bool:
        """Whether every number of repeats is legal; the option itself reports illegal ones."""
        return all(type(n) is int and 1 <= n <= MAX_REPEATS for n in self.repeats.values())

    @cached_property
    def alike(self) -> bool:
        """Whether all folders except those of regularisation images have the same repeats."""
        return len({repr(n) for place, n in self.repeats.items() if not self.is_reg(place)}) <= 1

    @cached_property
    def own_repeats(self) -> dict[Place, int]:
        """Place -> repeats, if neither the folder's name nor the shared number gives them."""
        found: dict[Place, int] = {}
        for place, repeats in self.repeats.items() if self.legal else ():
            match = _NUMBERED.fullmatch(_name(self.folders[place]))
            shared = 1 if self.is_reg(place) else repeats if self.alike else None
            if (int(match[1]) if match else shared) != repeats:
                found[place] = repeats
        return found

    @cached_property
    def trigger(self) -> str:
        """The trigger word: what the images' prefix has, up to a comma, and that of regularisation images lacks."""
        prefixes: tuple[set[str], set[str]] = (set(), set())
        for leaf in self.leaves:
            prefixes[self.is_reg(leaf)].add(str(self.value("caption_prefix", leaf)))
        if any(len(found) != 1 for found in prefixes):
            return ""
        (regular,), (reg,) = prefixes
        word = regular.removeprefix(reg).strip().removesuffix(",")
        return word if word and regular == with_trigger_prefix(reg, word) else ""


def overruled(entries: Sequence[Entry]) -> Told:
    """Entry key -> verdict and reason, for every entry that does not count."""
    settings = _Settings(entries)
    if not settings.placed:
        return {}
    found = _named_again(settings)
    regular = [leaf for leaf in settings.leaves if not settings.is_reg(leaf)]
    rest = set(settings.leaves) - set(regular)
    members: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.key not in found:
            members.setdefault(_name_of(entry), []).append(entry)
    for name in dict.fromkeys(entry.name for entry in settings.placed if entry.name not in OF_A_FOLDER):
        looked_at, own = settings.leaves, members.get(name, [])
        if name == "caption_prefix" and settings.trigger:
            looked_at = regular
            found.update(_told(own, rest, "used", "The trigger word is never added to captions of regularisation images."))
        if name == "num_repeats" and regular:
            looked_at = regular
            found.update(
                _told(own, rest, "ignored", "Regularisation images are repeated until there are as many as training images.")
            )
        found.update(_compared(name, settings, [entry for entry in own if entry.key not in found], looked_at))
    return found


def _told(members: Iterable[Entry], leaves: set[Place], verdict: Verdict, why: str) -> Told:
    return {entry.key: (verdict, why) for entry in members if entry.place in leaves}


def _compared(name: str, settings: _Settings, members: Sequence[Entry], leaves: Sequence[Place]) -> Told:
    """Verdicts on the entries of one setting, which every folder has, given or by default."""
    values = [(leaf, value) for leaf in leaves if (value := settings.value(name, leaf)) is not _MISSING]
    reading = [value for leaf, value in values if settings.is_read(name, leaf)]
    if not values:
        return {}
    chosen = reading[0] if reading else values[0][1]
    odd = [entry for entry in members if not _same(name, entry.value, chosen)]
    other = next((value for value in reading if not _same(name, value, chosen)), chosen)
    if other is not chosen and odd:
        why = f"All folders share this setting here; the first value, {chosen!r}, is used."
        return {entry.key: ("not_supported", why) for entry in odd}
    if other is not chosen:
        why = f"Only some folders have this setting, and all share it here; {other!r}, the value of the others, is used."
        return {entry.key: ("not_supported", why) for entry in members}
    if any(not _same(name, value, chosen) for _, value in values):
        why = "Differs between folders, but has no effect where it does."
        return {entry.key: ("ignored", why) for entry in odd}
    return {entry.key: ("ignored", "Overridden by the folder's own setting.") for entry in odd if entry.place is not None}


def _named_again(settings: _Settings) -> Told:
    """Verdicts on repeated folders: sd-scripts skips them within a dataset, and shows them again in another one."""
    found: Told = {}
    for entry in settings.placed:
        before = settings.again.get(entry.place or ())
        if before is not None and entry.place is not None and before[:1] == entry.place[:1]:
            found[entry.key] = ("ignored", "The folder is already in its dataset; the first entry counts.")
        elif before is not None and entry.name == "image_dir":
            found[entry.key] = (
                "not_supported",
                "Another dataset contains this folder too; here it is used once: give it more repeats.",
            )
    return found


def trigger(entries: Sequence[Entry]) -> str:
    """The trigger word in the folders' prefixes."""
    return _Settings(entries).trigger


def folders(entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
    """The image folders, and those of regularisation images; DIR|N if a folder needs its own repeats."""
    settings = _Settings(entries)
    found: tuple[list[str], list[str]] = ([], [])
    for place, folder in settings.folders.items():
        behind = f"|{settings.own_repeats[place]}" if place in settings.own_repeats else ""
        found[settings.is_reg(place)].append(f"{folder}{behind}")
    return found


def of_folders(entries: Sequence[Entry]) -> Told:
    """Verdicts on what goes with the folders: their repeats, as DIR|N, and one mask folder."""
    settings = _Settings(entries)
    found = _masks(settings)
    own = settings.own_repeats
    if not own and (settings.alike or not settings.legal):
        return found
    below: dict[Place, Place] = {}
    for place in own:
        for length in range(len(place) + 1):
            below.setdefault(place[:length], place)
    for entry in settings.placed:
        first = below.get(entry.place or ())
        if entry.name == "num_repeats" and first is not None:
            why = f"Added to each folder that it applies to, as in {settings.folders[first]}|{own[first]}."
            found[entry.key] = ("used", why)
        elif entry.name == "num_repeats" and not settings.alike:
            found[entry.key] = ("used", "Also given by the folder's name.")
    return found


def _masks(settings: _Settings) -> Told:
    name = "conditioning_data_dir"
    given = [settings.at(name, leaf) for leaf in settings.leaves if not settings.is_reg(leaf)]
    if all(value == given[0] for value in given):
        return {}
    why = "All folders share one Mask folder (mask_data) here; masks of a folder can be in a subfolder with its name."
    return {entry.key: ("not_supported", why) for entry in settings.placed if entry.name == name}


def captions(entries: Sequence[Entry]) -> Told:
    """Verdicts on `class_tokens` that differ from the folder's name, which counts."""
    settings, found = _Settings(entries), Told()
    for entry in entries:
        if entry.name == "class_tokens" and entry.place is not None:
            named = _NUMBERED.fullmatch(_name(settings.at("image_dir", entry.place)))
            if (named[2].strip() if named else "") != entry.value:
                told = f"{named[2].strip()!r}" if named else "nothing, so each needs a caption file or a Trigger word (trigger)"
                found[entry.key] = ("ignored", f"{CLASS_TOKENS} The name of this folder gives {told}.")
    return found


def _name_of(entry: Entry) -> str:
    return _ARGUMENTS.get(entry.name, entry.name)


def _same(name: str, one: Any, other: Any) -> bool:
    """Whether two values of a setting are equal; an empty value is the default."""
    first, second = (DEFAULTS.get(name) if value in (None, "") else value for value in (one, other))
    if name == "resolution":
        first, second = _sides(first), _sides(second)
    return bool(first == second)


def _sides(value: Any) -> tuple[float | None, ...]:
    width, height = sides(value)
    return number(width), number(height) or number(width)


def _name(folder: Any) -> str:
    return PurePath(str(folder).replace("\\", "/")).name


def _truth(value: Any) -> bool:
    return value is not _MISSING and truth(value)
