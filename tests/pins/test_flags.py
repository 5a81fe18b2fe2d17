"""The webui's flags: who may use our routes, what the form shows, and which device is used."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.pins.webui_double import install


@pytest.mark.case(62, 63)
def test_routes_ask_the_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every route of ours: 401 without credentials, foreign pages and text/plain bodies refused, and looking changes nothing."""
    flags = {"api_auth": "bot:one,other:two", "cors_allow_origins": "https://friend.example", "hide_ui_dir_config": True}
    install(monkeypatch, SimpleNamespace(), tmp_path, **flags)
    webui_hooks = importlib.import_module("lib_lora.hosts.webui_hooks")  # made anew for these flags
    app = FastAPI()
    webui_hooks._add_routes(None, app)
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    ours = {(method, route.path) for route in app.routes if route.path.startswith("/train-lora") for method in route.methods}
    asked = {("POST", "/train-lora/key"), ("GET", "/train-lora/status"), ("GET", "/train-lora/sample/{job}/{step}/{place}")}
    asked |= {("GET", "/train-lora/queue"), ("GET", "/train-lora/queue/{entry}")}
    assert ours == asked, "a new route belongs here"
    for method, path in asked:
        assert client.request(method, path.format(job="x", step=1, place=1, entry="x")).status_code == 401, path
    for user, status in ((("bot", "one"), 200), (("other", "two"), 200), (("bot", "two"), 401)):
        assert client.get("/train-lora/status", auth=user).status_code == status
    assert client.post("/train-lora/key", auth=("bot", "one")).json() == {"key": webui_hooks.GUARD.key}
    for origin, status in (("https://friend.example", 200), ("https://other.example", 403)):
        assert client.post("/train-lora/key", auth=("bot", "one"), headers={"origin": origin}).status_code == status
    plain = {"content": '{"key": 1}', "headers": {"content-type": "text/plain", "origin": "https://other.example"}}
    assert client.post("/train-lora/key", auth=("bot", "one"), **plain).status_code == 403
    assert client.get("/train-lora/key", auth=("bot", "one")).status_code == 405
    before = sorted(tmp_path.rglob("*"))
    for method, path in asked:  # looking changes nothing
        client.request(method, path.format(job="x", step=1, place=1, entry="x"), auth=("bot", "one"))
    assert sorted(tmp_path.rglob("*")) == before and webui_hooks.QUEUE.entries == () and webui_hooks.RUNNER.job is None
    ((blocks, _, _),) = webui_hooks._tab()
    parts = {part["props"].get("elem_id"): part["props"] for part in blocks.get_config_file()["components"]}
    assert not parts["train_lora_data"]["visible"] and parts["train_lora_name"]["visible"]


def test_the_page_is_the_host_s_that_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another webui's host has its jobs, folders and checkpoints, and nothing of A1111's host is asked."""
    install(monkeypatch, SimpleNamespace(), tmp_path)
    detection = importlib.import_module("lib_lora.hosts.webui_detection")
    other = SimpleNamespace(
        private_folder=lambda: tmp_path / "other" / ".train-lora",
        chosen=lambda: "a checkpoint of its own",
        lent=lambda: "",
        device=lambda: torch.device("cpu"),
        problems=list,
        detected_model=lambda: None,
        lora_folder=lambda: tmp_path / "other" / "Lora",
        work_folder=lambda: tmp_path / "other" / ".train-lora" / "runs",
    )
    monkeypatch.setattr(detection, "host_of_this_webui", lambda: other)
    monkeypatch.setattr(detection.WebuiHost, "__init__", None)  # nobody makes one
    webui_hooks = importlib.import_module("lib_lora.hosts.webui_hooks")
    assert webui_hooks.RUNNER.host is other and tmp_path / "other" / ".train-lora" / "uploads" == webui_hooks.UPLOADS
    assert webui_hooks.QUEUE._checkpoints is other
    ((blocks, title, _),) = webui_hooks._tab()
    assert title == "Train LoRA" and "train_lora_name" in str(blocks.get_config_file())


def test_without_login_the_key_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, status in (({}, 403), ({"enable_insecure_extension_access": True}, 200)):
        install(monkeypatch, SimpleNamespace(), tmp_path, **flags)
        webui_hooks = importlib.import_module("lib_lora.hosts.webui_hooks")  # made anew for these flags
        app = FastAPI()
        webui_hooks._add_routes(None, app)
        client = TestClient(app, base_url="http://127.0.0.1:7860")  # its requests come from "testclient"
        assert client.post("/train-lora/key").status_code == status
        assert client.get("/train-lora/status").json()["job"] is None


def test_the_run_s_thread_uses_the_device_of_the_webui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--device-id: a new thread starts on device 0."""
    webui = install(monkeypatch, SimpleNamespace(), tmp_path)
    webui.devices.device = torch.device("cuda:1")
    chosen = []

    def choose(device: torch.device) -> None:
        chosen.append(device)
        raise RuntimeError("far enough")

    monkeypatch.setattr(torch.cuda, "set_device", choose)
    from lib_lora.hosts.webui_host import WebuiHost

    with pytest.raises(RuntimeError, match="far enough"), WebuiHost().borrow_model():
        pass
    assert chosen == [torch.device("cuda:1")] and not webui.call_queue.queue_lock.locked() and webui.shared.state.ended == 1


def test_a_webui_without_a_device_id_names_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its device is "cuda" then, which torch's own reading of an index refuses; the thread is on the first one as it is."""
    webui = install(monkeypatch, SimpleNamespace(), tmp_path)
    webui.devices.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "set_device", torch.cuda._utils._get_device_index)
    with pytest.raises(ValueError, match="specified index"):
        torch.cuda.set_device(webui.devices.device)
    webui_host = importlib.import_module("lib_lora.hosts.webui_host")  # made anew for this double

    with webui.call_queue.queue_lock, ExitStack() as stack:
        webui_host._begin(stack)
    assert webui.shared.state.ended == 1


def test_loras_go_to_the_folder_that_the_webui_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--lora-dir, and the data folder of --data-dir for what is ours."""
    webui = install(monkeypatch, SimpleNamespace(), tmp_path)
    webui.shared.cmd_opts.lora_dir = str(tmp_path / "elsewhere")
    webui.paths.data_path = str(tmp_path / "data")
    from lib_lora.hosts.webui_host import WebuiHost

    assert WebuiHost().lora_folder() == tmp_path / "elsewhere"
    assert WebuiHost().work_folder() == tmp_path / "data" / ".train-lora" / "runs"
