"""Cases 60, 62, 63 on ldm's classes: requests of strangers, and a webui that lacks a part; the model is as before, and trains."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib_lora.events import Finished
from tests.house import House
from tests.pins.webui_double import forget_rooms

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_lora.py"
HOME = "http://127.0.0.1:7860"


@pytest.fixture
def afresh(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """The house, with our webui modules imported anew."""
    forget_rooms(monkeypatch)
    return house


@pytest.mark.case(62, 63)
@pytest.mark.parametrize("gradio_login", [False, True])
@pytest.mark.parametrize("api_login", [False, True])
def test_requests_of_strangers(
    gradio_login: bool, api_login: bool, afresh: House, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every route of ours without credentials, with --gradio-auth, --api-auth, both and none; from another machine, another page, as text/plain: refused, no job is made, and a training runs as before."""
    from modules import shared  # type: ignore[import-not-found]  # the double

    if api_login:
        monkeypatch.setattr(shared.cmd_opts, "api_auth", "bot:word", raising=False)
    hooks = importlib.import_module("lib_lora.hosts.webui_hooks")
    app: Any = FastAPI()
    app.auth, app.tokens = ({"me": "secret"} if gradio_login else None), {"session": "me"}
    hooks._add_routes(None, app)
    ours = [(method, route.path) for route in app.routes if route.path.startswith("/train-lora") for method in route.methods]
    assert len(ours) > 4
    login = gradio_login or api_login
    known = TestClient(app, base_url=HOME, cookies={"access-token-unsecure": "session"} if gradio_login else {})
    known.auth = ("bot", "word") if api_login and not gradio_login else None
    stranger = TestClient(app, base_url=HOME)  # its requests come from "testclient", which is no loopback
    for method, path in ours:
        url = path.format(job="x", step=1, place=1, entry="x")
        answer = stranger.request(method, url).status_code
        assert answer == (401 if login else 403 if method == "POST" else 200 if "{" not in path else 404), (method, path, answer)
        for other in {"GET", "POST", "PUT", "DELETE"} - {wanted for wanted, same in ours if same == path}:
            assert known.request(other, url).status_code == 405
        if method == "POST":
            for headers in (
                {"origin": "https://other.example"},
                {"sec-fetch-site": "cross-site"},
                {"host": "other.example", "origin": "http://other.example:1"},
            ):
                assert known.post(url, content='{"x": 1}', headers={"content-type": "text/plain", **headers}).status_code == 403
            assert known.post(url).status_code == (200 if login else 403)
    assert hooks.QUEUE.entries == () and hooks.RUNNER.job is None
    assert afresh.run(quick(steps=1)).of(Finished)


@pytest.mark.case(60)
@pytest.mark.parametrize("lacks", ["sd_unet", "call_queue", "script_callbacks"])
def test_a_part_is_missing(lacks: str, afresh: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script is run in a webui that lacks one of its parts: no exception, the model is as it was, and trains once the part is there."""
    with monkeypatch.context() as patch:
        patch.delattr(sys.modules["modules"], lacks)
        patch.delitem(sys.modules, f"modules.{lacks}")
        if lacks == "script_callbacks":  # without it there is no tab to say so
            with pytest.raises(ImportError):
                runpy.run_path(str(SCRIPT))
        else:
            runpy.run_path(str(SCRIPT))
        assert "lib_lora.hosts.webui_hooks" not in sys.modules, "it does without the part"
    assert afresh.run(quick(steps=1)).of(Finished)
