"""Folders -> samples: which images are trained on, how often, and with what caption."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lib_lora.data.captions import CaptionSource, read_caption, written_caption
from lib_lora.data.images import image_size, load_pixels
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
MAX_IMAGES = 5000
DECODERS = 4  # pictures decoded at a time: a large one takes 200 MB
_REPEATS_NAME = re.compile(r"(\d+)_(.*)", re.DOTALL)


@dataclass(frozen=True)
class Sample:
    """One image file with its caption; shown `repeats` times per epoch."""

    path: Path
    caption: str
    repeats: int
    size: Size
    has_caption_file: bool


@dataclass(frozen=True)
class Folder:
    """A folder that holds images directly. `concept` is the text behind N_ in its name."""

    path: Path
    repeats: int
    concept: str | None


@dataclass(frozen=True)
class Dataset:
    """What was found. A dataset with problems is not trained on."""

    samples: tuple[Sample, ...]
    folders: tuple[Folder, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def scan(paths: Sequence[str], *, captions: CaptionSource, repeats: int) -> Dataset:
    """Look through `paths` and read every image once. Never raises for wrong input: it is told in `problems`."""
    if not any(path.strip() for path in paths):
        return Dataset((), (), ("Image folder (data): none given; choose a folder or drop images.",), ())
    problems: list[str] = []
    notes: list[str] = []
    folders: list[Folder] = []
    for text in (path.strip() for path in paths if path.strip()):
        found = list(_folders_at(Path(text).expanduser(), repeats, problems, notes))
        folders += [folder for folder in found if folder.path not in {known.path for known in folders}]
    files = [(folder, path) for folder in folders for path in _images_in(folder.path)]
    if len(files) > MAX_IMAGES:
        problems.append(f"Image folder (data): {len(files)} images found, at most {MAX_IMAGES} can be trained on.")
        files = []
    with ThreadPoolExecutor(max_workers=DECODERS) as pool:
        read = list(pool.map(lambda item: _sample(item[0], item[1], captions), files))
    samples = tuple(item for item in read if isinstance(item, Sample))
    problems += [problem for item in read if not isinstance(item, Sample) for problem in item]
    return Dataset(samples, tuple(folders), tuple(problems), tuple(notes))


def _folders_at(root: Path, repeats: int, problems: list[str], notes: list[str]) -> Iterator[Folder]:
    """The image folders that `root` stands for: itself, or those directly below it (N_name folders before all others)."""
    if not root.is_dir():
        problems.append(f"Image folder (data): {str(root)!r} does not exist or is no folder.")
        return
    below = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".") and _images_in(path)]
    numbered = [path for path in below if _REPEATS_NAME.fullmatch(path.name)]
    if numbered:
        ignored = len(below) - len(numbered) + len(_images_in(root))
        if ignored:
            notes.append(f"{root.name}: folders without a number and images beside the numbered folders are not used.")
        yield from (_folder(path, repeats, problems) for path in numbered)
    elif _images_in(root):
        yield _folder(root, repeats, problems)
        if below:
            notes.append(f"{root.name}: folders below it are not used, since it holds images itself.")
    elif below:
        yield from (_folder(path, repeats, problems) for path in below)
    else:
        problems.append(f"Image folder (data): {str(root)!r} holds no PNG, JPEG or WEBP image.")


def _folder(path: Path, repeats: int, problems: list[str]) -> Folder:
    match = _REPEATS_NAME.fullmatch(path.name)
    if not match:
        return Folder(path, repeats, None)
    if int(match[1]) < 1:
        problems.append(f"Image folder (data): {path.name!r} asks for 0 repeats; rename it to 1_{match[2]} or more.")
    return Folder(path, int(match[1]), match[2].strip() or None)


def _images_in(folder: Path) -> list[Path]:
    return [
        p for p in sorted(folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
    ]


def _sample(folder: Folder, path: Path, captions: CaptionSource) -> Sample | Iterable[str]:
    try:
        stat = path.stat()
        size = _checked_size(path, stat.st_mtime_ns, stat.st_size)
        written = read_caption(path, captions)
    except DatasetError as error:
        return error.problems
    except OSError as error:
        return [f"Image {path.name!r} cannot be read ({error.strerror}); check its permissions."]
    caption = written_caption(path, written, folder.concept, captions)
    if caption is None:
        file = path.stem + captions.extension
        return [f"Image {path.name!r} has no caption; write {file} beside it, or give a Trigger word (trigger)."]
    return Sample(path, caption, folder.repeats, size, written is not None)


@functools.lru_cache(maxsize=4 * MAX_IMAGES)
def _checked_size(path: Path, mtime_ns: int, size_bytes: int) -> Size:
    """Size of an image that was decoded whole once (a cut-off file shows only then); keyed by the file's state."""
    del mtime_ns, size_bytes
    size = image_size(path)
    load_pixels(path)
    return size
