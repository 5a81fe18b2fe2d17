"""Captions made by captioners, over HTTP: which there are, starting one, its progress, stopping it."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException

from lib_lora.datasets.captioner_fields import Field
from lib_lora.datasets.captioner_offers import Offer
from lib_lora.datasets.captionings import Captionings
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.errors import bounded
from lib_lora.languages.spoken import said
from lib_lora.ui.api.image_tools import ImageTools, ShownBy
from lib_lora.ui.api.listing import Look
from lib_lora.ui.api.serving import Call, Routes

JOB = "/datasets/{dataset}/captioning"
LONGEST_TOLD = 40


class CaptioningRoutes:
    """The answers of the routes."""

    def __init__(self, catalogue: Catalogue, captionings: Captionings, tools: ImageTools, shown: ShownBy) -> None:
        self._catalogue, self._captionings, self._tools, self._shown = catalogue, captionings, tools, shown

    def add_to(self, routes: Routes) -> None:
        """Add every route."""
        routes.add("GET", "/captioners", self.captioners)
        routes.add("POST", JOB, self.start)
        routes.add("GET", JOB, self.progress)
        routes.add("DELETE", JOB, self.stop)

    def captioners(self, _call: Call) -> Any:
        """Every captioner, what it needs, and what can be set for it."""
        return {
            "captioners": [
                {
                    "id": offer.id,
                    "name": said(offer.name),
                    "needs": offer.needs(),
                    "note": offer.note,
                    "options": [_field(field) for field in offer.fields],
                }
                for offer in self._tools.captioners()
            ]
        }

    def start(self, call: Call) -> Any:
        """Caption the images that a page shows, with `captioner` and its `options`."""
        dataset, offer = self._set(call), self._offer(call.text("captioner"))
        given = call.body.get("options", {})
        if not isinstance(given, dict):
            raise HTTPException(422, "Field 'options': must be an object with options of the captioner.")
        self._captionings.start(dataset, offer, given, self._shown(dataset, Look.of(call.body)).kept())
        return self._told(dataset)

    def progress(self, call: Call) -> Any:
        """How far the captioning of this dataset is, or how the last one ended."""
        return self._told(self._set(call))

    def stop(self, call: Call) -> Any:
        """End it soon; captions that are done stay."""
        dataset = self._set(call)
        self._captionings.stop(dataset)
        return self._told(dataset)

    def _told(self, dataset: ImageSet) -> dict[str, Any]:
        """`elsewhere`: the name of another dataset that is captioned now."""
        running, found = self._captionings.running, self._captionings.of(dataset)
        elsewhere = running.dataset.name if running is not None and running.dataset is not dataset else ""
        if found is None:
            return {"captioner": "", "running": False, "elsewhere": elsewhere}
        started, progress = found
        return {
            "captioner": started.captioner,
            "running": progress.running,
            "stopping": progress.running and started.stopped.is_set(),
            "done": progress.done,
            "total": progress.total,
            "written": progress.written,
            "current": progress.current,
            "problems": bounded(progress.problems),
            "ended": progress.ended,
            "elsewhere": elsewhere,
        }

    def _offer(self, name: str) -> Offer:
        offers = {offer.id: offer for offer in self._tools.captioners()}
        if name not in offers:
            raise HTTPException(422, f"captioner: got {name[:LONGEST_TOLD]!r}, must be one of {', '.join(offers)}")
        return offers[name]

    def _set(self, call: Call) -> ImageSet:
        return self._catalogue.get(call.path["dataset"])


def _field(field: Field) -> dict[str, Any]:
    is_number = field.kind in ("whole", "number")
    return {
        "name": field.name,
        "label": field.label,
        "kind": field.kind,
        "default": field.default,
        "help": field.help,
        **({"least": field.least, "most": field.most} if is_number else {}),
        **({"choices": [{"value": value, "label": label} for value, label in field.choices.items()]} if field.choices else {}),
    }
