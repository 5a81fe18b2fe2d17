"""What should be known of the images of a dataset before training: each with its reason and a remedy. Pure functions of facts."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lib_lora.data.buckets import Placement
from lib_lora.data.edits import ImageEdit, size_in
from lib_lora.data.folders import IMAGE_SUFFIXES, MAX_ENTRIES
from lib_lora.data.hidden_names import given, given_stem, suffix_of
from lib_lora.data.image_facts import ImageFacts
from lib_lora.data.sizes import Size
from lib_lora.datasets.duplicates import duplicates
from lib_lora.datasets.image_set import CAPTION_SUFFIXES, ImageEntry
from lib_lora.datasets.looked_index import Looked

LEAST_SIDE = 64  # of a bucket that training takes
ENLARGED = 1.1  # times, from which on it is told
CUT_AWAY = 0.15  # share of an image, from which on it is told
# of the median sharpness: sharp photos differ by a factor of ten from the median, a visible blur lowers it a hundredfold
BLURRED = 1 / 16
FEWEST = 5  # images that make a median worth a comparison


class Notice(NamedTuple):
    """What is true of an image. `kind`: for filters and badges. `why`, `remedy`: parts of a sentence."""

    kind: str
    why: str
    remedy: str

    @property
    def text(self) -> str:
        return f"{self.why}; {self.remedy}."


def notices(
    entries: Sequence[ImageEntry],
    looked: Mapping[str, Looked],
    placements: Mapping[str, Placement],
    caption_files: Collection[Path] = (),
) -> dict[str, list[Notice]]:
    """The notices of every image that has any, by place; images that are left out have none.

    Args:
        entries: the images of a dataset.
        looked: what is known of them, by place; those that are not known yet are told of captions alone.
        placements: in buckets, by place.
        caption_files: the caption files beside the images.
    """
    used = [entry for entry in entries if not entry.edit.left_out]
    facts = {place: known.facts for place, known in looked.items() if known.facts is not None}
    facts = {entry.place: facts[entry.place] for entry in used if entry.place in facts}
    median = median_sharpness(facts.values())
    alike = duplicate_notices(used, facts)
    told: dict[str, list[Notice]] = {}
    for entry in used:
        known = looked.get(entry.place)
        found: list[Notice | None] = [unreadable(known), *alike.get(entry.place, ()), no_caption(entry, caption_files)]
        if known is not None and known.facts is not None:
            found += [turned(known.facts), transparent(known.facts), blurred(known.facts, median)]
        part = size_in(entry.edit.crop, known.size) if known and known.size else None
        placement = placements.get(entry.place)
        if part is not None and placement is not None:
            found += [enlarged(part, placement), narrow(part, placement)]
        if notes := [notice for notice in found if notice is not None]:
            told[entry.place] = notes
    return told


def unreadable(looked: Looked | None) -> Notice | None:
    """A file that cannot be read, with the sentence of its decoder, which ends in the remedy."""
    if looked is None or not looked.problems:
        return None
    why, mark, remedy = looked.problems[0].rstrip(".").rpartition("; ")
    return Notice("unreadable", why, remedy) if mark else Notice("unreadable", remedy, "replace or remove it")


def turned(facts: ImageFacts) -> Notice | None:
    """An image that the camera turned by EXIF: it is trained as it is shown."""
    if not facts.turned:
        return None
    return Notice("turned", "The camera's note (EXIF) on how to turn it is followed", "nothing to do if it is upright here")


def transparent(facts: ImageFacts) -> Notice | None:
    """An image with transparency, which training sees on white."""
    if not facts.transparent:
        return None
    return Notice("transparent", "Transparent parts are trained as white", "give it a background if white is not wanted")


def blurred(facts: ImageFacts, median: float | None) -> Notice | None:
    """An image far less sharp than the others. A plain wall is not sharp either, so this is no more than a hint."""
    if median is None or facts.sharpness >= median * BLURRED:
        return None
    why = "Has far fewer fine details than most images here, so it may be blurred"
    return Notice("blurred", why, "look at it in full size, and leave it out if it is")


def median_sharpness(facts: Iterable[ImageFacts]) -> float | None:
    """The median of all images; None if there are too few to compare with."""
    values = [one.sharpness for one in facts]
    return statistics.median(values) if len(values) >= FEWEST else None


def enlarged(part: Size, placement: Placement) -> Notice | None:
    """An image smaller than its bucket. `part`: the size of what is used of it."""
    resized = placement.resized
    times = min(resized.height / part.height, resized.width / part.width)
    if times < ENLARGED:
        return None
    why = f"Is {part} and is enlarged {times:.1f} times to fill {placement.bucket}"
    return Notice("small", why, "use a larger original, or train at a lower resolution")


def narrow(part: Size, placement: Placement) -> Notice | None:
    """A panorama or a narrow strip, much of which no bucket holds. `part`: the size of what is used of the image."""
    bucket = placement.bucket
    if min(bucket) < LEAST_SIDE:
        return Notice("narrow", f"Is {part}, too small or too narrow for training", "choose another part of it, or leave it out")
    share = cut_away(placement)
    if share < CUT_AWAY:
        return None
    shape = "wide" if part.width > part.height else "narrow"
    why = f"Is {part}, so {shape} that {share:.0%} of it are cut away"
    return Notice("narrow", why, "move the frame to what matters, or cut it into several images")


def cut_away(placement: Placement) -> float:
    """The share of an image's area outside its bucket."""
    resized, bucket = placement.resized, placement.bucket
    kept = min(resized.height, bucket.height) * min(resized.width, bucket.width)
    return 1 - kept / resized.area


