"""Masks of a dataset's images over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException, Request, Response

from lib_lora.data.decoder_process import Readers
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.datasets.masks import MADE, MaskUpload, make_mask, mask_from_transparency, mask_of, remove_mask, temporary
from lib_lora.errors import NoDatasetError
from lib_lora.ui.api.serving import Call, Routes, in_thread

IMAGE = "/datasets/{dataset}/images/{image}"
VIEW_SIDE = 1600  # pixels of the longest side
_KEPT = {"Cache-Control": "private, max-age=86400"}


class MaskRoutes:
    """The answers of the routes. `readers`: decode masks."""

    def __init__(self, catalogue: Catalogue, readers: Readers) -> None:
        self._catalogue, self._readers = catalogue, readers

    def add_to(self, routes: Routes) -> None:
        """Add every route."""
        routes.add("GET", IMAGE + "/mask", self.mask)
        routes.add_raw("PUT", IMAGE + "/mask", self.receive)
        routes.add("POST", IMAGE + "/mask", self.make, ("how",))
        routes.add("DELETE", IMAGE + "/mask", self.remove, ())
        routes.add("GET", IMAGE + "/view", self.view)

    def mask(self, call: Call) -> Any:
        """The mask, a PNG; with `from=transparency` what the image's transparency would make."""
        dataset = self._set(call)
        if call.query.get("from") == "transparency":
            return Response(mask_from_transparency(dataset, call.path["image"], self._readers), media_type="image/png")
        path = mask_of(dataset.entry(call.path["image"]))
        if path is None:
            raise NoDatasetError(["This image has no mask."])
        return Response(path.read_bytes(), media_type="image/png", headers=_KEPT)

    async def receive(self, request: Request) -> Any:
        """Take the body, a PNG of the upright image's size, as the mask: white is learned, black is not."""
        dataset = self._catalogue.get(request.path_params["dataset"])
        with await in_thread(MaskUpload, dataset) as upload:
            async for chunk in request.stream():
                await in_thread(upload.write, chunk)
            await in_thread(upload.finish, dataset, request.path_params["image"], self._readers)
        return {}

    def make(self, call: Call) -> Any:
        """Make the mask without painting: `how` is inverted, transparency or filled."""
        how = call.text("how")
        if how not in MADE:
            raise HTTPException(422, f"how: must be one of {', '.join(MADE)}")
        make_mask(self._set(call), call.path["image"], how, self._readers)
        return {}

    def remove(self, call: Call) -> Any:
        """Have the image learned whole."""
        remove_mask(self._set(call), call.path["image"])
        return {}

    def view(self, call: Call) -> Any:
        """The upright image as a JPEG that is large enough to paint on."""
        dataset = self._set(call)
        entry = dataset.entry(call.path["image"])
        with temporary(dataset) as made:
            looked = self._readers.look(entry.path, made, VIEW_SIDE)
            if looked.unsaved:
                raise OSError(looked.unsaved)
            return Response(made.read_bytes(), media_type="image/jpeg", headers=_KEPT)

    def _set(self, call: Call) -> ImageSet:
        return self._catalogue.get(call.path["dataset"])
