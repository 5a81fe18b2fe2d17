"""What the extension registers with the webui: the tab, the route that the tab polls, and the one of its sample pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from modules import paths, script_callbacks

from lib_lora.hosts.webui_host import WebuiHost
from lib_lora.hosts.webui_jobs import WebuiCheckpoints, add_queue_routes
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_store import Store
from lib_lora.jobs.runner import Runner
from lib_lora.output.samples import thumbnail
from lib_lora.ui.tab import TrainTab

# survives "Reload UI", which runs scripts again but keeps this package
RUNNER = Runner(WebuiHost())
RELOAD_WAIT_S = 20.0
PRIVATE_FOLDER = Path(paths.data_path) / ".train-lora"
UPLOADS = PRIVATE_FOLDER / "uploads"
QUEUE = Queue(RUNNER, Store(PRIVATE_FOLDER / "queue", UPLOADS), WebuiCheckpoints())


def register() -> None:
    """Called once per start or reload of the UI, while the webui loads its scripts."""
    script_callbacks.on_ui_tabs(_tab)
    script_callbacks.on_app_started(_add_routes)
    script_callbacks.on_before_reload(_hold_still)
    RUNNER.resume()


def _hold_still() -> None:
    """While the UI reloads, the webui's Lora extension takes its patches of torch's layers off and puts them on again."""
    RUNNER.pause(RELOAD_WAIT_S)


def _tab() -> list[tuple[Any, str, str]]:
    return [(TrainTab(QUEUE, UPLOADS).build(), "Train LoRA", "train_lora")]


def _add_routes(_demo: Any, app: FastAPI) -> None:
    async def status(request: Request, since: int = 0) -> dict[str, Any]:
        _require_login(app, request)
        job = RUNNER.job
        return {"job": job.snapshot(since) if job else None, "queue": QUEUE.revision}

    async def sample(request: Request, job: str, step: int, place: int) -> Response:
        """A small picture of the samples that the current job lists, and of nothing else."""
        _require_login(app, request)
        current = RUNNER.job
        path = current.sample(step, place) if current and current.id == job else None
        if path is None or not path.is_file():
            raise HTTPException(404, "No such sample")
        return Response(thumbnail(path), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    app.add_api_route("/train-lora/status", status, methods=["GET"])
    app.add_api_route("/train-lora/sample/{job}/{step}/{place}", sample, methods=["GET"], response_class=Response)
    add_queue_routes(app, QUEUE, _require_login)


def _require_login(app: Any, request: Request) -> None:
    """Where people log in (--gradio-auth), only they see the progress; gradio itself guards its own routes alone."""
    if getattr(app, "auth", None) is None:
        return
    tokens = getattr(app, "tokens", {})
    if not any(request.cookies.get(name) in tokens for name in ("access-token", "access-token-unsecure")):
        raise HTTPException(401, "Not authenticated")
