"""What a dataset of the tab says of its images beside their files: captions, crops, and which are left out.

A folder is such a dataset if it holds `train-lora-dataset.json`; its images then lie in it, or in the folder on the disk that it
names, whose files are never changed. The file is replaced as a whole, so that a job that has linked it keeps what it was given.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from lib_lora.data.sizes import Crop, Size
from lib_lora.errors import DatasetError
from lib_lora.files.plain_json import read_json

FILE, VERSION = "train-lora-dataset.json", 1
MAX_BYTES = 32 * 2**20  # 5,000 captions of 4,000 characters, and their crops
MAX_SIDE = 2**20  # pixels
MASKS = ".masks"  # beside that file; no search for images looks into it
_MASK = re.compile(r"[0-9a-f]{32}\.pn_")


class PaintedMask(NamedTuple):
    """A mask in the folder MASKS: a grey PNG of the upright image's size. `covered`: its mean, 0 to 1.

    The file is named after its content and never changed, so that Undo and jobs find what they knew.
    """

    file: str
    covered: float


@dataclass(frozen=True)
class ImageEdit:
    """The edits of one image.

    `left_out`: not trained on. `crop`: edges in pixels of the upright image, of the part that is used instead of the whole.
    `cut`: where the bucket's cut lies in what remains, from top and left, as a share of the surplus, 0 to 1; None for the
    centre. `caption`: replaces the file's; None if there is no edit. `mask`: what is learned of it; None for all.
    """

    left_out: bool = False
    crop: Crop | None = None
    cut: tuple[float, float] | None = None
    caption: str | None = None
    mask: PaintedMask | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON, without what is not set."""
        return {key: value for key, value in asdict(self).items() if value not in (None, False)}


@dataclass(frozen=True)
class FolderEdits:
    """The edits of a folder. `images`: relative path with given names, such as `10_cat/a.png` -> edit.

    `source`: the folder on the disk that holds the images; None if they lie in the dataset's own folder. `folder`: where the
    edits were read.
    """

    name: str = ""
    source: str | None = None
    images: Mapping[str, ImageEdit] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)

    def of(self, place: str) -> ImageEdit:
        """The edit of the image at a relative path."""
        return self.images.get(place, NO_EDIT)

    def to_json(self) -> str:
        """The content of the file."""
        edited = {place: edit.plain() for place, edit in sorted(self.images.items()) if edit != NO_EDIT}
        plain = {"version": VERSION, "name": self.name, "source": self.source, "images": edited}
        return json.dumps(plain, ensure_ascii=False, indent=1)


NO_EDIT = ImageEdit()
NO_EDITS = FolderEdits()


def edits_in(folder: Path) -> FolderEdits | None:
    """The edits of a folder; None if it is no dataset of the tab.

    Raises:
        DatasetError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES // 2**20} MB")
        return replace(edits_of(path.read_text(encoding="utf-8")), folder=folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError([
            f"The file {FILE!r} of this dataset is damaged ({_said(error)}); restore it, or remove it to begin again with the "
            "images and caption files beside it."
        ]) from error  # fmt: skip


def edits_of(text: str, most_nested: int | None = None) -> FolderEdits:
    """The edits that the file's content states. `most_nested`: as in `read_json`, for a file of others.

    Raises:
        DatasetError: a newer version wrote them, with what would be lost here.
        ValueError, KeyError, TypeError, AttributeError, RecursionError: they are damaged.
    """
    plain = read_json(text, most_nested)
    if not isinstance(plain, dict):
        raise TypeError("it is no JSON object")
    if plain.get("version", VERSION) != VERSION:
        raise DatasetError([f"The file {FILE!r} of this dataset is of a newer version of this extension; update it."])
    name, source = plain["name"], plain["source"]
    if not isinstance(name, str) or not isinstance(source, (str, type(None))):
        raise TypeError("its name or folder is no text")
    return FolderEdits(name, source, {str(place): _edit(values) for place, values in plain["images"].items()})


def _edit(plain: Any) -> ImageEdit:
    crop, cut, caption = plain.get("crop"), plain.get("cut"), plain.get("caption")
    if not isinstance(caption, (str, type(None))):
        raise TypeError("a caption is no text")
    return ImageEdit(
        plain.get("left_out") is True,
        None if crop is None else legal_crop(crop),
        None if cut is None else legal_cut(cut),
        caption,
        None if plain.get("mask") is None else _legal_mask(plain["mask"]),
    )


def legal_crop(plain: Any) -> Crop:
    """The crop from four edges.

    Raises:
        ValueError: it is not a list of left, top, right and bottom, in whole pixels, with an area.
    """
    if not isinstance(plain, (list, tuple)) or len(plain) != 4 or not all(type(edge) is int for edge in plain):
        raise ValueError("a crop is not four whole numbers")
    crop = Crop(*plain)
    if not (0 <= crop.left < crop.right <= MAX_SIDE and 0 <= crop.top < crop.bottom <= MAX_SIDE):
        raise ValueError("a crop has no area, or lies outside the image")
    return crop


def legal_cut(plain: Any) -> tuple[float, float]:
    """The position of a cut from two shares.

    Raises:
        ValueError: it is not a list of two numbers from 0 to 1.
    """
    if not isinstance(plain, (list, tuple)) or len(plain) != 2 or not all(type(share) in (int, float) for share in plain):
        raise ValueError("the position of a cut is not two numbers")
    top, left = (float(share) for share in plain)
    if not (math.isfinite(top) and math.isfinite(left) and 0 <= top <= 1 and 0 <= left <= 1):
        raise ValueError("the position of a cut is not between 0 and 1")
    return top, left


def _legal_mask(plain: Any) -> PaintedMask:
    file, covered = plain
    if not _MASK.fullmatch(file) or type(covered) not in (int, float) or not 0 <= covered <= 1:
        raise ValueError("a mask is not named as one")
    return PaintedMask(file, float(covered))


def size_in(crop: Crop | None, whole: Size) -> Size | None:
    """The size of the part that is used; None if the crop reaches beyond the image."""
    if crop is None:
        return whole
    if crop.right > whole.width or crop.bottom > whole.height:
        return None
    return Size(crop.bottom - crop.top, crop.right - crop.left)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
