"""A second webui: without gradio's queue, reloaded, with the extension disabled, and with it removed. The tests build on each other."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.e2e import client, traces
from tests.e2e.conftest import run_server
from tests.e2e.server import EXTENSION, Server, Webui, make_data_folder
from tests.e2e.tab import LOAD_MS, RUN_MS, Tab

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.e2e

NAME = "no queue"


@pytest.fixture(scope="module")
def second(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A webui of its own, started with --no-gradio-queue."""
    data = tmp_path_factory.mktemp("second") / "data"
    make_data_folder(data)
    yield from run_server(Server(webui, data, "--no-gradio-queue"))


@pytest.fixture(scope="module")
def pictures_drawn(second: Server, photos: Path) -> dict[str, client.Picture]:
    """Pictures with and without the LoRA, drawn when it was new."""
    if not (second.lora_folder / f"{NAME}.safetensors").is_file():  # the first test was not asked for
        client.train(second, photos, NAME, steps=12)
    return {prompt: client.generate(second, prompt) for prompt in (client.PROMPT, f"{client.PROMPT} <lora:{NAME}:1>")}


def test_training_without_gradio_queue(page: Page, second: Server, photos: Path) -> None:
    """Report, progress and cards come as they do with the queue."""
    tab = Tab(page, second.url)
    tab.open()
    tab.fill(data=photos, name=NAME, **{**client.SMALL_RUN, "steps": 12, "preview_steps": 2})
    tab.wait_for_report("stopped at 12 steps")
    client.break_(second, "slow steps")
    tab.train_and_wait_for_job()
    tab.wait_for_step(2)
    assert "Running" in tab.progress() and "/ 12" in tab.progress()
    tab.wait_for_state("done")
    second.post("/e2e/heal")
    page.locator(f"#txt2img_lora_cards .card[data-name='{NAME}']").wait_for(state="attached")
    tab.shot("9-no-gradio-queue")


@pytest.mark.case(36, 42)
def test_run_survives_reload_of_the_ui(
    page: Page, second: Server, photos: Path, pictures_drawn: dict[str, client.Picture]
) -> None:
    """The button "Reload UI" in the middle of a run: the run goes on, the tab is there once and shows it, and trains again."""
    assert not np.array_equal(*pictures_drawn.values())
    client.break_(second, "slow steps")
    job = client.begin(second, photos, "reloaded", steps=40)
    _reload_ui(second)
    tab = Tab(page, second.url)
    tab.open()
    assert tab.page.locator("#tabs > .tab-nav button", has_text="Train LoRA").count() == 1
    tab.wait_for_state("running")
    assert tab.job() == job
    second.post("/e2e/heal")
    tab.wait_for_state("done")
    tab.fill(data=photos, name="after reload", **client.SMALL_RUN)
    assert tab.train_and_wait_for_job() != job
    tab.wait_for_state("done")


@pytest.mark.case(42)
def test_disabled_during_a_run(page: Page, second: Server, photos: Path, pictures_drawn: dict[str, client.Picture]) -> None:
    """Unticked in the Extensions tab, then Apply: the run saves its state before the webui ends, and goes on when we are back."""
    client.break_(second, "slow steps")
    assert second.post("/e2e/queue", {**client.SMALL_RUN, "data": str(photos), "name": "cut off", "steps": 30}) == 0
    running = client.status(second)
    assert running is not None
    client.wait_for_step(second, running["id"], 3)
    page.goto(second.url, wait_until="domcontentloaded")
    page.locator("#tabs > .tab-nav button", has_text="Extensions").click(timeout=LOAD_MS)
    page.locator(f"#extensions input[name='enable_{EXTENSION}']").uncheck(timeout=LOAD_MS)
    page.locator("#tab_extensions button", has_text="Apply and quit").click()
    assert second.ended() < 10
    page.goto("about:blank")  # the page that pressed it loads itself anew once the webui is back
    assert not (second.lora_folder / "cut off.safetensors").exists()
    _start_again(second)
    _works_without_us(page, second, pictures_drawn)
    assert page.locator("#tabs > .tab-nav button", has_text="Train LoRA").count() == 0
    second.post("/sdapi/v1/options", {"disabled_extensions": []})
    second.stop()
    _start_again(second)
    tab = Tab(page, second.url)
    tab.open()
    row = tab.row("cut off")
    row.locator("td", has_text="Interrupted").wait_for(timeout=LOAD_MS)
    row.get_by_text("Resume", exact=True).click()
    row.locator("td", has_text="Done").wait_for(timeout=RUN_MS)
    gone_on = second.get(f"/train-lora/queue/{row.get_attribute('data-job')}")
    assert gone_on["first_step"] >= 3 and gone_on["step"] == 30 and client.lists(second, "cut off")


@pytest.mark.case(60)
def test_disabled(page: Page, second: Server, pictures_drawn: dict[str, client.Picture]) -> None:
    """The tab is gone; the webui generates, and the LoRA works."""
    second.post("/sdapi/v1/options", {"disabled_extensions": [EXTENSION]})
    _reload_ui(second)
    _works_without_us(page, second, pictures_drawn)
    assert page.locator("#tabs > .tab-nav button", has_text="Train LoRA").count() == 0


@pytest.mark.case(60)
def test_removed(page: Page, second: Server, pictures_drawn: dict[str, client.Picture]) -> None:
    """The folder is deleted and the webui started anew."""
    second.stop()
    shutil.rmtree(second.data / "extensions" / EXTENSION)
    _start_again(second)
    _works_without_us(page, second, pictures_drawn)
    assert page.locator("#tabs > .tab-nav button", has_text="Train LoRA").count() == 0
    assert "Traceback" not in second.log.read_text(errors="replace")


def _works_without_us(page: Page, server: Server, pictures_drawn: dict[str, client.Picture]) -> None:
    page.goto(server.url, wait_until="domcontentloaded")
    page.locator("#txt2img_generate").wait_for(timeout=LOAD_MS)
    page.locator(f"#txt2img_lora_cards .card[data-name='{NAME}']").wait_for(state="attached")
    for prompt, picture in pictures_drawn.items():
        assert np.array_equal(client.generate(server, prompt), picture), prompt


def _start_again(server: Server) -> None:
    server.log.unlink()
    server.start()


def _reload_ui(server: Server) -> None:
    """What the button "Reload UI" does, and the wait for its end."""
    starts = server.starts()
    server.post("/e2e/reload-ui")
    deadline = time.monotonic() + 120
    while server.starts() == starts:
        assert time.monotonic() < deadline, f"the UI does not come back\n{server.log_tail()}"
        time.sleep(0.25)
