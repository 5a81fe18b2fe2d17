"""What a foreign zip contains, within limits, and which of it is used: images with captions, in kohya's folders or in none.

Nothing is written here, and no path of a zip is ever a path on the disk: an image keeps its file name, and the folder that it
lies in if that is numbered.
"""

from __future__ import annotations

import io
import locale
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lib_lora.data.captions import DEFAULT_EXTENSION, SECOND_EXTENSION
from lib_lora.data.captions import MAX_BYTES as MAX_CAPTION_BYTES
from lib_lora.data.edits import FILE
from lib_lora.data.edits import MAX_BYTES as MAX_EDITS_BYTES
from lib_lora.data.folders import IMAGE_SUFFIXES
from lib_lora.data.image_files import MAX_BYTES
from lib_lora.datasets.arrivals import Told
from lib_lora.datasets.image_set import legal_file_name
from lib_lora.datasets.kinds import AVIF, GIF, HEIC, TIFF
from lib_lora.datasets.placing import is_numbered
from lib_lora.errors import DatasetError

MAX_LISTED = 100_000  # entries
MAX_DIRECTORY_BYTES = 32 * 2**20  # of the list of entries: 100,000 with names of 200 bytes
MAX_UNPACKED = 32 * 2**30  # bytes
MAX_RATIO, ANY_RATIO_BYTES = 200, 2**20  # unpacked bytes per packed byte, of an entry that unpacks to more than that
MAX_FOLDERS = 200  # numbered
REG = "reg"  # kohya_ss' folder of regularisation images
MASKS = "masks"  # folder beside the numbered folders, with masks in folders of the same names
_ENTRY = b"PK\x01\x02"
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flags of an entry
_JUNK_FOLDERS = {"__MACOSX", "$RECYCLE.BIN", "System Volume Information"}
_JUNK_FILES = {"thumbs.db", "desktop.ini", ".ds_store"}
_IMAGES = {*IMAGE_SUFFIXES, ".jfif", ".jpe", ".dib", *HEIC.suffixes, *AVIF.suffixes, *GIF.suffixes, *TIFF.suffixes}
_CAPTIONS = (DEFAULT_EXTENSION, SECOND_EXTENSION)  # the first that is there counts
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, LookupError, OverflowError)

LINKS = "links and devices are not used; pack the files themselves"
NESTED = "zips inside of a zip are not used; drop them alone"
OTHERS = "neither images nor captions, so not used"
OUTSIDE = "next to the numbered folders, or in folders below them, so not used; move it into one"
LONELY = "caption files without an image, so not used"
BAD_NAME = "the name cannot be used; rename it"
UNKNOWN_LETTERS = "the name is in an unknown encoding and may look wrong; pack it with a program that writes UTF-8"
NO_REG = "regularisation images, so not used here; drop the zip under Regularisation too"
NO_LEARNED = "images to learn from, so not used here; drop the zip under Images too"
SECOND_CAPTION = f"not used, since the image also has a caption file with the extension {DEFAULT_EXTENSION}"


@dataclass(frozen=True)
class Member:
    """A file in a zip: its folders and its name, decoded."""

    info: zipfile.ZipInfo
    folders: tuple[str, ...]
    name: str

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    @property
    def stem(self) -> tuple[tuple[str, ...], str]:
        """What an image and its caption have in common."""
        return self.folders, PurePosixPath(self.name).stem.casefold()


@dataclass(frozen=True)
class Picked:
    """An image to import. `folder`: N_name, or empty. `mask`: what is learned of it; None for all."""

    image: Member
    caption: Member | None
    folder: str
    mask: Member | None = None


@dataclass
class Contents:
    """What is used of a zip. `edits`: its file of crops, with the folders that it lies in."""

    picked: list[Picked] = field(default_factory=list)
    edits: Member | None = None


@contextmanager
def opened(archive: Path, name: str) -> Iterator[zipfile.ZipFile]:
    """The opened zip.

    Raises:
        DatasetError: it is damaged, broken off, or contains too much.
    """
    with archive.open("rb", buffering=0) as raw, _Bounded(raw, name) as file:
        with damaged(name):
            found = zipfile.ZipFile(file)
        with found:
            yield found


