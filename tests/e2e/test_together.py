"""Train pressed by two at the same moment, and twice by one: exactly one runs at a time, and nothing is lost or done twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import client
from tests.e2e.events import Events, ask_key
from tests.e2e.server import Server
from tests.e2e.tab import Tab

pytestmark = [pytest.mark.e2e, pytest.mark.case(39)]

QUICK: dict[str, Any] = {**client.SMALL_RUN, "steps": 2, "train_layers": "cross-attention", "text_encoder_lr": 0, "rank": 1}


def jobs(server: Server, start: str) -> list[tuple[str, str]]:
    """Name and state of every job whose name begins so."""
    return [(job["name"], job["state"]) for job in server.get("/train-lora/queue")["jobs"] if job["name"].startswith(start)]


# milliseconds between two clicks: of a double click, or of two while the key is fetched, or while the answer is out
DOUBLE, ON_ITS_WAY, UNANSWERED = (0, 100, 300), 700, 1700


@pytest.mark.parametrize("between_ms", [*DOUBLE, ON_ITS_WAY, UNANSWERED])
def test_pressed_twice(tab: Tab, server: Server, photos: Path, between_ms: int) -> None:
    """A double click on Train, fast or slow, and a second click before the first is answered: one job begins, and no word of another."""
    name = f"double {between_ms}"
    tab.fill(data=photos, name=name, overwrite=True, **{**client.SMALL_RUN, "steps": 40})
    tab.wait_for_report("stopped at 40 steps")
    client.break_(server, "slow steps")
    if between_ms == UNANSWERED:
        client.break_(server, "slow start")
    if between_ms == ON_ITS_WAY:
        tab.page.route("**/train-lora/key", lambda route: (time.sleep(1.5), route.continue_()))
    before = tab.job()
    click_twice(tab, between_ms)
    tab.page.unroute("**/train-lora/key")
    tab.page.wait_for_function("before => gradioApp().querySelector('#train_lora_progress').dataset.job !== before", arg=before)
    tab.wait_for_step(1)
    tab.page.wait_for_timeout(1500)
    assert jobs(server, name) == [(name, "running")]
    assert tab.page.locator("#train_lora_message.prose").inner_text().strip() == ""


def click_twice(tab: Tab, between_ms: int) -> None:
    """As a person with a mouse does; a browser counts the clicks of a double click."""
    tab.wait_until_quiet()  # the account of memory comes last, and moves the buttons
    tab.page.locator("#train_lora_train").scroll_into_view_if_needed()
    box = tab.page.locator("#train_lora_train").bounding_box()
    assert box is not None
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for number in (1, 2):
        tab.page.mouse.down(click_count=number if between_ms in DOUBLE else 1)
        tab.page.mouse.up(click_count=number if between_ms in DOUBLE else 1)
        tab.page.wait_for_timeout(between_ms)


def test_remove_pressed_twice(tab: Tab, server: Server, photos: Path) -> None:
    """A double click on Remove in the list of jobs: the job is gone, and the one that then stands there is not."""
    client.break_(server, "slow steps")
    for name in ("ahead", "away", "stays"):
        server.post("/e2e/queue", {**QUICK, "data": str(photos), "name": name, "overwrite": True, "steps": 60})
    tab.row("away").get_by_text("Remove", exact=True).dblclick()
    tab.row("away").wait_for(state="detached")
    assert "not exist any more" not in tab.page.locator("#train_lora_message.prose").inner_text()
    assert tab.row("stays").count() == 1
    tab.row("stays").get_by_text("Remove", exact=True).click()
    tab.row("stays").wait_for(state="detached")


def test_races(server: Server, photos: Path, long: bool, figure: Callable[[str], None]) -> None:
    """Two people press Train at the same moment, again and again: one runs, the other waits and runs next, and both LoRAs are there."""
    pages, count = [Events(server.url), Events(server.url)], 50 if long else 5
    most, watched = watch(server)
    try:
        for number in range(count):
            answers = at_once(pages, [{"data": str(photos), "name": f"race {number} {who}", **QUICK} for who in "ab"])
            told = [" ".join(str(answer["data"][0]).split()) for answer in answers]
            begun, waits = sorted(told, key=lambda text: "is waiting" in text)
            assert "data-job" in begun and "its place in the queue is 1." in waits, told
            wait_until_over(server, f"race {number} ", 2)
    finally:
        watched.set()
    assert most == {"running": 1}, "two ran at once"
    names = {f"race {number} {who}" for number in range(count) for who in "ab"}
    assert {name for name in names if not (server.lora_folder / f"{name}.safetensors").is_file()} == set()
    figure(f"{count} races, {len(names)} LoRAs")


def test_races_for_one_name(server: Server, photos: Path, long: bool, figure: Callable[[str], None]) -> None:
    """Two people press Train at the same moment with the same name: one trains, the other is told in a sentence, and no second job is there."""
    pages, count = [Events(server.url), Events(server.url)], 50 if long else 3
    for number in range(count):
        asked = {"data": str(photos), "name": f"same {number}", **QUICK}
        told = [str(answer["data"][0]) for answer in at_once(pages, [asked, asked])]
        begun, refused = sorted(told, key=lambda text: "is the name of a job that runs or waits" in text)
        assert "data-job" in begun and "is the name of a job that runs or waits; use" in refused, told
        wait_until_over(server, f"same {number}", 1)
    figure(f"{count} races")


def at_once(pages: list[Events], asked: list[dict[str, Any]]) -> list[Any]:
    """Press Train on all pages in the same moment; the answers."""
    together = threading.Barrier(len(pages))
    keys = [ask_key(page.url).json()["key"] for page in pages]

    def press(page: Events, values: dict[str, Any], key: str) -> Any:
        inputs = page.inputs("train_lora_train", key=key, **values)
        together.wait()
        return page.call("train_lora_train", inputs)

    with ThreadPoolExecutor(len(pages)) as pool:
        return list(pool.map(press, pages, asked, keys))


def wait_until_over(server: Server, start: str, count: int) -> None:
    """Until all jobs whose names begin so are done, which are so many."""
    deadline = time.monotonic() + client.RUN_S
    while [state for _, state in jobs(server, start)] != ["finished"] * count:
        assert time.monotonic() < deadline, jobs(server, start)
        time.sleep(0.05)


def watch(server: Server) -> tuple[dict[str, int], threading.Event]:
    """The most jobs that the list ever shows as running, kept up to date until the event is set."""
    most, over = {"running": 0}, threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            found = [state for _, state in jobs(server, "race ")]
            most["running"] = max(most["running"], found.count("running"))

    threading.Thread(target=look, daemon=True).start()
    return most, over
