"""The extension's own routes. Each asks the guard before it reads its request, and answers errors with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_listing import details, job_json, listing, page_json
from lib_lora.jobs.queue_store import QueueError
from lib_lora.languages.spoken import said, said_in
from lib_lora.output.samples import THUMBNAIL_PX, thumbnail
from lib_lora.ui.answering import problems_of
from lib_lora.ui.guard import Guard

Answer = Callable[[Request], Any]
MAX_DIGITS = 9
LARGE_PX = 2048  # of an enlarged sample


def add_routes(app: FastAPI, queue: Queue, guard: Guard) -> None:
    """Add `POST train-lora/key` and GET routes for job, samples and queue. None blocks, and no GET changes anything."""
    runner = queue.runner

    def key(_request: Request) -> Any:
        """The key for the tab's events, for pages that may change something."""
        return {"key": guard.key}

    def status(request: Request) -> Any:
        """The job with its losses from step `since` on; with `stride`, its curve from bucket `from` on instead (see `Curve`)."""
        since, stride, place = (_number(request.query_params.get(name, "0")) for name in ("since", "stride", "from"))
        queue.look_soon()
        job = runner.job
        told = job and (page_json(job, stride, place) if "stride" in request.query_params else job_json(job, since))
        return {"job": told, "queue": queue.revision}

    def sample(request: Request) -> Any:
        """A sample that the current job lists, and of nothing else: a thumbnail, or with `whole` all of it."""
        step, place = (_number(request.path_params[name]) for name in ("step", "place"))
        current = runner.job
        path = current.sample(step, place) if current and current.id == request.path_params["job"] else None
        if path is None or not path.is_file():
            raise HTTPException(404, "No such sample")
        picture = thumbnail(path, LARGE_PX if "whole" in request.query_params else THUMBNAIL_PX)
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    def jobs(_request: Request) -> Any:
        return listing(queue)

    def job(request: Request) -> Any:
        try:
            return details(queue.entry(request.path_params["entry"]))
        except QueueError as error:
            raise HTTPException(404, str(error)) from error

    _add(app, guard, "/train-lora/key", key, changes=True)
    _add(app, guard, "/train-lora/status", status)
    _add(app, guard, "/train-lora/sample/{job}/{step}/{place}", sample)
    _add(app, guard, "/train-lora/queue", jobs)
    _add(app, guard, "/train-lora/queue/{entry}", job)


def _add(app: FastAPI, guard: Guard, path: str, answer: Answer, *, changes: bool = False) -> None:
    """Add a guarded route: a GET, or with `changes` a POST."""

    async def guarded(request: Request) -> Response:
        try:
            (guard.change if changes else guard.look)(app, request)
            found = answer(request)
            return found if isinstance(found, Response) else JSONResponse(jsonable_encoder(said_in(found)))
        except HTTPException as refused:  # answered here: the webui's own answer to an exception leaves the headers out
            return JSONResponse({"detail": said(refused.detail)}, refused.status_code, refused.headers)
        except Exception as error:  # noqa: BLE001 - an error of any kind is told
            return JSONResponse({"detail": " ".join(map(said, problems_of(error)))}, 503 if isinstance(error, OSError) else 500)

    app.add_api_route(path, guarded, methods=["POST" if changes else "GET"], response_class=Response)


def _number(text: str) -> int:
    """A whole number in a request.

    Raises:
        HTTPException: 422.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise HTTPException(422, f"Not a whole number of at most {MAX_DIGITS} digits")
    return int(text)
