"""Datasets over HTTP: made, listed, changed, filled with images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse

from lib_lora.config.groups import read_config
from lib_lora.data.dataset import checked_picture
from lib_lora.data.decoder_process import Readers
from lib_lora.data.edits import legal_crop, legal_cut, size_in
from lib_lora.data.sizes import Crop
from lib_lora.datasets.arrivals import Arrivals
from lib_lora.datasets.caption_changes import (
    CaptionChanges,
    Place,
    apply,
    moved_tag,
    replaced,
    with_tag,
    without_duplicates,
    without_tag,
)
from lib_lora.datasets.captionings import Captionings
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.checks import leave_out_duplicates
from lib_lora.datasets.image_set import ImageEntry, ImageSet
from lib_lora.datasets.looked import Looks
from lib_lora.datasets.receiving import Receiving
from lib_lora.datasets.write_captions import caption_plan, write_captions
from lib_lora.datasets.zip_export import export_zip
from lib_lora.errors import DatasetError, NoDatasetError, bounded
from lib_lora.host import Host
from lib_lora.ui.api.advice import AdviceRoute
from lib_lora.ui.api.captioning import CaptioningRoutes
from lib_lora.ui.api.crops import CropRoutes
from lib_lora.ui.api.image_tools import ImageTools
from lib_lora.ui.api.listing import Look, Shown, listing, look_of
from lib_lora.ui.api.masks import MaskRoutes
from lib_lora.ui.api.report import ReportRoute
from lib_lora.ui.api.serving import Call, Routes, asked_flag, in_pieces, in_thread
from lib_lora.ui.guard import Guard

NO_FOLDERS = "The webui runs with --hide-ui-dir-config, so its folders cannot be chosen; drop images."
MOST_PREVIEWED = 20
RECEIVED = 2**20  # bytes of an upload that are written at once; a thread takes as long for a few as for all of them
_OF_CAPTIONS = ("action", "find", "put", "where", "case", "whole_tag", "show", "text", "sort", "settings", "preview")
ONE, IMAGE = "/datasets/{dataset}", "/datasets/{dataset}/images/{image}"


def add_dataset_routes(
    app: FastAPI,
    catalogue: Catalogue,
    guard: Guard,
    tools: ImageTools,
    captionings: Captionings,
    *,
    hides_folders: bool,
    host: Host,
) -> None:
    """Add the routes of datasets and their images.

    `captionings`: the one that runs goes on when the page is made anew. `host`: what reports are made for.
    """
    routes = Routes(app, guard)
    readers = Readers()  # its processes begin with the first image that is converted, and end with the webui
    datasets = DatasetRoutes(catalogue, readers, hides_folders=hides_folders)
    datasets.add_to(routes)
    CaptioningRoutes(catalogue, captionings, tools, datasets.shown).add_to(routes)
    CropRoutes(catalogue, tools, datasets.shown).add_to(routes)
    ReportRoute(catalogue, host, hides_folders=hides_folders).add_to(routes)
    AdviceRoute(catalogue, host, hides_folders=hides_folders).add_to(routes)
    MaskRoutes(catalogue, readers).add_to(routes)


class DatasetRoutes:
    """The answers of the routes."""

    def __init__(self, catalogue: Catalogue, readers: Readers, *, hides_folders: bool) -> None:
        self._catalogue, self._readers, self._hides_folders = catalogue, readers, hides_folders
        self._looks: dict[str, Looks] = {}
        self._arrivals: dict[str, Arrivals] = {}
        self._lock = threading.Lock()

    def add_to(self, routes: Routes) -> None:
        """Add every route."""
        routes.add("GET", "/datasets", self.all)
        routes.add("POST", "/datasets", self.create, ("name", "folder"))
        routes.add("GET", ONE, self.one)
        routes.add("PATCH", ONE, self.rename, ("name",))
        routes.add("DELETE", ONE, self.delete, ())
        routes.add("POST", ONE + "/duplicate", self.duplicate, ("name",))
        routes.add("POST", ONE + "/undo", self.undo, ("number",))
        routes.add_raw("POST", ONE + "/files", self.receive)
        routes.add("PATCH", IMAGE, self.change, ("caption", "was", "left_out", "crop", "cut"))
        routes.add("DELETE", IMAGE, self.remove, ())
        routes.add("GET", IMAGE + "/thumbnail", self.thumbnail)
        routes.add("POST", ONE + "/captions", self.captions, _OF_CAPTIONS)
        routes.add("POST", ONE + "/duplicates", self.duplicates, ())
        routes.add("POST", ONE + "/export", self.export, ("apply_crops", "settings"))
        routes.add("GET", ONE + "/exported", self.exported)
        routes.add("POST", ONE + "/write", self.write, ("preview", "settings"))

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
        dataset = self._set(call)
        return listing(dataset, self._looks_of(dataset), look_of(call))

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
        with self._lock:
            looks, _ = self._looks.pop(call.path["dataset"], None), self._arrivals.pop(call.path["dataset"], None)
        if looks is not None:
            looks.close()
        return {}

    def undo(self, call: Call) -> Any:
        """Take the last change back; with `number` only if it is the one that the page shows."""
        number = call.body.get("number")
        if number is not None and type(number) is not int:
            raise HTTPException(422, "Field 'number': must be a whole number.")
        return {"undone": self._set(call).undo(number)}

    def change(self, call: Call) -> Any:
        """Change an image: `caption` with the text before as `was`, `left_out`, `crop`, `cut`; null for none."""
        dataset, image = self._set(call), call.path["image"]
        values: dict[str, Any] = {}
        try:
            if "left_out" in call.body:
                values["left_out"] = call.flag("left_out")
            for name, legal in (("crop", legal_crop), ("cut", legal_cut)):
                if name in call.body:
                    values[name] = None if call.body[name] is None else legal(call.body[name])
        except ValueError as error:
            raise DatasetError([f"Not changed: {error}."]) from error
        if "caption" in call.body:
            values["caption"] = call.text("caption")
        was = call.text("was") if "was" in call.body else None
        if values.get("crop") is not None:
            self._check_inside(dataset, dataset.entry(image), values["crop"])
        dataset.change_image(image, values, was)
        return {}

    def remove(self, call: Call) -> Any:
        """Remove an image, or leave it out if it lies in a folder on the disk."""
        self._set(call).remove(call.path["image"])
        return {}

    def thumbnail(self, call: Call) -> Any:
        """The thumbnail of an image, a JPEG."""
        dataset = self._set(call)
        path = self._looks_of(dataset).thumbnail_of(call.path["image"])
        if path is None:
            dataset.entry(call.path["image"])  # or else it says that there is none
            raise NoDatasetError(["This image has no thumbnail."])
        return Response(path.read_bytes(), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    def duplicates(self, call: Call) -> Any:
        """Leave out all but one of equal or nearly equal images."""
        dataset = self._set(call)
        shown = self.shown(dataset, Look())
        edits = leave_out_duplicates(shown.entries, shown.facts)
        if edits:
            dataset.change(edits, f"leave out {len(edits)} duplicates")
        return {"count": len(edits)}

    def captions(self, call: Call) -> Any:
        """Change the captions of the images that a page shows; with `preview`, only tell what would change."""
        dataset = self._set(call)
        shown = self.shown(dataset, Look.of(call.body))
        changes, what = _caption_changes(shown.kept(), call, shown.separator)
        if not call.flag("preview"):
            apply(dataset, changes, what)
        told = [{"name": one.name, "before": one.before, "after": one.after} for one in changes.preview[:MOST_PREVIEWED]]
        return {"count": len(changes.preview), "changes": told}

    def export(self, call: Call) -> Any:
        """Make a zip in kohya's layout, with the repeats of `settings`; the answer names the path to get it at."""
        dataset = self._set(call)
        config = Look.of(call.body).config or read_config({})[0]
        told = export_zip(
            dataset, _export_path(dataset), self._readers, config.data.repeats, apply_crops=call.flag("apply_crops")
        )
        return {"path": f"datasets/{dataset.id}/exported", "name": f"{dataset.name}.zip", "problems": told}

    def exported(self, call: Call) -> Any:
        """The last zip that was made."""
        path = _export_path(self._set(call))
        if not path.is_file():
            raise NoDatasetError(["This dataset has not been exported."])
        return FileResponse(path, media_type="application/zip", filename=f"{self._set(call).name}.zip")

    def write(self, call: Call) -> Any:
        """Write the captions beside the images of a folder on the disk; with `preview`, tell how many files that writes."""
        dataset = self._set(call)
        extension = (Look.of(call.body).config or read_config({})[0]).text.caption_extension
        plan = caption_plan(dataset, extension) if call.flag("preview") else write_captions(dataset, extension)
        return {"count": len(plan.writes), "folder": dataset.edits.source, "problems": bounded(plan.told)}

    async def receive(self, request: Request) -> Any:
        """Receive a file, the body of the request, under the query's `name`: an image, a caption file, or a zip of those.

        `folder`: the numbered folder it belongs to, for a dataset that has several. `reg`: "true" if the dataset is one of
        regularisation images, which a zip may contain beside others.
        """
        dataset = self._catalogue.get(request.path_params["dataset"])
        arrivals = await in_thread(self._arrivals_of, dataset)
        asked = request.query_params
        reg = asked_flag(asked, "reg")
        receiving = await in_thread(partial(Receiving, arrivals, asked.get("name", ""), asked.get("folder", ""), reg=reg))
        with receiving:
            await in_thread(lambda: self._looks_of(dataset).prepare())
            async for chunk in in_pieces(request.stream(), RECEIVED):
                await in_thread(receiving.write, chunk)
            arrival = await in_thread(receiving.finish)
        await in_thread(self._look_at_new, dataset, arrival.images)
        return {"images": arrival.images, "captions": arrival.captions, "problems": bounded(arrival.told)}

    def shown(self, dataset: ImageSet, look: Look) -> Shown:
        """The images of a dataset that a look lets through, with what is known of them."""
        return Shown(dataset, self._looks_of(dataset), look)

    def _check_inside(self, dataset: ImageSet, entry: ImageEntry, crop: Crop) -> None:
        looked = self._looks_of(dataset).of(entry)
        size = looked.size if looked is not None and looked.size is not None else checked_picture(entry.path, self._readers).size
        if size_in(crop, size) is None:
            why = f"is {size}, smaller than the part chosen of it; choose the part again"
            raise DatasetError([f"Image {entry.name!r} {why}."])

    def _set(self, call: Call) -> ImageSet:
        return self._catalogue.get(call.path["dataset"])

    def _arrivals_of(self, dataset: ImageSet) -> Arrivals:
        """What has arrived for the dataset, so that a caption follows its image."""
        with self._lock:
            return self._arrivals.setdefault(dataset.id, Arrivals(dataset, self._readers))

    def _look_at_new(self, dataset: ImageSet, names: Sequence[str]) -> None:
        if names:
            self._looks_of(dataset).first(dataset.entries(set(names))[0])

    def _looks_of(self, dataset: ImageSet) -> Looks:
        """What is known of the dataset's images; all are looked at when it is opened first."""
        with self._lock:
            found = self._looks.get(dataset.id)
        if found is None:
            entries = dataset.entries()[0]  # of many images this takes a while, and other datasets do not wait for it
            with self._lock:
                found = self._looks.setdefault(dataset.id, Looks(dataset))
            found.renew(entries)
        return found


