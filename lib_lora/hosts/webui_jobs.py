"""The queue in the webui: which checkpoint a job is for, and the routes that the tab reads the list from."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Request
from modules import sd_models

from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_listing import details, listing
from lib_lora.jobs.queue_store import QueueError
from lib_lora.ui.guard import Guard


class WebuiCheckpoints:
    """See `Checkpoints`. Name and the webui's short hash, so that a file that was exchanged is another checkpoint."""

    def chosen(self) -> str:
        return _text(sd_models.select_checkpoint()) if sd_models.checkpoints_list else ""

    def lent(self) -> str:
        model = sd_models.model_data.sd_model
        return "" if model is None else _text(model.sd_checkpoint_info)


def _text(info: Any) -> str:
    return f"{info.name} [{info.hash}]"


def add_queue_routes(app: FastAPI, queue: Queue, guard: Guard) -> None:
    """`GET train-lora/queue` and `GET train-lora/queue/ID`; neither waits for anything."""

    async def jobs(request: Request) -> dict[str, Any]:
        guard.look(app, request)
        return listing(queue)

    async def job(request: Request, entry: str) -> dict[str, Any]:
        guard.look(app, request)
        try:
            return details(queue.entry(entry))
        except QueueError as error:
            raise HTTPException(404, str(error)) from error

    app.add_api_route("/train-lora/queue", jobs, methods=["GET"])
    app.add_api_route("/train-lora/queue/{entry}", job, methods=["GET"])
