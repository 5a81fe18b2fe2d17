"""Folders -> samples: which images are trained on, how often, and with what caption."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lib_lora.data.captions import (
    CaptionFile,
    CaptionSource,
    caption_file,
    caption_notes,
    caption_of,
    written_caption,
)
from lib_lora.data.decoder_process import Readers
from lib_lora.data.edits import size_in
from lib_lora.data.folders import Folder, FolderSearch, named
from lib_lora.data.hidden_names import given_name, given_stem
from lib_lora.data.image_files import NotNowError, Picture
from lib_lora.data.sizes import Crop, Size
from lib_lora.errors import DatasetError


class _Checked(NamedTuple):
    """The result of decoding a file. `whole`: to all of its pixels."""

    found: Picture | DatasetError
    whole: bool


DATA, REG_DATA = "Image folder (data)", "Regularisation folder (reg_data)"
MAX_IMAGES = 5000
DECODERS = 4  # images decoded at the same time: a large one takes 200 MB
_PER_DECODER = 8  # images per decoder: fewer are not worth starting another process
_checked: dict[tuple[Path, int, int], _Checked] = {}  # by path, mtime and size


@dataclass(frozen=True)
class Sample:
    """An image file with its caption, shown `repeats` times per epoch. `mask`: path of its mask image.

    `size`: of the part that is used. `crop`: that part, and `whole` the file's size, if it is not the whole. `cut`: where the
    bucket's cut lies in it, as shares of the surplus; None for the centre. `sha256`, `mask_sha256`: hashes of the files'
    content when they were checked. `mask_covered`: the mean of the mask, 0 to 1, over the part that is used.
    """

    path: Path
    caption: str
    repeats: int
    size: Size
    has_caption_file: bool
    is_reg: bool = False
    mask: Path | None = None
    sha256: str = ""
    mask_sha256: str = ""
    crop: Crop | None = None
    cut: tuple[float, float] | None = None
    whole: Size | None = None
    mask_covered: float = 1.0

    @property
    def file_size(self) -> Size:
        """The size of the file's image."""
        return self.whole or self.size


