"""Crops of many images at once: the largest square, or around what matters in each. They are edits, so they can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args

from PIL import Image

from lib_lora.data.dataset import checked_picture
from lib_lora.data.decoder_process import Readers
from lib_lora.data.edits import ImageEdit, legal_crop, size_in
from lib_lora.data.images import load_pixels
from lib_lora.data.sizes import Crop, Size
from lib_lora.datasets.image_set import ImageEntry, ImageSet
from lib_lora.errors import DatasetError

CropMode = Literal["buckets", "square", "focal", "face"]  # the whole image; the largest square; around what matters; a face
MODES: tuple[str, ...] = get_args(CropMode)
ASKING: tuple[str, ...] = ("focal", "face")  # those that need an `Autocrop`


class Autocrop(Protocol):
    """Finds what matters in images. A host has one for the focal point and one for faces."""

    def __call__(self, image: Image.Image, size: Size) -> Crop | None:
        """The part of an upright RGB image to use, of the ratio of `size`; None if nothing is found.

        Raises:
            DatasetError: it cannot look at this image.
        """
        ...


class Cropped(NamedTuple):
    """The edit of an image, or why it stays as it is."""

    place: str
    edit: ImageEdit | None
    problem: str = ""


class Crops(NamedTuple):
    """Edits by place, of the images that they change, and why others stay as they are."""

    edits: dict[str, ImageEdit]
    problems: list[str]


def crop_edits(
    entries: Sequence[ImageEntry],
    sizes: Mapping[str, Size],
    mode: str,
    *,
    target: Size,
    autocrop: Autocrop | None = None,
    told: Callable[[int, int], bool] = lambda done, total: True,
) -> Crops:
    """The edits that crop images; nothing is changed yet.

    Args:
        entries: the images.
        sizes: of the whole upright images that were decoded before, by place; others stay as they are.
        mode: one of MODES, untrusted.
        target: the size whose ratio a part around something has.
        autocrop: of the host, for the modes of ASKING.
        told: gets the number of images done, and of all, after each; False ends it with what is done.

    Raises:
        DatasetError: there is no such mode, or nothing that finds what it needs.
    """
    if mode not in MODES:
        raise DatasetError([f"Crop: got {mode[:40]!r}, must be one of {', '.join(MODES)}."])
    if mode in ASKING and autocrop is None:
        raise DatasetError([f"Crop: {mode} needs the webui, whose own code finds it; choose square, or move the frames by hand."])
    crops = Crops({}, [])
    for done, cropped in enumerate(_each(entries, sizes, mode, target, autocrop), start=1):
        if cropped.problem:
            crops.problems.append(cropped.problem)
        if cropped.edit is not None:
            crops.edits[cropped.place] = cropped.edit
        if not told(done, len(entries)):
            break
    return crops


def apply_crops(dataset: ImageSet, entries: Sequence[ImageEntry], crops: Crops, what: str) -> int:
    """Make the crops one change that can be undone; returns the number of images that it changes.

    An image whose frame was moved since the search, or that was removed, stays as it is; its caption is never touched.

    Args:
        dataset: the dataset of the images.
        entries: as they were searched.
        crops: what was found.
        what: the change in words, for Undo.

    Raises:
        DatasetError, OSError: as `ImageSet.change`.
    """
    before = {entry.place: entry for entry in entries}
    with dataset.held():
        now = dataset.edits
        edits = {}
        for place, edit in crops.edits.items():
            current, searched = now.of(place), before[place].edit
            if (current.crop, current.cut) == (searched.crop, searched.cut) and before[place].path.exists():
                edits[place] = replace(current, crop=edit.crop, cut=edit.cut)
        if edits:
            dataset.change(edits, what)
    return len(edits)


def _each(
    entries: Sequence[ImageEntry], sizes: Mapping[str, Size], mode: str, target: Size, autocrop: Autocrop | None
) -> Iterator[Cropped]:
    with Readers() as readers:
        for entry in entries:
            size = sizes.get(entry.place)
            if size is None:
                yield Cropped(entry.place, None, f"Image {entry.name!r} was not read, so it is not cropped.")
                continue
            try:
                crop = _crop(entry, size, mode, target, autocrop, readers)
            except DatasetError as error:
                yield Cropped(entry.place, None, " ".join(error.problems))
                continue
            edit = replace(entry.edit, crop=crop, cut=None if crop != entry.edit.crop else entry.edit.cut)
            yield Cropped(entry.place, edit if edit != entry.edit else None)


def _crop(entry: ImageEntry, size: Size, mode: str, target: Size, autocrop: Autocrop | None, readers: Readers) -> Crop | None:
    """The part of an image; None for the whole.

    Raises:
        DatasetError: nothing was found, or the file cannot be read any more.
    """
    if mode == "buckets":
        return None
    if autocrop is None or mode == "square":
        return _but_whole(square(size), size)
    image = _upright(entry.path, entry.name, size, readers)
    try:
        found = autocrop(image, target)
    except DatasetError as error:
        raise DatasetError([f"Image {entry.name!r}: {problem}" for problem in error.problems]) from error
    if found is None:
        what = "no face" if mode == "face" else "nothing that stands out"
        raise DatasetError([f"Image {entry.name!r}: {what} was found, so it stays as it is; move its frame by hand."])
    try:
        crop = legal_crop([int(edge) for edge in found])
    except ValueError as error:
        raise DatasetError([f"Image {entry.name!r}: {error}, so it stays as it is; move its frame by hand."]) from error
    if size_in(crop, size) is None:
        raise DatasetError(
            [f"Image {entry.name!r}: the part found lies outside it, so it stays as it is; move its frame by hand."]
        )
    return _but_whole(crop, size)


def square(size: Size) -> Crop:
    """The largest square in the middle."""
    side = min(size)
    left, top = (size.width - side) // 2, (size.height - side) // 2
    return Crop(left, top, left + side, top + side)


def around(x: float, y: float, size: Size, target: Size) -> Crop:
    """The largest part of an image with the ratio of `target`, with a point in its middle as far as the image reaches."""
    scale = min(size.width / target.width, size.height / target.height)
    width = min(max(round(target.width * scale), 1), size.width)
    height = min(max(round(target.height * scale), 1), size.height)
    left = min(max(round(x - width / 2), 0), size.width - width)
    top = min(max(round(y - height / 2), 0), size.height - height)
    return Crop(left, top, left + width, top + height)


def _upright(path: Path, name: str, size: Size, readers: Readers) -> Image.Image:
    try:
        checked_picture(path, readers)
    except OSError as error:
        raise DatasetError([f"Image {name!r} cannot be read ({error.strerror}); reload the page."]) from error
    image = Image.fromarray(load_pixels(path))
    if (image.height, image.width) != size:
        raise DatasetError([f"Image {name!r} has changed since it was looked at; reload the page."])
    return image


def _but_whole(crop: Crop, size: Size) -> Crop | None:
    return None if crop == Crop(0, 0, size.width, size.height) else crop
