"""A page of a dataset's images as JSON, with what is true of each under the form's settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from lib_lora.config.groups import TrainConfig, options_by_name, read_config, title
from lib_lora.data.buckets import Placement
from lib_lora.data.edits import size_in
from lib_lora.data.image_facts import ImageFacts
from lib_lora.data.sizes import Crop, Size
from lib_lora.datasets.caption_changes import SEPARATOR
from lib_lora.datasets.caption_list import SortBy, has_caption, in_order, matching, tag_counts
from lib_lora.datasets.caption_tokens import token_counts, token_limit
from lib_lora.datasets.checks import files_beside, leave_out_duplicates, lone_captions, notices
from lib_lora.datasets.frames import frame_of, placement_in
from lib_lora.datasets.image_set import ImageEntry, ImageSet
from lib_lora.datasets.looked import Looks
from lib_lora.errors import DatasetError, bounded
from lib_lora.plan import placement_of
from lib_lora.ui.api.serving import Call

PER_PAGE = 48
MOST_TAGS = 60
LONGEST_TEXT, LONGEST_SETTINGS = 1000, 4000
FILTERS = ("all", "no_caption", "problem", "duplicate", "small", "left_out")
_SHOWN_OTHERWISE = ("unreadable", "no caption")  # as the problem, and by the empty field
SORTS = ("name", "size", "tokens")


@dataclass(frozen=True)
class Look:
    """What a page shows: images that `show` and `text` let through, in an order, and the form's settings."""

    show: str = "all"
    text: str = ""
    sort: SortBy = "name"
    page: int = 1
    config: TrainConfig | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any], page: int = 1) -> Look:
        """From a request's query or body.

        Raises:
            HTTPException: 422.
        """
        show, text, sort = (values.get(name, default) for name, default in (("show", "all"), ("text", ""), ("sort", "name")))
        if show not in FILTERS or sort not in SORTS or not isinstance(text, str) or len(text) > LONGEST_TEXT:
            raise HTTPException(
                422,
                f"Field 'show': must be one of {', '.join(FILTERS)}; 'sort' one of {', '.join(SORTS)}; 'text' has at most "
                f"{LONGEST_TEXT} characters.",
            )
        return cls(show, text, sort, page, _config(values.get("settings", "")))


class Shown:
    """The images of a dataset with all that is known of them. It reads the dataset once."""

    def __init__(self, dataset: ImageSet, looks: Looks, look: Look) -> None:
        self.dataset, self._looks, self._look = dataset, looks, look
        self.config = look.config or read_config({})[0]
        self.entries, self.problems = dataset.entries()
        self.looked = {entry.place: found for entry in self.entries if (found := looks.of(entry)) is not None}
        captions, images = files_beside({entry.path.parent for entry in self.entries})
        self.notices = notices(self.entries, self.looked, self._placements(), set(captions))
        self.problems += [notice.text for notice in lone_captions(captions, images)]

    @property
    def separator(self) -> str:
        """What stands between the tags of a caption; a comma where the settings leave it empty."""
        return self.config.text.caption_separator or SEPARATOR

    @property
    def facts(self) -> dict[str, ImageFacts]:
        """The facts of the images that were decoded, by place."""
        return {place: looked.facts for place, looked in self.looked.items() if looked.facts is not None}

    def _placements(self) -> dict[str, Placement]:
        """The placement of every image whose size is known, and of which the chosen part exists."""
        placements, by_size = {}, dict[Size, Placement]()
        for entry in self.entries:
            looked = self.looked.get(entry.place)
            part = size_in(entry.edit.crop, looked.size) if looked and looked.size else None
            if part is not None:
                if part not in by_size:
                    by_size[part] = placement_of(part, self.config)
                placements[entry.place] = by_size[part]
        return placements

    def kept(self) -> list[ImageEntry]:
        """The images that the filters let through, in order."""
        found = [entry for entry in self.entries if self._look.show in self._kinds(entry)]
        if self._look.text:
            wanted = self._look.text.casefold()
            captioned = {entry.place for entry in matching(found, self._look.text)}
            found = [entry for entry in found if entry.place in captioned or wanted in entry.name.casefold()]
        return in_order(found, self._look.sort, self._values(found))

    def counts(self) -> dict[str, int]:
        """The number of images of each filter."""
        counted = dict.fromkeys(FILTERS, 0)
        for entry in self.entries:
            for kind in self._kinds(entry):
                counted[kind] += 1
        return counted

    def one(self, entry: ImageEntry, tokens: int) -> dict[str, Any]:
        """One image."""
        looked = self.looked.get(entry.place)
        size = looked.size if looked else None
        thumbnail = self._looks.thumbnail(entry)
        return {
            "id": entry.id,
            "name": entry.name,
            "place": entry.place,
            "caption": entry.caption,
            "tokens": tokens,
            "limit": token_limit(self.config.text),
            "size": [size.width, size.height] if size else None,
            "left_out": entry.edit.left_out,
            "crop": entry.edit.crop,
            "cut": entry.edit.cut,
            **self._frame(entry, size),
            **self._mask(entry),
            "notices": [notice.text for notice in self.notices.get(entry.place, ()) if notice.kind not in _SHOWN_OTHERWISE],
            "problem": " ".join(looked.problems) if looked else "",
            "thumbnail": f"datasets/{self.dataset.id}/images/{entry.id}/thumbnail?of={thumbnail.stem}" if thumbnail else None,
            "removable": entry.folder.edits.source is None,
        }

    def _mask(self, entry: ImageEntry) -> dict[str, Any]:
        """The painted mask: its mean, 0 to 1, and the path to get it at."""
        mask = entry.edit.mask
        if mask is None:
            return {"has_mask": False, "covered": None, "mask": None}
        path = f"datasets/{self.dataset.id}/images/{entry.id}/mask?of={Path(mask.file).stem}"
        return {"has_mask": True, "covered": mask.covered, "mask": path}

    def masks(self) -> dict[str, Any]:
        """How many images have a mask, their mean, and in a sentence why training does not use them; empty if it does."""
        means = [entry.edit.mask.covered for entry in self.entries if entry.edit.mask and not entry.edit.left_out]
        unused = ""
        if means and self._look.config is not None:
            data = self._look.config.data
            if not data.masked_loss:
                unused = f"Masks are not used: {title('masked_loss')} is off; turn it on in the form."
            elif data.alpha_mask:
                unused = f"Masks are not used: {title('alpha_mask')} is on; turn it off in the form."
        return {"count": len(means), "covered": sum(means) / len(means) if means else None, "unused": unused}

    def _frame(self, entry: ImageEntry, size: Size | None) -> dict[str, Any]:
        """Edges as shares of the whole image: of what training sees, and of the part that it is cut from."""
        part = [0.0, 0.0, 1.0, 1.0]
        if size is None:
            return {"frame": None, "part": part}
        try:
            frame = frame_of(size, entry.edit, placement_in(size, entry.edit, self.config))
        except DatasetError:  # the image's problem says it
            return {"frame": None, "part": part}
        return {"frame": _shares(frame, size), "part": _shares(entry.edit.crop, size) if entry.edit.crop else part}

    def _kinds(self, entry: ImageEntry) -> set[str]:
        told = {notice.kind for notice in self.notices.get(entry.place, ())}
        kinds = {
            "all": True,
            "no_caption": not has_caption(entry),
            "problem": "unreadable" in told,
            "duplicate": "duplicate" in told,
            "small": "small" in told,
            "left_out": entry.edit.left_out,
        }
        return {kind for kind, is_so in kinds.items() if is_so}

    def _values(self, entries: Sequence[ImageEntry]) -> dict[str, int] | None:
        if self._look.sort == "size":
            return {
                entry.place: looked.size.area for entry in entries if (looked := self.looked.get(entry.place)) and looked.size
            }
        if self._look.sort == "tokens":
            return dict(zip((entry.place for entry in entries), token_counts([e.caption for e in entries], self.config.text)))
        return None