@dataclass(frozen=True)
class Dataset:
    """The samples found, with problems and notes. A dataset with problems is not trained on."""

    samples: tuple[Sample, ...]
    folders: tuple[Folder, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def scan(paths: Sequence[str], *, captions: CaptionSource, repeats: int, is_reg: bool = False) -> Dataset:
    """Find the images in `paths` and decode each once. Wrong input never raises; it is reported in `problems`.

    What a page has looked at is known, though of large JPEGs not all pixels were made: before training, `decoded_whole` is.

    Args:
        paths: folders as given, PATH or PATH|N.
        captions: where captions come from.
        repeats: default for folders that state no number.
        is_reg: whether these are regularisation images.
    """
    title = REG_DATA if is_reg else DATA
    if not any(path.strip() for path in paths):
        return Dataset((), (), (f"{title}: is empty; choose a folder or drop images.",), ())
    search = FolderSearch(title, repeats, [], [], is_reg)
    folders: list[Folder] = []
    for text in (path for path in paths if path.strip()):
        found = list(search.folders(text))
        folders += [folder for folder in found if folder.path not in {known.path for known in folders}]
    listed = ((folder, path) for folder in folders for path in search.look(folder.path, folder.root).images)
    files = [(folder, path) for folder, path in listed if not folder.edit(path).left_out]
    problems = search.problems
    if len(files) > MAX_IMAGES:
        problems.append(f"{title}: has {len(files)} images, must have at most {MAX_IMAGES}; choose fewer.")
        files = []
    with Readers() as readers, ThreadPoolExecutor(min(DECODERS, 1 + len(files) // _PER_DECODER)) as pool:
        read = list(pool.map(lambda item: _sample(item[0], item[1], captions, readers), files))
    good = [item for item in read if isinstance(item, _Read)]
    unread = [item for item in read if isinstance(item, _Unread)]
    skipped = [item for item in unread if item.may_skip] if good else []
    problems += dict.fromkeys(problem for item in unread if item not in skipped for problem in item.problems)
    problems += _uncaptioned([item for item in good if not item.sample.caption], captions, is_reg=is_reg)
    notes = search.notes + [f"{problem} It is not trained on." for item in skipped for problem in item.problems]
    notes += caption_notes([(item.file, item.sample.caption) for item in good if item.file and item.sample.caption], captions)
    return Dataset(tuple(item.sample for item in good), tuple(folders), tuple(problems), tuple(notes))


def with_regularisation(dataset: Dataset, regularising: Dataset) -> Dataset:
    """Both datasets as one, with the regularisation images last."""
    learned = {folder.path.resolve() for folder in dataset.folders}
    twice = [folder.path.name for folder in regularising.folders if folder.path.resolve() in learned]
    problems = [f"{REG_DATA}: {name!r} is also an Image folder (data); choose another." for name in twice]
    return Dataset(
        dataset.samples + regularising.samples,
        dataset.folders + regularising.folders,
        dataset.problems + regularising.problems + tuple(problems),
        dataset.notes + regularising.notes,
    )


@dataclass(frozen=True)
class _Read:
    """A readable image, and the caption file beside it, which may be empty."""

    sample: Sample
    file: CaptionFile | None


@dataclass(frozen=True)
class _Unread:
    """An image that cannot be used. `may_skip`: a dataset of the tab shows it, so the others are trained on."""

    problems: Sequence[str]
    may_skip: bool = False


def _sample(folder: Folder, path: Path, captions: CaptionSource, readers: Readers) -> _Read | _Unread:
    """The sample of an image. Its caption is empty if it has neither caption nor trigger."""
    if not _is_text(path.name) or not _is_text(folder.path.name):  # a name may become a caption, and is displayed
        return _Unread([f"Image {given_name(path)!r} in {folder.path.name!r}: the name is not UTF-8; rename it."])
    picture = _read(path, readers, may_skip=bool(folder.edits.name))
    if isinstance(picture, _Unread):
        return picture
    try:
        found = caption_file(path, captions, folder.root)
    except DatasetError as error:
        return _Unread(error.problems)
    except OSError as error:
        return _Unread([f"Image {given_name(path)!r} cannot be read ({error.strerror}); check its permissions."])
    edit = folder.edit(path)
    size = size_in(edit.crop, picture.size)
    if size is None:
        return _Unread(
            [f"Image {given_name(path)!r} is {picture.size}, smaller than the part chosen of it; choose the part again."]
        )
    if edit.caption is not None:  # in place of the file
        found = caption_of(edit.caption, found.name if found else given_stem(path) + captions.extension)
    written = found.text(captions) if found else None
    caption = written_caption(path, written, folder.concept, captions) or ""
    sample = Sample(path, caption, folder.repeats, size, written is not None, folder.is_reg, sha256=picture.sha256,
                    crop=edit.crop, cut=edit.cut, whole=picture.size if edit.crop else None)  # fmt: skip
    return _Read(sample, found)


def _read(path: Path, readers: Readers, *, whole: bool = False, may_skip: bool = False) -> Picture | _Unread:
    """As `checked_picture`, or what is told of it."""
    try:
        return checked_picture(path, readers, whole=whole)
    except DatasetError as error:
        return _Unread(error.problems, may_skip and not isinstance(error, NotNowError))
    except OSError as error:
        return _Unread([f"Image {given_name(path)!r} cannot be read ({error.strerror}); check its permissions."])


def _uncaptioned(read: Sequence[_Read], captions: CaptionSource, *, is_reg: bool) -> list[str]:
    """The problems of images without a caption: one for those without a file, one for those with an empty one."""
    remedy = "rename their folder to 1_CLASS, such as 1_cat" if is_reg else "give a Trigger word (trigger)"
    without = [item.sample.path for item in read if not item.file]
    empty = [item.file.name for item in read if item.file]
    problems = []
    if without and is_reg:
        folders = named(sorted({path.parent.name for path in without}))
        problems.append(f"{REG_DATA}: images in {folders} have no captions; {remedy}.")
    elif len(without) == 1:
        beside = given_stem(without[0]) + captions.extension
        problems.append(f"Image {given_name(without[0])!r} has no caption; add {beside} next to it, or {remedy}.")
    elif without:
        names = named([given_name(path) for path in without])
        beside = f"add {captions.extension} files next to them"
        problems.append(f"{len(without)} images have no captions ({names}); {beside}, or {remedy}.")
    if len(empty) == 1:
        problems.append(f"Caption file {named(empty)} is empty; write the caption into it, or {remedy}.")
    elif empty:
        problems.append(f"Caption files {named(empty)} are empty; write the captions into them, or {remedy}.")
    return problems


def _is_text(name: str) -> bool:
    """Whether a file name can be encoded as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_picture(path: Path, readers: Readers, *, whole: bool = True) -> Picture:
    """Size and hash of an image, decoded in a separate process; cached until the file changes.

    `whole`: it was decoded to all of its pixels, as it must be before this process decodes it.

    Raises:
        DatasetError: the image cannot be read. A damaged file is not tried again until it changes.
        OSError: the file is missing.
    """
    stat = path.stat()
    known = _checked.get((path, stat.st_mtime_ns, stat.st_size))
    if known is not None and (known.whole or not whole):
        found = known.found
    else:
        try:
            found = readers.picture(path)
        except NotNowError:
            raise
        except DatasetError as error:
            found = error
        remember(path, stat.st_mtime_ns, stat.st_size, found)
    if isinstance(found, DatasetError):
        raise DatasetError(found.problems)
    return found


def remember(path: Path, mtime_ns: int, length: int, found: Picture | DatasetError, *, whole: bool = True) -> None:
    """Keep the result of decoding a file, of the given time and length before it was read, for `checked_picture`."""
    if len(_checked) >= 4 * MAX_IMAGES:
        _checked.clear()
    _checked[path, mtime_ns, length] = _Checked(found, whole)


def decoded_whole(samples: Sequence[Sample]) -> list[str]:
    """Decode the images that were not decoded to all of their pixels yet, in separate processes; returns their problems."""
    with Readers() as readers, ThreadPoolExecutor(DECODERS) as pool:
        told = pool.map(lambda path: _read(path, readers, whole=True), dict.fromkeys(sample.path for sample in samples))
        return list(dict.fromkeys(problem for found in told if isinstance(found, _Unread) for problem in found.problems))
