"""Files, states and samples between steps on the webui's model, and the route that serves the samples."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib_lora.config.groups import build_config
from lib_lora.errors import ConfigError
from lib_lora.events import Chosen, Finished, Sampled, SavedBetween, StateSaved, StepDone
from lib_lora.files.lora_file import read
from lib_lora.jobs.job import Job
from lib_lora.jobs.queue_entry import Entry
from lib_lora.model.embeddings import bundled
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config, write_picture
from tests.pins.test_webui_adapter import fingerprint, host, model, webui

__all__ = ["host", "model", "webui"]  # fixtures


def test_a_run_with_everything_in_between_goes_on_bit_for_bit(
    host: Any, webui: SimpleNamespace, model: Any, photos: Path, tmp_path: Path
) -> None:
    before = fingerprint(model)
    flat = {"save_state": True, "save_every_n_steps": 2, "sample_every_n_steps": 2, "sample_prompts": "a --s 1"}
    control, events = RunControl(), []
    for event in train(small_config(photos, tmp_path, steps=4, **flat), host, control):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 3:
            control.request_stop(keep=True)
    work = tmp_path / ".train-lora" / "runs" / "blob"
    assert [e.folder for e in events if isinstance(e, StateSaved)] == [work / "blob-step00000002-state", work / "blob-state"]
    assert [e.path for e in events if isinstance(e, SavedBetween)] == [tmp_path / "Lora" / "blob-step00000002.safetensors"]
    assert [e.paths[0].parent for e in events if isinstance(e, Sampled)] == [work / "samples"]
    assert not list((tmp_path / "Lora").rglob("*state*")) and not list((tmp_path / ".train-lora").rglob("*.safetensors"))
    for name, changes in (("whole", {}), ("part", {"resume": "blob"})):
        last = list(train(small_config(photos, tmp_path, name=name, steps=4, **changes), host, RunControl()))[-1]
        assert isinstance(last, Finished) and last.steps == 4
    whole, part = (read(tmp_path / "Lora" / f"{name}.safetensors")[0] for name in ("whole", "part"))
    assert all(torch.equal(whole[key], part[key]) for key in whole)
    assert fingerprint(model) == before and not webui.call_queue.queue_lock.locked()


def test_an_embedding_is_trained_beside_those_of_the_webui(
    host: Any, webui: SimpleNamespace, model: Any, photos: Path, tmp_path: Path
) -> None:
    """In place, and on no weight of the model's. An embedding of another family is none here."""
    before = fingerprint(model)
    database = webui.sd_hijack.model_hijack.embedding_db
    own = SimpleNamespace(name="blob", vec=torch.randn(3, 64))
    sdxls = SimpleNamespace(name="number", vec={"clip_l": torch.randn(1, 64), "clip_g": torch.randn(1, 64)})
    database.ids_lookup = {1: [([1], own)], 2: [([2], sdxls)]}
    flat = {"embedding_vectors": 2, "embedding_lr": 0.1, "text_encoder_lr": 0, "preview_steps": 1}
    events = list(train(small_config(photos, tmp_path, **flat), host, RunControl()))
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    told = [event.text for event in events if isinstance(event, Chosen)]
    assert "Captions: 'blob' from the webui's embeddings folder are used as embeddings, as in prompts." in told
    (word,) = bundled(read(events[-1].path)[0])
    start = model.cond_stage_model.transformer.text_model.embeddings.token_embedding.weight[47993]  # ohwx
    assert word.name == "ohwx" and bool(((word.vectors[0] - start).abs() > 0.05).any(dim=1).all())
    assert fingerprint(model) == before
    own.name = "Ohwx"
    with pytest.raises(ConfigError, match="'ohwx' is the name of the embedding 'Ohwx'"):
        list(train(small_config(photos, tmp_path, name="b", **flat), host, RunControl()))
    assert fingerprint(model) == before


def test_only_pictures_of_the_current_job_are_shown(
    webui: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    testclient = pytest.importorskip("fastapi.testclient")
    from fastapi import FastAPI

    webui_hooks = importlib.import_module("lib_lora.hosts.webui_hooks")
    app = FastAPI()
    webui_hooks._add_routes(None, app)
    client = testclient.TestClient(app)
    job = Job(build_config({"name": "x"}), torch.device("cpu"))
    job.apply(Sampled(5, (write_picture(tmp_path / "a.png", 512, 256), tmp_path / "gone.png"), ("a", "b")))
    monkeypatch.setattr(webui_hooks.RUNNER, "_job", job)
    answer = client.get(f"/train-lora/sample/{job.id}/5/0")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg" and answer.content[:2] == b"\xff\xd8"
    for path in (f"{job.id}/5/1", f"{job.id}/5/2", f"{job.id}/4/0", "other/5/0"):
        assert client.get(f"/train-lora/sample/{path}").status_code == 404, path
    assert client.get(f"/train-lora/sample/{job.id}/5/-1").status_code == 422
    assert client.get("/train-lora/status").json()["job"]["sampled"] == [[5, 2]]
    app.auth, app.tokens = {"me": "secret"}, {"abc": "me"}
    assert client.get(f"/train-lora/sample/{job.id}/5/0").status_code == 401
    assert client.get(f"/train-lora/sample/{job.id}/5/0", cookies={"access-token": "abc"}).status_code == 200
    assert "lib_lora.hosts.webui_hooks" in sys.modules


def test_the_list_of_jobs_is_told_to_those_who_are_logged_in(webui: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    testclient = pytest.importorskip("fastapi.testclient")
    from fastapi import FastAPI

    from lib_lora.hosts import webui_hooks

    app = FastAPI()
    webui_hooks._add_routes(None, app)
    client = testclient.TestClient(app)
    entry = Entry("abc", {"name": "cat", "rank": 4}, 1.0, "failed", problems=("Gone.",))
    monkeypatch.setattr(webui_hooks.QUEUE, "_entries", (entry,))
    monkeypatch.setattr(webui_hooks.QUEUE, "look_soon", lambda: None)  # it is not on the disk
    listed = client.get("/train-lora/queue").json()
    assert [(job["id"], job["name"], job["problems"]) for job in listed["jobs"]] == [("abc", "cat", ["Gone."])]
    assert listed["revision"] == client.get("/train-lora/status").json()["queue"]
    assert client.get("/train-lora/queue/abc").json()["settings"] == [["Rank", "rank", "4"], ["Name", "name", "cat"]]
    assert client.get("/train-lora/queue/other").status_code == 404
    app.auth, app.tokens = {"me": "secret"}, {"abc": "me"}
    assert [client.get(f"/train-lora/queue{path}").status_code for path in ("", "/abc")] == [401, 401]
    assert client.get("/train-lora/queue", cookies={"access-token": "abc"}).status_code == 200


def test_a_job_is_meant_for_the_checkpoint_that_is_selected(webui: SimpleNamespace, model: Any) -> None:
    from lib_lora.hosts.webui_host import WebuiHost

    checkpoints = WebuiHost()
    name = f"{model.sd_checkpoint_info.name} [abcd1234]"
    assert checkpoints.chosen() == checkpoints.lent() == name
    webui.sd_models.model_data.sd_model = None
    assert checkpoints.lent() == ""
    webui.sd_models.checkpoints_list.clear()
    assert checkpoints.chosen() == ""
