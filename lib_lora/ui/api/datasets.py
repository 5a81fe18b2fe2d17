"""Datasets over HTTP: made, listed, changed, filled with images."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response

from lib_lora.data.edits import legal_crop, legal_cut
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.errors import DatasetError
from lib_lora.ui.api.listing import Look, listing
from lib_lora.ui.api.serving import Call, Routes, in_thread
from lib_lora.ui.guard import Guard

NO_FOLDERS = "The webui runs with --hide-ui-dir-config, so its folders cannot be chosen; drop images."
ONE, IMAGE = "/datasets/{dataset}", "/datasets/{dataset}/images/{image}"


def add_dataset_routes(app: FastAPI, catalogue: Catalogue, guard: Guard, *, hides_folders: bool) -> None:
    """Add the routes of datasets and their images."""
    DatasetRoutes(catalogue, hides_folders=hides_folders).add_to(Routes(app, guard))


class DatasetRoutes:
    """The answers of the routes."""

    def __init__(self, catalogue: Catalogue, *, hides_folders: bool) -> None:
        self._catalogue, self._hides_folders = catalogue, hides_folders

    def add_to(self, routes: Routes) -> None:
        """Add every route."""
        routes.add("GET", "/datasets", self.all)
        routes.add("POST", "/datasets", self.create)
        routes.add("GET", ONE, self.one)
        routes.add("PATCH", ONE, self.rename)
        routes.add("DELETE", ONE, self.delete)
        routes.add("POST", ONE + "/duplicate", self.duplicate)
        routes.add("POST", ONE + "/undo", self.undo)
        routes.add_raw("POST", ONE + "/files", self.receive)
        routes.add("PATCH", IMAGE, self.change)
        routes.add("DELETE", IMAGE, self.remove)

    def all(self, _call: Call) -> Any:
        """Every dataset, the newest first, and whether folders of the machine may be chosen."""
        return {
            "datasets": [{"id": dataset.id, "name": dataset.name} for dataset in self._catalogue.all()],
            "folders": not self._hides_folders,
        }

    def create(self, call: Call) -> Any:
        """A new dataset: `name`, and `folder` for one on the disk."""
        folder = call.text("folder", "")
        if folder and self._hides_folders:
            raise HTTPException(403, NO_FOLDERS)
        name = call.text("name", "") or self._catalogue.free_name(folder)
        return _head(self._catalogue.create(name, folder or None))

    def one(self, call: Call) -> Any:
        """A page of the dataset's images, with what is true of each."""
        return listing(self._set(call), Look.of(call))

    def rename(self, call: Call) -> Any:
        """Another `name`."""
        return _head(self._catalogue.rename(call.path["dataset"], call.text("name")))

    def duplicate(self, call: Call) -> Any:
        """A copy under `name`, or a free one."""
        dataset = self._set(call)
        return _head(self._catalogue.duplicate(dataset.id, call.text("name", "") or self._catalogue.free_name(dataset.name)))

    def delete(self, call: Call) -> Any:
        """Remove the dataset."""
        self._catalogue.delete(call.path["dataset"])
        return {}

    def undo(self, call: Call) -> Any:
        """Take the last change back."""
        return {"undone": self._set(call).undo()}

    def change(self, call: Call) -> Any:
        """Change an image: `caption` with the text before as `was`, `left_out`, `crop`, `cut`; null for none."""
        dataset, image = self._set(call), call.path["image"]
        unknown = call.body.keys() - {"caption", "was", "left_out", "crop", "cut"}
        if unknown:
            raise HTTPException(422, f"An image has no {sorted(unknown)[0]!r}")
        if "caption" in call.body:
            dataset.set_caption(image, call.text("caption"), call.text("was") if "was" in call.body else None)
        values: dict[str, Any] = {}
        try:
            if "left_out" in call.body:
                values["left_out"] = call.body["left_out"] is True
            for name, legal in (("crop", legal_crop), ("cut", legal_cut)):
                if name in call.body:
                    values[name] = None if call.body[name] is None else legal(call.body[name])
        except ValueError as error:
            raise DatasetError([f"Not changed: {error}."]) from error
        if values:
            dataset.change_image(image, values)
        return {}

    def remove(self, call: Call) -> Any:
        """Remove an image, or leave it out if it lies in a folder on the disk."""
        self._set(call).remove(call.path["image"])
        return {}

    async def receive(self, request: Request) -> Any:
        """Receive a file, the body of the request, under the query's `name`."""
        raise NotImplementedError

    def _set(self, call: Call) -> ImageSet:
        return self._catalogue.get(call.path["dataset"])


def _head(dataset: ImageSet) -> dict[str, Any]:
    return {"id": dataset.id, "name": dataset.name}


__all__ = ["DatasetRoutes", "Response", "add_dataset_routes", "in_thread"]
