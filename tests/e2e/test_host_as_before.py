"""However a run ends, the host is as before: weights, flags, forwards, hooks, settings, lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e import client
from tests.e2e.server import Server
from tests.e2e.tab import Tab

pytestmark = pytest.mark.e2e

ENDLESS = {**client.SMALL_RUN, "steps": 5000, "preview_steps": 2}


def test_fingerprint_sees_everything(server: Server, lora: str) -> None:
    """It is no constant: a LoRA in the prompt changes weights, and only weights of layers that the LoRA has."""
    client.generate(server, client.PROMPT)
    before = client.fingerprint(server)
    client.generate(server, f"{client.PROMPT} <lora:{lora}:1>")
    changed = client.changes(before, client.fingerprint(server))
    weights = [change for change in changed if change.startswith("tensors ")]
    state = load_file(server.lora_folder / f"{lora}.safetensors")
    layers = [
        key for key, up in state.items() if key.endswith("lora_up.weight") and bool(up.any())
    ]  # one that learned nothing adds 0
    assert len(weights) == len(layers) > 100
    assert {"tensors", "modules", "classes", "program"} == set(before) and len(before["tensors"]) > 900


@pytest.mark.case(43)
def test_done(server: Server, pristine: client.Fingerprint, photos: Path) -> None:
    before, _, _ = _before(server)
    assert client.changes(pristine, before) == [], "an earlier test left something behind"
    assert client.train(server, photos, "done", preview_steps=2)["state"] == "done"
    assert client.changes(before, client.fingerprint(server)) == []


@pytest.mark.case(35, 43)
def test_stop(tab: Tab, server: Server, photos: Path) -> None:
    """Stop keeps nothing."""
    before, files, picture = _before(server)
    tab.fill(data=photos, name="stopped", **ENDLESS)
    tab.train_and_wait_for_job()
    tab.wait_for_step(3)
    tab.page.once("dialog", lambda box: box.accept())
    tab.page.locator("#train_lora_stop").click()
    tab.wait_for_state("stopped")
    assert "nothing was saved" in tab.progress()
    assert tab.page.locator("#train_lora_test").count() == 0
    assert client.changes(before, client.fingerprint(server)) == []
    assert client.files_in(server.lora_folder) == files
    assert np.array_equal(client.generate(server, client.PROMPT), picture)


@pytest.mark.case(35)
def test_stop_and_keep(tab: Tab, server: Server, photos: Path) -> None:
    """The LoRA as it was at that step is saved and works."""
    before, files, picture = _before(server)
    tab.fill(data=photos, name="kept", **ENDLESS)
    tab.train_and_wait_for_job()
    tab.wait_for_step(8)
    tab.page.locator("#train_lora_keep").click()
    tab.wait_for_state("done")
    tab.shot("5-stopped-and-kept")
    assert client.changes(before, client.fingerprint(server)) == []
    assert set(client.files_in(server.lora_folder)) - set(files) == {"kept.safetensors", "kept.json", "kept.png"}
    assert np.array_equal(client.generate(server, client.PROMPT), picture)
    assert not np.array_equal(client.generate(server, f"{client.PROMPT} <lora:kept:1>"), picture)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("failing step", "this step fails"),
        ("full disk", "No space left on device"),
        ("unloadable file", "e2e: cannot be loaded"),
    ],
)
def test_failure(server: Server, photos: Path, fault: str, sentence: str) -> None:
    """One sentence, no LoRA, nothing changed, and the next prompt works; what cannot be loaded is kept beside."""
    before, files, picture = _before(server)
    client.break_(server, fault)
    job = _fails(server, photos, fault, "failed")
    assert job["state"] == "failed" and job["saved"] is None, job
    assert len(job["problems"]) == 1 and sentence in job["problems"][0], job["problems"]
    assert "\n" not in job["problems"][0]
    assert client.changes(before, client.fingerprint(server)) == []
    _only_rescued(server, set(files), "failed", fault)
    assert np.array_equal(client.generate(server, client.PROMPT), picture)


def _fails(server: Server, photos: Path, fault: str, name: str, **settings: Any) -> dict[str, Any]:
    """The end of a run that cannot be saved. On a full disk it stands until somebody stops it."""
    job = client.begin(server, photos, name, **settings)
    if fault == "full disk":
        client.wait_for_phase(server, job, "waiting for space on the disk")
        server.post("/e2e/stop")
    return client.wait_for_end(server, job)


def _only_rescued(server: Server, files: set[str], name: str, fault: str) -> None:
    """The files of before; beside them the LoRA that cannot be loaded, under a name that is no LoRA's. It is removed here."""
    rescued = {f"{name}.safetensors.rescued"} if fault == "unloadable file" else set()
    assert set(client.files_in(server.lora_folder)) == files | rescued
    for kept in rescued:
        (server.lora_folder / kept).unlink()


def test_failed_overwrite_keeps_the_old_file(server: Server, photos: Path) -> None:
    client.train(server, photos, "precious")
    before = (server.lora_folder / "precious.safetensors").read_bytes()
    files = set(client.files_in(server.lora_folder))
    for fault in ("full disk", "unloadable file"):
        client.break_(server, fault)
        assert _fails(server, photos, fault, "precious", overwrite=True, seed=99)["state"] == "failed"
        server.post("/e2e/heal")
        assert (server.lora_folder / "precious.safetensors").read_bytes() == before
        _only_rescued(server, files, "precious", fault)


def test_lora_of_the_last_prompt_is_taken_off(server: Server, photos: Path, lora: str) -> None:
    """Training sees the checkpoint, whatever the last prompt hung on it."""
    client.generate(server, client.PROMPT)
    client.train(server, photos, "clean host")
    with_lora = client.generate(server, f"{client.PROMPT} <lora:{lora}:1>")
    client.train(server, photos, "used host")
    clean, used = (load_file(server.lora_folder / f"{name}.safetensors") for name in ("clean host", "used host"))
    assert clean.keys() == used.keys()
    assert [key for key in clean if not np.array_equal(clean[key], used[key])] == []
    assert np.array_equal(client.generate(server, f"{client.PROMPT} <lora:{lora}:1>"), with_lora)


def _before(server: Server) -> tuple[client.Fingerprint, dict[str, int], client.Picture]:
    picture = client.generate(server, client.PROMPT)
    return client.fingerprint(server), client.files_in(server.lora_folder), picture
