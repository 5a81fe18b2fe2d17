"""Queue and history in the browser: a job that fails, one behind it that does not, and all of them after a sudden end of the webui."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e import client, pictures
from tests.e2e.server import Server
from tests.e2e.tab import LOAD_MS, RUN_MS, Tab

pytestmark = pytest.mark.e2e


@pytest.mark.case(42)
def test_one_fails_the_next_is_done_and_a_restart_remembers(tab: Tab, server: Server, photos: Path, tmp_path: Path) -> None:
    _queue_four(tab, server, photos, tmp_path)
    tab.shot("11-queue")
    tab.page.once("dialog", lambda box: box.accept())
    tab.page.locator("#train_lora_stop").click()
    for name, word in {"foremost": "Stopped", "doomed": "Failed", "second": "Done"}.items():
        _wait_for(tab, name, word)
    assert "does not exist or is not a folder" in tab.row("doomed").inner_text()
    _wait_for(tab, "mine", "Running")
    tab.page.locator("#train_lora_progress b", has_text="mine").wait_for()  # the list may be newer than the panel
    tab.wait_for_step(5)
    before = _states(server)
    assert before == {"mine": "running", "second": "finished", "doomed": "failed", "foremost": "stopped"}
    assert client.lists(server, "second")
    server.stop()  # killed in the middle of a step
    server.log.unlink()
    server.start()
    tab.open()
    _wait_for(tab, "mine", "Interrupted")
    assert _states(server) == {**before, "mine": "interrupted"}
    _look_and_repeat(tab, photos)
    _go_on_and_remove(tab, server)


@pytest.mark.case(42)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_webui_that_is_told_to_end_saves_the_state(tab: Tab, server: Server, photos: Path, number: int) -> None:
    """The webui is ended by Ctrl+C or a service while it trains: the training goes on from its last step after a restart."""
    name = f"ended-by-{number}"
    client.break_(server, "slow steps")
    assert server.post("/e2e/queue", {**client.SMALL_RUN, "data": str(photos), "name": name, "steps": 12}) == 0
    running = client.status(server)
    assert running is not None
    client.wait_for_step(server, running["id"], 3)
    assert server.end_by(number) < 10
    assert f"saving the state of {name!r}." in server.log_tail()
    assert not (server.lora_folder / f"{name}.safetensors").exists()
    server.log.unlink()
    server.start()
    tab.open()
    _wait_for(tab, name, "Interrupted")
    _press(tab, name, "Resume")
    _wait_for(tab, name, "Done")
    entry = str(tab.row(name).get_attribute("data-job"))
    gone_on = server.get(f"/train-lora/queue/{entry}")
    assert gone_on["first_step"] >= 3 and gone_on["step"] == 12 and client.lists(server, name)


def _queue_four(tab: Tab, server: Server, photos: Path, folder: Path) -> None:
    """`foremost` runs; `doomed`, whose images go away, `second` and `mine` wait in this order. `foremost` and `mine` have dropped images."""
    tab.drop(sorted(pictures.write_photos(folder / "dropped", ("cat", "rocket")).iterdir()))
    tab.fill(name="foremost", **{**client.SMALL_RUN, "steps": 400})
    tab.wait_for_report("stopped at 400 steps")
    client.break_(server, "slow steps")
    tab.train_and_wait_for_job()
    doomed = pictures.write_photos(folder / "doomed", ("cup",))
    for place, (name, data) in enumerate({"second": photos, "doomed": doomed}.items(), 1):
        assert server.post("/e2e/queue", {**client.SMALL_RUN, "data": str(data), "name": name}) == place
    shutil.rmtree(doomed)
    tab.fill(name="mine", save_state=True, save_every_n_steps=4, steps=12)
    tab.train()
    tab.page.locator("#train_lora_message.prose", has_text="mine is waiting; its place in the queue is 3.").wait_for(
        timeout=LOAD_MS
    )
    up = tab.row("mine").get_by_text("Up", exact=True)
    up.focus()
    tab.page.keyboard.press("Enter")
    _wait_for(tab, "mine", "Waiting, 2")
    assert up.evaluate("button => document.activeElement === button"), "the focus went away with the row"
    _press(tab, "mine", "Down")
    _wait_for(tab, "mine", "Waiting, 3")
    _press(tab, "doomed", "Up")
    _wait_for(tab, "doomed", "Waiting, 1")


def _look_and_repeat(tab: Tab, photos: Path) -> None:
    _press(tab, "mine", "Details")
    details = tab.page.locator("#train_lora_queue .train-lora-details")
    details.filter(has_text="Save every … steps").wait_for(timeout=LOAD_MS)
    assert details.locator("polyline").count() == 1
    tab.page.locator("#train_lora_queue").scroll_into_view_if_needed()
    tab.shot("12-history")
    _press(tab, "second", "Repeat with changes")
    tab.page.wait_for_function(
        "gradioApp().querySelector('#train_lora_name textarea, #train_lora_name input').value === 'second-2'", timeout=LOAD_MS
    )
    assert (tab.value("unet_lr"), tab.value("data")) == ("0.01", str(photos))
    assert "3 of 4 from files" in tab.wait_for_report("stopped at 6 steps"), "the dropped images of before are not in the form"


def _go_on_and_remove(tab: Tab, server: Server) -> None:
    """`mine` goes on from its newest state with its own images, which are removed with it; its LoRA stays."""
    _press(tab, "mine", "Resume")
    _wait_for(tab, "mine", "Done")
    entry = str(tab.row("mine").get_attribute("data-job"))
    job = server.get(f"/train-lora/queue/{entry}")
    assert job["first_step"] >= 4 and job["step"] == 12 and client.lists(server, "mine")
    drop = next(value for _, name, value in job["settings"] if name == "data")
    images = server.data / ".train-lora" / "queue" / entry / drop
    assert sorted(path.name for path in images.iterdir()) == [
        "cat.jp_",
        "cat.txt",
        "rocket.jp_",
        "train-lora-dataset.json",
    ]
    assert requests.get(f"{server.url}/file={images / 'cat.jp_'}", timeout=30).status_code == 403
    _press(tab, "mine", "Remove")
    tab.row("mine").wait_for(state="detached", timeout=LOAD_MS)
    assert not images.parent.exists() and (server.lora_folder / "mine.safetensors").is_file()


def _wait_for(tab: Tab, name: str, word: str) -> None:
    tab.row(name).locator("td:nth-child(2)", has_text=word).wait_for(timeout=RUN_MS)


def _press(tab: Tab, name: str, button: str) -> None:
    tab.row(name).get_by_text(button, exact=True).click(timeout=LOAD_MS)


def _states(server: Server) -> dict[str, Any]:
    jobs = server.get("/train-lora/queue")["jobs"]
    return {job["name"]: job["state"] for job in jobs if job["name"] in {"foremost", "doomed", "second", "mine"}}
