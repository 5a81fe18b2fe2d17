"""Arriving files: what each is, and what becomes of it. Images and captions are added to a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib_lora.data.captions import MAX_BYTES as MAX_CAPTION_BYTES
from lib_lora.data.conversion import UnusedError
from lib_lora.data.decoder_process import Readers
from lib_lora.data.folders import named
from lib_lora.data.image_files import MAX_BYTES
from lib_lora.datasets.image_set import LONGEST_CAPTION, ImageSet, legal_file_name
from lib_lora.datasets.kinds import START, TEXT, ZIP, Kind, ends_early, kind_of
from lib_lora.errors import DatasetError

CONVERTED = ".converted"  # suffix of a temporary file
BROKEN = "the file ends too early, so it can hardly be read; copy it again or remove it"
TYPED = "the caption of its image was changed here, and that one is used; undo it, or change it again"


@dataclass(frozen=True)
class Arrival:
    """What was added: names of images in the dataset, the number of captions, and sentences on what is to be known."""

    images: tuple[str, ...] = ()
    captions: int = 0
    told: tuple[str, ...] = ()


@dataclass
class Told:
    """Sentences on files, one for each kind of remark."""

    _names: dict[str, list[str]] = field(default_factory=dict)
    _others: dict[str, None] = field(default_factory=dict)

    def add(self, name: str, why: str) -> None:
        """Remark `why` on a file."""
        self._names.setdefault(why, []).append(name)

    def refused(self, error: DatasetError) -> None:
        """Remark that a file is not used."""
        if isinstance(error, UnusedError):
            self.add(error.name, error.why)
        else:
            self._others.update(dict.fromkeys(error.problems))

    def sentences(self) -> tuple[str, ...]:
        """All remarks."""
        return (*(f"{named(names)}: {why}." for why, names in self._names.items()), *self._others)


class Arrivals:
    """The files of one drop. A caption that comes after its image follows it to a new name.

    Args:
        dataset: gets them.
        readers: convert images.
    """

    def __init__(self, dataset: ImageSet, readers: Readers) -> None:
        self.dataset, self.readers = dataset, readers
        self._stems: dict[tuple[str, str], str] = {}

    def take(self, name: str, file: Path, folder: str = "") -> Arrival:
        """Add an image or a caption file, which is moved or removed. `folder`: a numbered folder of the dataset.

        Raises:
            DatasetError: it cannot be used; a sentence that names it.
            OSError: the disk refused.
        """
        legal_file_name(name)  # as it was given: its ending may be changed below
        kind = kind_in(name, file)
        if kind is ZIP:
            raise UnusedError(name, "a zip inside of something else; drop it alone")
        if kind is TEXT:
            return self._caption(name, file, folder)
        told = Told()
        truthful = settled(name, file, self.readers, told)
        given = self.dataset.add(truthful, file, folder)
        self._stems[folder, Path(name).stem.casefold()] = Path(given).stem
        return Arrival((given,), 0, told.sentences())

    def _caption(self, name: str, file: Path, folder: str) -> Arrival:
        check_caption(name, file)
        stem, suffix = Path(name).stem, Path(name).suffix
        given = self.dataset.add(self._stems.get((folder, stem.casefold()), stem) + suffix.lower(), file, folder)
        typed = self.dataset.has_typed(folder, Path(given).stem)
        return Arrival((), 1, (f"{given!r}: {TYPED}.",) if typed else ())


def kind_in(name: str, file: Path) -> Kind:
    """The kind of a file on the disk."""
    with file.open("rb") as opened:
        return kind_of(name, opened.read(START))


def settled(name: str, file: Path, readers: Readers, told: Told) -> str:
    """Make `file` an image that training reads, in place; returns its name with a truthful ending.

    Raises:
        UnusedError, DatasetError: it is none, and cannot be made one.
        OSError: the disk refused.
    """
    kind = kind_in(name, file)
    if kind.why or not (kind.is_image or kind.foreign):
        raise UnusedError(name, kind.why or "no image; give images with their captions")
    if file.stat().st_size > MAX_BYTES:
        raise UnusedError(name, f"larger than {MAX_BYTES // 2**20} MB; shrink it")
    if kind.foreign:
        suffix = _convert(name, file, readers, kind)
        told.add(name, f"{kind.word}, which training does not read; it was saved as {suffix[1:].upper().replace('JPG', 'JPEG')}")
        return _with_suffix(name, (suffix,))
    if ends_early(kind, file.read_bytes()):
        told.add(name, BROKEN)
    truthful = _with_suffix(name, kind.suffixes)
    if truthful != name:
        told.add(name, f"contains {kind.word}, so its name ends in {kind.suffixes[0]} now")
    return truthful


def check_caption(name: str, file: Path) -> None:
    """Check the content of a caption file.

    Raises:
        UnusedError: it is too long, or no UTF-8 text.
    """
    if file.stat().st_size > MAX_CAPTION_BYTES:
        raise UnusedError(name, f"a caption of more than {MAX_CAPTION_BYTES // 2**20} MB; shorten it")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusedError(name, "a caption that is not UTF-8 text; save it as UTF-8") from error
    if "\0" in text:
        raise UnusedError(name, "a caption that is not UTF-8 text; save it as UTF-8")
    if len(text) > LONGEST_CAPTION:
        raise UnusedError(name, f"a caption of more than {LONGEST_CAPTION} characters; shorten it")


def _convert(name: str, file: Path, readers: Readers, kind: Kind) -> str:
    target = file.with_name(file.name + CONVERTED)
    try:
        suffix = readers.written(file, target, name, kind.foreign)
        target.replace(file)
    finally:
        target.unlink(missing_ok=True)
    return suffix


def _with_suffix(name: str, suffixes: Sequence[str]) -> str:
    path = Path(name)
    return name if path.suffix.lower() in suffixes else path.stem + suffixes[0]
