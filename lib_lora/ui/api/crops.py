"""Crops of the images that a page shows, over HTTP: made, with progress, and stopped."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from lib_lora.data.sizes import Size
from lib_lora.datasets.captionings import BusyError
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.crops import ASKING, apply_crops, crop_edits
from lib_lora.datasets.image_set import ImageSet
from lib_lora.errors import bounded
from lib_lora.ui.api.image_tools import ImageTools, ShownBy
from lib_lora.ui.api.listing import Look, Shown
from lib_lora.ui.api.serving import Call, Routes

CROPS = "/datasets/{dataset}/crops"
WORDS = {"buckets": "whole images", "square": "square crops", "focal": "crops to what stands out", "face": "crops to faces"}


class Search(NamedTuple):
    """The crops that are being made."""

    dataset: str  # id
    done: int
    total: int


class CropRoutes:
    """The answers of the routes. One request at a time makes crops, since it may take a second for each image."""

    def __init__(self, catalogue: Catalogue, tools: ImageTools, shown: ShownBy) -> None:
        self._catalogue, self._tools, self._shown = catalogue, tools, shown
        self._one = threading.Lock()
        self._search: Search | None = None
        self._stopped = threading.Event()

    def add_to(self, routes: Routes) -> None:
        """Add every route."""
        routes.add("POST", CROPS, self.make)
        routes.add("GET", CROPS, self.progress)
        routes.add("DELETE", CROPS, self.stop)

    def make(self, call: Call) -> Any:
        """Crop the images that a page shows, by `mode`; with `preview`, only tell what would change. It answers at the end."""
        dataset, mode = self._catalogue.get(call.path["dataset"]), call.text("mode")
        preview = call.body.get("preview") is True
        autocrop = self._tools.autocrop(mode) if mode in ASKING else None
        if not self._one.acquire(blocking=False):
            raise BusyError(["Other images are being cropped now; wait until that is done, or stop it."])
        try:
            self._stopped.clear()
            shown = self._shown(dataset, Look.of(call.body))
            entries = shown.kept()
            data = shown.config.data
            found = crop_edits(
                entries,
                _sizes(shown),
                mode,
                target=Size(data.height, data.resolution),
                autocrop=autocrop,
                told=lambda done, total: self._tell(dataset, done, total),
            )
            count = len(found.edits) if preview else apply_crops(dataset, entries, found, WORDS[mode])
        finally:
            self._search = None
            self._one.release()
        crops = (
            {} if not preview else {entry.id: found.edits[entry.place].crop for entry in entries if entry.place in found.edits}
        )
        return {
            "count": count,
            "total": len(entries),
            "stopped": self._stopped.is_set(),
            "problems": bounded(found.problems),
            "crops": crops,
        }

    def progress(self, call: Call) -> Any:
        """How far the crops of this dataset are."""
        dataset, search = self._catalogue.get(call.path["dataset"]), self._search
        if search is None or search.dataset != dataset.id:
            return {"running": False, "done": 0, "total": 0}
        return {"running": True, "done": search.done, "total": search.total}

    def stop(self, call: Call) -> Any:
        """End it after the image at work; what was found is used."""
        dataset, search = self._catalogue.get(call.path["dataset"]), self._search
        if search is not None and search.dataset == dataset.id:
            self._stopped.set()
        return {}

    def _tell(self, dataset: ImageSet, done: int, total: int) -> bool:
        self._search = Search(dataset.id, done, total)
        return not self._stopped.is_set() and dataset.folder.is_dir()


def _sizes(shown: Shown) -> dict[str, Size]:
    """The sizes of the images that were decoded, by place."""
    return {place: looked.size for place, looked in shown.looked.items() if looked.facts is not None and looked.size is not None}