def listing(dataset: ImageSet, looks: Looks, look: Look) -> dict[str, Any]:
    """A page of the images.

    Raises:
        DatasetError: the dataset is damaged.
    """
    done, _ = looks.progress()  # before what is known is read: a page that asks until all are looked at gets all of it
    shown = Shown(dataset, looks, look)
    kept = shown.kept()
    pages = max(-(-len(kept) // PER_PAGE), 1)
    page = min(look.page, pages)
    here = kept[(page - 1) * PER_PAGE : page * PER_PAGE]
    looks.first(here)
    _, total = looks.progress()
    tokens = token_counts([entry.caption for entry in here], shown.config.text)
    unsaved = looks.unsaved()
    return {
        "id": dataset.id,
        "name": dataset.name,
        "folder": dataset.edits.source,
        "folders": dataset.folders(),
        "undo": dataset.undoable,
        "undo_number": dataset.undo_number,
        "looked": {"done": min(done, total), "total": total},
        "masks": shown.masks(),
        "counts": shown.counts(),
        "duplicates": len(leave_out_duplicates(shown.entries, shown.facts)),
        "page": page,
        "pages": pages,
        "images": [shown.one(entry, count) for entry, count in zip(here, tokens)],
        "tags": [{"tag": tag, "count": count} for tag, count in tag_counts(shown.entries, shown.separator)[:MOST_TAGS]],
        "problems": [*bounded(shown.problems), *([unsaved] if unsaved else [])],
    }


def look_of(call: Call) -> Look:
    """What a request of a page shows.

    Raises:
        HTTPException: 422.
    """
    return Look.of(call.query, call.number("page", 1))


def _config(text: Any) -> TrainConfig | None:
    """The settings that the page sends back from its report; illegal values count as their defaults.

    Raises:
        HTTPException: 422.
    """
    if not text:
        return None
    try:
        if not isinstance(text, str) or len(text) > LONGEST_SETTINGS:
            raise ValueError
        flat = json.loads(text)
        if not isinstance(flat, dict) or not flat.keys() <= options_by_name().keys():
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, "Field 'settings': must be a short JSON object with options.") from error
    return read_config(flat)[0]


def _shares(edges: Sequence[float] | Crop, size: Size) -> list[float]:
    left, top, right, bottom = edges
    return [left / size.width, top / size.height, right / size.width, bottom / size.height]