def _export_path(dataset: ImageSet) -> Path:
    return dataset.folder.parent / "exported.zip"


def _caption_changes(entries: Sequence[ImageEntry], call: Call, separator: str) -> tuple[CaptionChanges, str]:
    """What a request makes of captions, and the change in words.

    Raises:
        HTTPException: 422, if there is no such change.
        DatasetError: the change is not possible.
    """
    action, find, put = call.text("action"), call.text("find", ""), call.text("put", "")
    how = {name: call.flag(name) for name in ("case", "whole_tag")}
    places: dict[str, Place] = {"front": "front", "end": "end"}
    where = places.get(call.text("where", "end"))
    if where is None:
        raise HTTPException(422, f"Field 'where': must be one of {', '.join(places)}.")
    makes: dict[str, Callable[[], tuple[CaptionChanges, str]]] = {
        "replace": lambda: (replaced(entries, find, put, **how, separator=separator), f"replace {find}"),
        "add": lambda: (with_tag(entries, put, where, separator), f"add {put}"),
        "remove": lambda: (without_tag(entries, find, separator), f"remove {find}"),
        "move": lambda: (moved_tag(entries, find, where, separator), f"move {find}"),
        "unique": lambda: (without_duplicates(entries, separator), "remove repeated tags"),
    }
    if action not in makes:
        raise HTTPException(422, f"Field 'action': must be one of {', '.join(makes)}.")
    return makes[action]()


def _head(dataset: ImageSet) -> dict[str, Any]:
    return {"id": dataset.id, "name": dataset.name}
