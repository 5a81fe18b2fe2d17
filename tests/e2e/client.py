"""What the tests ask a running webui for, without a browser."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray
from PIL import Image

from tests.e2e.server import Server

ENDED = {"done", "stopped", "failed"}
RUN_S = 180

PROMPT = "a photo of ohwx"

Picture = NDArray[np.uint8]
Fingerprint = dict[str, dict[str, str]]

# small and strong: a run of about a second whose effect can be seen; all of these are fields of the form
SMALL_RUN: dict[str, Any] = {
    "trigger": "ohwx", "resolution": 64, "min_bucket_reso": 64, "steps": 6, "rank": 4, "alpha": 4, "unet_lr": 0.01,
    "text_encoder_lr": 0.01, "preview_steps": 0, "seed": 11,
}  # fmt: skip


def generate(server: Server, prompt: str, **changes: Any) -> Picture:
    """The (first) picture of a seeded txt2img, `[64, 64, 3]`."""
    asked = {
        "prompt": prompt,
        "width": 64,
        "height": 64,
        "steps": 2,
        "seed": 7,
        "sampler_name": "Euler",
        "scheduler": "Automatic",
        **changes,
    }
    content = base64.b64decode(server.post("/sdapi/v1/txt2img", asked)["images"][0])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def status(server: Server) -> dict[str, Any] | None:
    """The job that the tab would show."""
    job: dict[str, Any] | None = server.get("/train-lora/status")["job"]
    return job


def begin(server: Server, photos: Path, name: str, **settings: Any) -> str:
    """Start a run and return its id."""
    started: str = server.post("/e2e/train", {**SMALL_RUN, "data": str(photos), "name": name, **settings})
    return started


def train(server: Server, photos: Path, name: str, **settings: Any) -> dict[str, Any]:
    """Start a run and wait for its end; what the tab would show then."""
    return wait_for_end(server, begin(server, photos, name, **settings))


def wait_for_end(server: Server, job_id: str) -> dict[str, Any]:
    """What the job says when it is over."""
    deadline = time.monotonic() + RUN_S
    while time.monotonic() < deadline:
        job = status(server)
        if job and job["id"] == job_id and job["state"] in ENDED:
            return job
        time.sleep(0.05)
    raise TimeoutError(f"job {job_id} has not ended after {RUN_S} s: {status(server)}")


def wait_for_step(server: Server, job_id: str, step: int) -> None:
    """Until the running job has made `step` steps."""
    deadline = time.monotonic() + RUN_S
    while time.monotonic() < deadline:
        job = status(server)
        assert job and job["id"] == job_id and job["state"] not in ENDED, job
        if job["step"] >= step:
            return
        time.sleep(0.05)
    raise TimeoutError(f"job {job_id} is not at step {step} after {RUN_S} s: {status(server)}")


def wait_for_phase(server: Server, job_id: str, phase: str) -> None:
    """Until the running job says that it is at this."""
    deadline = time.monotonic() + RUN_S
    while time.monotonic() < deadline:
        job = status(server)
        assert job and job["id"] == job_id and job["state"] not in ENDED, job
        if phase in job["phase"]:
            return
        time.sleep(0.05)
    raise TimeoutError(f"job {job_id} is not {phase!r} after {RUN_S} s: {status(server)}")


def end_job(server: Server) -> None:
    """Stop what a failed test may have left running."""
    job = status(server)
    if job and job["state"] not in ENDED:
        server.post("/e2e/stop")
        wait_for_end(server, job["id"])


def break_(server: Server, fault: str) -> None:
    """Make one thing go wrong until the end of the test; see `probe/e2e_probe/faults.py`."""
    server.post(f"/e2e/fault?name={requests.utils.quote(fault)}")


def fingerprint(server: Server) -> Fingerprint:
    """Everything of the host that a training must give back."""
    found: Fingerprint = server.get("/e2e/fingerprint")
    return found


def changes(before: Fingerprint, after: Fingerprint) -> list[str]:
    """Every entry that two fingerprints do not share."""
    return [
        f"{section} {name}: {before[section].get(name)} -> {after[section].get(name)}"
        for section in before
        for name in sorted({*before[section], *after[section]})
        if before[section].get(name) != after[section].get(name)
    ]


def lists(server: Server, name: str) -> bool:
    """Does the webui's Lora extension know `name`? Asked again for a while: a page that refreshes its cards empties the list first."""
    for _ in range(20):
        if name in [entry["name"] for entry in server.get("/sdapi/v1/loras")]:
            return True
        time.sleep(0.25)
    return False


def files_in(folder: Path) -> dict[str, int]:
    """Every file below a folder, hidden ones too, with its time of change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}
