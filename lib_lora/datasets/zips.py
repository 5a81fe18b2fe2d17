"""Imports a zip into a dataset: images, captions, masks, kohya's numbered folders, and crops of a zip that was exported here.

It is unpacked member by member into a folder beside the dataset, and moved in when all of it is there.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lib_lora.data.captions import MAX_BYTES as MAX_CAPTION_BYTES
from lib_lora.data.decoder_process import NoReaderError, Readers
from lib_lora.data.edits import MAX_BYTES as MAX_EDITS_BYTES
from lib_lora.data.edits import NO_EDIT, NO_EDITS, FolderEdits, ImageEdit, PaintedMask, edits_of
from lib_lora.data.hidden_names import given_name
from lib_lora.data.image_files import MAX_BYTES, NotNowError
from lib_lora.datasets.arrivals import Told, check_caption, settled
from lib_lora.datasets.image_set import ImageSet, legal_caption
from lib_lora.datasets.masks import stored, take_back
from lib_lora.datasets.placing import ARRIVING, NewImage
from lib_lora.datasets.zip_listing import Contents, Member, Picked, contents, damaged, opened
from lib_lora.errors import DatasetError, DiskError
from lib_lora.files.atomic import TEMPORARY, passing_name
from lib_lora.files.plain_json import MOST_NESTED

_CHUNK = 2**20
_SPARE = 64 * 2**20  # bytes that remain free on the disk


@dataclass(frozen=True)
class Imported:
    """What was imported: names of images, number of captions, names of the numbered folders; and sentences on what was not."""

    names: tuple[str, ...]
    captions: int
    folders: tuple[str, ...]
    told: tuple[str, ...]


def import_zip(archive: Path, name: str, into: ImageSet, readers: Readers, *, reg: bool = False) -> Imported:
    """Add what a zip contains to a dataset, all or nothing.

    Args:
        archive: the zip; it stays. name: of it, for messages.
        into: the dataset. reg: whether it is one of regularisation images.
        readers: convert images.

    Raises:
        DatasetError: the zip or the disk is at fault; nothing was added.
    """
    told = Told()
    into.check_open()
    with _unpacking(into, name) as folder, _masks_of(into) as masks:
        with opened(archive, name) as file:
            found = contents(file, name, told, reg=reg)
            _check_room(found, into, folder)
            edits = _edits(file, found.edits, name, told)
            images = []
            for number, picked in enumerate(found.picked):
                target = folder / f"{number}"
                image = _unpacked(file, picked, target, readers, name, told)
                if image is not None:
                    edit = _with_mask(file, picked, target, readers, name, told, into)
                    images.append((replace(image, edit=edit), picked))
                    masks += [edit.mask] if edit.mask is not None else []
        batch = _with_edits(images, edits, found.edits)
        places = into.add_all(batch) if batch else []
    if not images:
        raise DatasetError([f"Zip {name!r} contains no image that can be used; nothing was imported.", *told.sentences()])
    return Imported(
        tuple(given_name(path) for path in places),
        sum(image.caption is not None for image in batch),
        tuple(sorted({image.folder for image in batch if image.folder})),
        told.sentences(),
    )


@contextmanager
def _unpacking(into: ImageSet, name: str) -> Iterator[Path]:
    """A temporary folder, removed with the block. Errors of the disk become a DatasetError."""
    folder = into.folder.parent / ARRIVING / passing_name("zip", TEMPORARY)
    try:
        folder.parent.mkdir(exist_ok=True)  # not its parents: a deleted dataset stays away
        folder.mkdir()
        yield folder
    except OSError as error:
        into.require_there()
        why = error.strerror or error
        raise DiskError([f"Zip {name!r} cannot be imported ({why}); nothing was; free space or check permissions."]) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _masks_of(into: ImageSet) -> Iterator[list[PaintedMask]]:
    """A list for the masks that are stored; if the block fails they are removed, since no image names them."""
    masks: list[PaintedMask] = []
    try:
        yield masks
    except BaseException:
        with suppress(OSError, DatasetError):  # in use, or the dataset is gone; removed when they are old
            take_back(into, masks)
        raise


def _check_room(found: Contents, into: ImageSet, folder: Path) -> None:
    """Check that images and bytes are not too many."""
    into.check_open({picked.folder for picked in found.picked}, len(found.picked))
    members = [member for picked in found.picked for member in (picked.image, picked.caption, picked.mask) if member is not None]
    needed = sum(member.info.file_size for member in members) + _SPARE
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskError([
            f"The images need {needed / 2**30:.1f} GB, and {free / 2**30:.1f} GB are free; free some space. Nothing was imported."
        ])  # fmt: skip


def _unpacked(file: zipfile.ZipFile, picked: Picked, target: Path, readers: Readers, name: str, told: Told) -> NewImage | None:
    """An image with its caption, unpacked; None, which is told, if it cannot be used."""
    unpack(file, picked.image, target, MAX_BYTES, name)
    try:
        truthful = settled(picked.image.name, target, readers, told)
    except (NoReaderError, NotNowError):
        raise
    except DatasetError as error:
        told.refused(error)
        return None
    if picked.caption is None:
        return NewImage(picked.folder, truthful, target)
    caption = target.with_name(f"{target.name}.caption")
    unpack(file, picked.caption, caption, MAX_CAPTION_BYTES, name)
    try:
        check_caption(picked.caption.name, caption)
    except DatasetError as error:
        told.refused(error)
        return NewImage(picked.folder, truthful, target)
    return NewImage(picked.folder, truthful, target, caption, picked.caption.suffix)


def _with_mask(
    file: zipfile.ZipFile, picked: Picked, image: Path, readers: Readers, name: str, told: Told, into: ImageSet
) -> ImageEdit:
    """The edit that names the mask of an unpacked image; a mask that does not fit is told, and not used."""
    if picked.mask is None:
        return NO_EDIT
    packed, made = image.with_name(f"{image.name}.packed"), image.with_name(f"{image.name}.mask")
    unpack(file, picked.mask, packed, MAX_BYTES, name)
    try:
        return ImageEdit(mask=stored(into, made, readers.write_mask(image, made, "painted", packed)))
    except (NoReaderError, NotNowError):
        raise
    except DatasetError:
        told.add(picked.image.name, "its mask cannot be read, is black or of another size, so it is learned whole")
        return NO_EDIT


def unpack(file: zipfile.ZipFile, member: Member, target: Path, most: int, name: str) -> None:
    """Write a member of a zip to `target`.

    Raises:
        DatasetError: the zip is damaged, or the member has more than `most` bytes.
        OSError: the disk refused.
    """
    done = 0
    with target.open("wb") as written, damaged(name, member.name), file.open(member.info) as packed:
        while chunk := packed.read(_CHUNK):
            done += len(chunk)
            if done > most:
                raise DatasetError([f"Zip {name!r} is not honest about the size of {member.name!r}; nothing was imported."])
            written.write(chunk)


def _edits(file: zipfile.ZipFile, member: Member | None, name: str, told: Told) -> FolderEdits:
    """Crops and captions that a zip states for its images; its other content is not used."""
    if member is None:
        return NO_EDITS
    with damaged(name, member.name), file.open(member.info) as packed:
        content = packed.read(MAX_EDITS_BYTES)
    try:
        return edits_of(content.decode(), MOST_NESTED)
    except DatasetError as error:
        told.refused(error)
        return NO_EDITS
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        told.add(member.name, "the crops in it cannot be read, so they are not used")
        return NO_EDITS


def _with_edits(images: list[tuple[NewImage, Picked]], edits: FolderEdits, member: Member | None) -> list[NewImage]:
    """The images with their edits."""
    base = member.folders if member is not None else ()
    batch = []
    for image, picked in images:
        folders = picked.image.folders
        place = "/".join([*folders[len(base) :], picked.image.name]) if folders[: len(base)] == base else ""
        stated = edits.of(place)
        if stated.caption is not None:
            legal_caption(stated.caption, image.name)
        edit = replace(image.edit, crop=stated.crop, cut=stated.cut, caption=stated.caption)
        batch.append(replace(image, edit=edit))
    return batch