@contextmanager
def damaged(name: str, member: str = "") -> Iterator[None]:
    """The errors of zipfile become a DatasetError on the zip `name`."""
    try:
        yield
    except DAMAGED as error:
        where = f" at {member!r}" if member else ""
        raise DatasetError([f"Zip {name!r} is damaged or broken off{where}; copy it again or pack it anew."]) from error


class _Bounded(io.BufferedReader):
    """A file that gives no long list of entries: zipfile reads it at once, and holds each entry."""

    def __init__(self, raw: io.RawIOBase, name: str) -> None:
        super().__init__(raw)
        self._zip_name = name

    def read(self, size: int | None = -1, /) -> bytes:
        asked = MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else size
        content = super().read(min(asked, MAX_DIRECTORY_BYTES + 1))
        if len(content) > MAX_DIRECTORY_BYTES or content.count(_ENTRY) > MAX_LISTED:
            raise DatasetError([f"Zip {self._zip_name!r} lists more than {MAX_LISTED:,} files; pack only the images."])
        return content


def contents(archive: zipfile.ZipFile, name: str, told: Told, *, reg: bool = False) -> Contents:
    """What is used of a zip; what is not is told.

    `reg`: take the regularisation images of a zip that has both kinds. A zip of one kind is taken as what it is imported for.

    Raises:
        DatasetError: the zip is not honest, protected, or unpacks to too much.
    """
    members = list(_members(archive, name, told))
    found = Contents()
    captions: dict[tuple[tuple[str, ...], str], dict[str, Member]] = {}
    images: list[Member] = []
    for member in members:
        if member.name == FILE:
            found.edits = member if found.edits is None or len(member.folders) < len(found.edits.folders) else found.edits
        elif member.suffix in _CAPTIONS:
            captions.setdefault(member.stem, {}).setdefault(member.suffix, member)
        elif member.suffix in _IMAGES:
            images.append(member)
        else:
            told.add(member.name, NESTED if member.suffix == ".zip" else OTHERS)
    masks = _masks(images)
    of_masks = {id(mask) for mask in masks.values()}
    images = [image for image in images if id(image) not in of_masks]
    for image, folder in _in_folders(images, told, reg):
        given = captions.get(image.stem, {})
        files = [given[suffix] for suffix in _CAPTIONS if suffix in given]
        for second in files[1:]:
            told.add(second.name, SECOND_CAPTION)
        found.picked.append(Picked(image, files[0] if files else None, folder, masks.get(image.stem)))
    used = {image.stem for image in images}
    for stem, given in captions.items():
        for member in given.values() if stem not in used else ():
            told.add(member.name, LONELY)
    _check(found, name)
    return found


def _masks(images: Sequence[Member]) -> dict[tuple[tuple[str, ...], str], Member]:
    """What an image has in common with its mask -> the mask: `masks/N_name/a.png` is that of `N_name/a.jpg`."""
    stems = {image.stem for image in images}
    found = {}
    for image in images:
        folders, stem = image.stem
        if len(folders) > 1 and is_numbered(folders[-1]) and folders[-2].casefold() == MASKS:
            of = (*folders[:-2], folders[-1]), stem
            if of in stems:
                found[of] = image
    return found


def _in_folders(images: Sequence[Member], told: Told, reg: bool) -> Iterator[tuple[Member, str]]:
    """Images of the wanted kind with their numbered folders. If there are such folders, all must be at one depth."""
    kinds = {_is_reg(image) for image in images}
    wanted = [image for image in images if len(kinds) == 1 or _is_reg(image) is reg]
    left = {id(image) for image in images} - {id(image) for image in wanted}
    depth = min((len(image.folders) for image in wanted if _is_numbered(image)), default=None)
    for image in images:
        if id(image) in left:
            told.add(image.name, NO_LEARNED if reg else NO_REG)
        elif depth is None:
            yield image, ""
        elif _is_numbered(image) and len(image.folders) == depth:
            yield image, image.folders[-1]
        else:
            told.add(image.name, OUTSIDE)