def no_caption(entry: ImageEntry, caption_files: Collection[Path] = ()) -> Notice | None:
    """An image without a caption, or with an empty one."""
    if entry.caption is not None and entry.caption.strip():
        return None
    files = (entry.path.with_name(given_stem(entry.path) + suffix) for suffix in sorted(CAPTION_SUFFIXES))
    empty = entry.caption is not None or (bool(caption_files) and any(path in caption_files for path in files))
    why = "Its caption is empty" if empty else "Has no caption"
    return Notice("no caption", why, "write what it shows, or give a trigger word, which is then its caption")


def duplicate_notices(entries: Sequence[ImageEntry], facts: Mapping[str, ImageFacts]) -> dict[str, list[Notice]]:
    """The notices of images that are there more than once, by place."""
    names = {entry.place: entry.name for entry in entries}
    groups = duplicates(entries, facts)
    spare = {place for group in groups for place in group.others}
    told: dict[str, list[Notice]] = {}
    for group in groups:
        keep = names[group.keep]
        for place in group.others:
            why = f"Is the same file as {keep!r}" if group.exact else f"Looks almost the same as {keep!r}"
            told[place] = [Notice("duplicate", why, "leave one of them out, or the image counts twice")]
        if group.keep in spare:
            continue
        others = ", ".join(repr(names[place]) for place in group.others[:3]) + (" and others" if len(group.others) > 3 else "")
        why = f"Is the same file as {others}" if group.exact else f"Looks almost the same as {others}"
        told[group.keep] = [*told.get(group.keep, []), Notice("duplicate", why, "this is the one to keep")]
    return told


def leave_out_duplicates(entries: Sequence[ImageEntry], facts: Mapping[str, ImageFacts]) -> dict[str, ImageEdit]:
    """The edits that leave out every duplicate but the one to keep, by place."""
    edits = {entry.place: entry.edit for entry in entries}
    groups = duplicates(entries, facts)
    return {place: replace(edits[place], left_out=True) for group in groups for place in group.others}


def lone_captions(caption_files: Iterable[Path], images: Iterable[Path]) -> list[Notice]:
    """A notice for every caption file without its image. `images`: of the same folders, whether used or not."""
    stems = {(os.path.dirname(path), given_stem(path)) for path in images}  # noqa: PTH120 - of thousands, at every listing
    lone = [path for path in caption_files if (os.path.dirname(path), path.stem) not in stems]  # noqa: PTH120
    remedy = "give it the name of its image, add the image, or remove it"
    return [Notice("caption alone", f"Caption file {path.name!r} has no image", remedy) for path in sorted(lone)]


def files_beside(folders: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The caption files and the images in these folders, as named on the disk; of MAX_ENTRIES files at most."""
    captions: list[Path] = []
    images: list[Path] = []
    for path in itertools.islice(_files(folders), MAX_ENTRIES):
        suffix = suffix_of(given(path.name)).lower()
        if suffix in IMAGE_SUFFIXES:
            images.append(path)
        elif suffix in CAPTION_SUFFIXES and not path.name.startswith("."):
            captions.append(path)
    return captions, images


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        try:
            with os.scandir(folder) as files:
                for file in files:
                    yield folder / file.name
        except OSError:  # the list of images says so
            continue
