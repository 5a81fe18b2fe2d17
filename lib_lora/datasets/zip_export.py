"""Exports a dataset as a zip in kohya's layout: `REPEATS_CONCEPT/image` with `.txt` captions, of what training would use.

Images are copied byte for byte; their masks are in `masks/`, which can serve as a mask folder. What kohya's files cannot say is
in `train-lora-dataset.json`, which our import reads: crops, cuts, and captions that a caption file would change, such as one with
blank lines.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lib_lora.data.captions import DEFAULT_EXTENSION, CaptionSource, caption_of
from lib_lora.data.decoder_process import Readers
from lib_lora.data.edits import FILE, NO_EDIT, FolderEdits, ImageEdit
from lib_lora.datasets.image_set import ImageEntry, ImageSet
from lib_lora.datasets.masks import mask_of
from lib_lora.datasets.placing import LONGEST_FOLDER_NAME
from lib_lora.datasets.zip_listing import MASKS
from lib_lora.errors import DatasetError, DiskError
from lib_lora.files.atomic import TEMPORARY, passing_name

PLAIN_CONCEPT = "images"
_WHEN = (1980, 1, 1, 0, 0, 0)  # of every file, so that equal datasets give equal zips
_MODE = 0o100644 << 16
_CHUNK = 2**20
_MARK = "\ufeff"  # at the start of a file it is no part of the text
_ALL_LINES = CaptionSource(all_lines=True)


@dataclass(frozen=True)
class Packed:
    """An image with its path in the zip."""

    entry: ImageEntry
    place: str
    is_cropped: bool

    @property
    def caption_place(self) -> str:
        """The path of its caption file."""
        return self.place[: -len(Path(self.place).suffix)] + DEFAULT_EXTENSION

    @property
    def mask_place(self) -> str:
        """The path of its mask."""
        return f"{MASKS}/{self.place[: -len(Path(self.place).suffix)]}.png"

    @property
    def edit(self) -> ImageEdit:
        """What its files do not say."""
        edit, caption = self.entry.edit, self.entry.caption
        read = None if caption is None else caption_of(caption.removeprefix(_MARK), "").text(_ALL_LINES)
        return ImageEdit(crop=None if self.is_cropped else edit.crop, cut=edit.cut, caption=None if read == caption else caption)


def export_zip(dataset: ImageSet, target: Path, readers: Readers, repeats: int = 1, *, apply_crops: bool = False) -> list[str]:
    """Write a zip of a dataset to `target`, complete or not at all; returns sentences on what of the dataset is not in it.

    Args:
        repeats: of images that are in no numbered folder; the dataset's name is that folder's.
        apply_crops: write the chosen part of an image, upright, as PNG in place of the file.

    Raises:
        DatasetError: there are no images, one cannot be read, or the disk refused.
    """
    entries, problems = dataset.entries()
    used = [entry for entry in entries if not entry.edit.left_out]
    if not used:
        raise DatasetError([f"Dataset {dataset.name!r} has no images to export; add some, or do not leave all out.", *problems])
    packed = packed_as(used, repeats, dataset.name, apply_crops=apply_crops)
    temporary = target.with_name(passing_name("zip", TEMPORARY))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
            for image in packed:
                _write(file, image, temporary, readers)
            edits = {image.place: image.edit for image in packed if image.edit != NO_EDIT}
            if edits:
                file.writestr(_info(FILE), FolderEdits(dataset.name, None, edits).to_json())
        temporary.replace(target)
    except OSError as error:
        dataset.require_there()
        why = error.strerror or error
        raise DiskError([f"Dataset {dataset.name!r} cannot be exported ({why}); free space or check permissions."]) from error
    finally:
        temporary.unlink(missing_ok=True)
    return problems


def packed_as(entries: list[ImageEntry], repeats: int, concept: str, *, apply_crops: bool = False) -> list[Packed]:
    """Images with paths of which no two differ by case or suffix alone, since captions go by the stem."""
    taken: set[str] = set()
    last: dict[str, int] = {}  # so that equal names take no quadratic time
    found = []
    for entry in entries:
        folder = entry.folder
        plain = _folder_name(folder.repeats, folder.concept or "") if _is_numbered(entry) else _folder_name(repeats, concept)
        is_cropped = apply_crops and entry.edit.crop is not None
        name = Path(_legal(entry.name))
        suffix = ".png" if is_cropped else name.suffix
        stem, wanted = name.stem, f"{plain}/{name.stem}".casefold()
        while f"{plain}/{stem}".casefold() in taken:
            last[wanted] = last.get(wanted, 1) + 1
            stem = f"{name.stem}-{last[wanted]}"
        taken.add(f"{plain}/{stem}".casefold())
        found.append(Packed(entry, f"{plain}/{stem}{suffix}", is_cropped))
    return found


def _is_numbered(entry: ImageEntry) -> bool:
    return re.match(r"\d+_", entry.folder.path.name) is not None


def _write(file: zipfile.ZipFile, image: Packed, beside: Path, readers: Readers) -> None:
    """Write an image with its mask and its caption."""
    entry, mask = image.entry, mask_of(image.entry)
    for source, place in ((entry.path, image.place), *([(mask, image.mask_place)] if mask else [])):
        if not image.is_cropped:
            _copy(file, source, place)
            continue
        part = beside.with_name(f"{beside.name}.crop")
        try:
            readers.written(source, part, entry.name, None, entry.edit.crop)
            _copy(file, part, place)
        finally:
            part.unlink(missing_ok=True)
    if entry.caption:
        file.writestr(_info(image.caption_place), entry.caption)


def _copy(file: zipfile.ZipFile, source: Path, place: str) -> None:
    with source.open("rb") as image, file.open(_info(place), "w") as written:
        shutil.copyfileobj(image, written, _CHUNK)


def _info(place: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(place, _WHEN)
    info.external_attr, info.create_system = _MODE, 3
    return info


def _folder_name(repeats: int, concept: str) -> str:
    text = f"{repeats}_{_legal(concept) or PLAIN_CONCEPT}"
    return text.encode()[:LONGEST_FOLDER_NAME].decode(errors="ignore").rstrip(". ")


def _legal(name: str) -> str:
    """A name that every system allows."""
    text = name.encode(errors="replace").decode()
    return "".join("_" if c in '/\\<>:"|?*' or not c.isprintable() else c for c in text).strip().rstrip(". ")