def _is_numbered(image: Member) -> bool:
    return bool(image.folders) and is_numbered(image.folders[-1])


def _is_reg(image: Member) -> bool:
    folders = image.folders
    return len(folders) > 1 and is_numbered(folders[-1]) and folders[-2].casefold() == REG


def _members(archive: zipfile.ZipFile, name: str, told: Told) -> Iterator[Member]:
    """The regular files, without those that systems add."""
    for info in archive.infolist():
        path, is_sure = decoded(info)
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        if path.startswith(("/", "\\")) or ".." in parts or (parts and parts[0][1:2] == ":"):
            raise DatasetError([f"Zip {name!r} has the path {path[:80]!r}, which leads out of it; nothing was imported."])
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not parts or path.endswith(("/", "\\")) or kind == stat.S_IFDIR or _is_junk(parts):
            continue
        if kind not in (0, stat.S_IFREG):
            told.add(parts[-1], LINKS)
            continue
        try:
            plain = legal_file_name(parts[-1])
        except DatasetError:
            told.add(parts[-1][:80], BAD_NAME)
            continue
        if not is_sure:
            told.add(plain, UNKNOWN_LETTERS)
        yield Member(info, tuple(parts[:-1]), plain)


def _is_junk(parts: Sequence[str]) -> bool:
    name = parts[-1]
    is_hidden = any(part.startswith(".") for part in parts[:-1]) or name.startswith("._")
    return is_hidden or bool(_JUNK_FOLDERS & {*parts[:-1]}) or name.lower() in _JUNK_FILES


def decoded(info: zipfile.ZipInfo, own: Callable[[], str] = lambda: locale.getpreferredencoding(False)) -> tuple[str, bool]:
    """The path of an entry, composed (NFC), and whether its encoding is known.

    Programs that do not mark names as UTF-8 write UTF-8 nevertheless (macOS), or what their machine uses (Windows), mostly the
    same as `own`, this machine's; cp437 is the format's.
    """
    text = info.orig_filename
    is_sure = bool(info.flag_bits & _UTF8) or text.isascii()
    if not is_sure:
        content = text.encode("cp437")
        for encoding in ("utf-8", own(), "cp437"):
            try:
                text = content.decode(encoding)
            except (UnicodeDecodeError, LookupError):
                continue
            is_sure = encoding != "cp437"
            break
    return unicodedata.normalize("NFC", text.partition("\0")[0]), is_sure


def _check(found: Contents, name: str) -> None:
    """Check the sizes that a zip states; zipfile unpacks no more than these."""
    wanted = [(picked.image, MAX_BYTES) for picked in found.picked]
    wanted += [(picked.caption, MAX_CAPTION_BYTES) for picked in found.picked if picked.caption is not None]
    wanted += [(picked.mask, MAX_BYTES) for picked in found.picked if picked.mask is not None]
    wanted += [(found.edits, MAX_EDITS_BYTES)] if found.edits is not None else []
    for member, most in wanted:
        info = member.info
        start = f"Zip {name!r} contains {member.name!r}, which "
        if info.flag_bits & _ENCRYPTED:
            raise DatasetError([start + "is protected by a password; pack it without one."])
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DatasetError([start + "is packed in a rare way; pack it with the method Deflate."])
        if info.file_size > most:
            raise DatasetError([start + f"unpacks to more than {most // 2**20} MB; shrink or remove it."])
        if info.file_size > ANY_RATIO_BYTES and info.file_size > MAX_RATIO * info.compress_size:
            raise DatasetError([start + f"unpacks to more than {MAX_RATIO} times its size; save it as PNG or JPEG."])
    if sum(member.info.file_size for member, _ in wanted) > MAX_UNPACKED:
        raise DatasetError([f"Zip {name!r} unpacks to more than {MAX_UNPACKED // 2**30} GB; split it."])
    if len({picked.folder for picked in found.picked}) > MAX_FOLDERS:
        raise DatasetError([f"Zip {name!r} has more than {MAX_FOLDERS} numbered folders; pack fewer."])
