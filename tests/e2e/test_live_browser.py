"""What a person does with the webui's own page while a training runs: another checkpoint, its unloading, and any number of pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e import client, traces
from tests.e2e.conftest import run_server
from tests.e2e.server import Server, Webui
from tests.e2e.tab import LOAD_MS, Tab
from tests.e2e.two_checkpoints import OTHER, OURS, house_as_before, make_folder, select

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.e2e

RUN: dict[str, Any] = {**client.SMALL_RUN, "steps": 40}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def live(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A webui of its own, with a second checkpoint."""
    data = tmp_path_factory.mktemp("browser") / "data"
    make_folder(data)
    for server in run_server(Server(webui, data)):
        client.generate(server, client.PROMPT)  # the first load, of the first in the list, sets the selected checkpoint
        select(server, sd_model_checkpoint=OURS)
        yield server


@pytest.fixture
def house(live: Server) -> Iterator[None]:
    yield from house_as_before(live)


@pytest.fixture
def server(live: Server, house: None) -> Server:
    return live


@pytest.fixture(scope="module")
def undisturbed(live: Server, photos: Path) -> dict[str, np.ndarray]:
    """The LoRA of the same settings, trained while nobody did anything."""
    assert client.train(live, photos, "alone", **RUN)["state"] == "done"
    return load_file(live.lora_folder / "alone.safetensors")


def begin(tab: Tab, server: Server, photos: Path, name: str) -> str:
    """Train in the tab, with steps slow enough to do something in between; returns after the second."""
    tab.open()
    tab.fill(data=photos, name=name, **RUN)
    client.break_(server, "slow steps")
    job = tab.train_and_wait_for_job()
    tab.wait_for_step(2)
    return job


def choose_checkpoint(page: Page, name: str) -> None:
    """In the webui's own list, at the top of every page."""
    page.locator("#setting_sd_model_checkpoint input").click()
    page.locator("#setting_sd_model_checkpoint ul.options li", has_text=name).click()


@pytest.mark.case(37)
def test_a_person_selects_another_checkpoint(
    page: Page, server: Server, photos: Path, undisturbed: dict[str, np.ndarray]
) -> None:
    """The tab says what it waits for; selected back, the training goes on to the same LoRA."""
    tab = Tab(page, server.url)
    begin(tab, server, photos, "switched")
    choose_checkpoint(page, OTHER)
    page.locator("#train_lora_progress .train-lora-phase", has_text="was selected").wait_for(timeout=LOAD_MS)
    assert OTHER in tab.progress() and OURS in tab.progress()
    tab.shot("14-another-checkpoint")
    choose_checkpoint(page, OURS)
    tab.wait_for_state("running")
    server.post("/e2e/heal")
    tab.wait_for_state("done")
    assert_same(server, "switched", undisturbed)


@pytest.mark.case(38)
def test_a_person_unloads_the_checkpoint(page: Page, server: Server, photos: Path, undisturbed: dict[str, np.ndarray]) -> None:
    """By the buttons of Settings, Actions. They answer at once; on a CPU the model is where it was, so nothing else happens."""
    tab = Tab(page, server.url)
    begin(tab, server, photos, "unloaded")
    page.locator("#tabs > .tab-nav button", has_text="Settings").click()
    page.locator("#settings button", has_text="Actions").first.click()
    for button, answer in (
        ("sett_unload_sd_model", "Unloaded the checkpoint"),
        ("sett_reload_sd_model", "Loaded the checkpoint"),
    ):
        page.locator(f"#{button}").click()
        page.locator("#settings_result.prose", has_text=answer).wait_for(timeout=LOAD_MS)
    page.locator("#tabs > .tab-nav button", has_text="Train LoRA").click()
    server.post("/e2e/heal")
    tab.wait_for_state("done")
    assert_same(server, "unloaded", undisturbed)


@pytest.mark.case(36)
def test_any_number_of_pages_show_the_one_run(
    browser: Browser, server: Server, photos: Path, undisturbed: dict[str, np.ndarray]
) -> None:
    """Reloaded, opened in another browser at a phone's width, closed: the run is unaffected, and there is one."""
    first, phone = (browser.new_context(viewport=size) for size in ({"width": 1366, "height": 1000}, PHONE))  # type: ignore[arg-type]
    desk, hand = Tab(first.new_page(), server.url), Tab(phone.new_page(), server.url)
    job = begin(desk, server, photos, "seen by two")
    desk.page.reload(wait_until="domcontentloaded")
    desk.open()
    hand.open()
    for tab in (desk, hand):
        tab.wait_for_step(4)
        assert tab.job() == job and "seen by two Running" in tab.progress()
        assert min(tab.curve_points()) >= 4, "the curve begins with the first step"
    assert abs(_step(desk) - _step(hand)) <= 4, "both are at the same step, give or take a second"
    assert hand.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], "nothing sticks out of a phone"
    hand.shot("15-phone")
    hand.fill(data=photos, name="a second time", **client.SMALL_RUN)
    hand.train()
    hand.page.locator("#train_lora_message.prose", has_text="its place in the queue is 1").wait_for(timeout=LOAD_MS)
    first.close()
    phone.close()
    step = client.status(server)["step"]  # type: ignore[index]
    client.wait_for_step(server, job, step + 2)
    server.post("/e2e/heal")
    deadline = time.monotonic() + client.RUN_S
    while not (server.lora_folder / "a second time.safetensors").is_file():
        assert time.monotonic() < deadline, client.status(server)
        time.sleep(0.1)
    assert_same(server, "seen by two", undisturbed)


def _step(tab: Tab) -> int:
    return int(tab.page.locator("#train_lora_progress progress").get_attribute("value") or 0)


def assert_same(server: Server, name: str, expected: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    found = load_file(server.lora_folder / f"{name}.safetensors")
    assert found.keys() == expected.keys()
    assert [key for key in expected if not np.array_equal(found[key], expected[key])] == []
