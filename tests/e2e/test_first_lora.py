"""A person's first LoRA, from the empty form to the prompt, in a real browser."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from PIL import Image

from tests.e2e import client
from tests.e2e.server import Server
from tests.e2e.tab import Tab

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.e2e

NAME, TRIGGER, STEPS = "my cat", "ohwx_cat", 18
FORM = {
    "name": NAME, "trigger": TRIGGER, "steps": STEPS, "rank": 4, "alpha": 4, "unet_lr": "0.01", "min_bucket_reso": 64,
    "resolution": 128, "bucket_reso_steps": 32, "preview_steps": 2,
}  # fmt: skip


def test_from_photos_to_prompt(tab: Tab, server: Server, photos: Path) -> None:
    """The whole way: report, Train, a reload on the way, files, cards, prompt."""
    client.break_(server, "slow steps")  # so that there is time for the reload
    _the_report_says_what_will_happen(tab, photos)
    tab.shot("1-form")
    _train_answers_within_a_second(tab)
    _a_step_replaces_no_node(tab)
    tab.wait_for_step(3)
    tab.shot("2-running")
    _a_reloaded_page_finds_the_job(tab)
    tab.wait_for_state("done")
    tab.shot("3-done")
    assert f"{STEPS} / {STEPS}" in tab.progress() and "Done" in tab.progress()
    assert tab.curve_points() == [STEPS, STEPS], "two lines: every loss, and their mean"
    _files_lie_in_the_lora_folder(server)
    _both_galleries_show_the_card(tab.page, server)
    _test_button_fills_the_prompt(tab)


def test_empty_form_says_what_to_do(tab: Tab) -> None:
    """Every field has a label, a sentence of help, and the report waits for images."""
    assert "the report appears here" in tab.wait_for_report("Drop images")
    from lib_lora.config.groups import all_options

    for opt in all_options():
        if opt.declaration.place != "none":
            tab.show(opt.name)
            shown = tab.page.locator(f"#train_lora_{opt.name}").inner_text()
            assert opt.declaration.label in shown and opt.declaration.help in shown, f"{opt.name} shows {shown!r}"


def _the_report_says_what_will_happen(tab: Tab, photos: Path) -> None:
    tab.fill(data=photos, **FORM)
    tab.wait_for_report("160x96")  # the last field that is filled in decides the buckets
    report = tab.wait_for_report(f"stopped at {STEPS} steps")
    assert f"Steps {STEPS} " in report
    assert "4 images, 40 per epoch with repeats; in batches of 1: 40 steps per epoch" in report
    assert "160x96 2 images 128x128 2 images" in report
    assert "photos: 4 images × 10" in report
    assert "3 of 4 from files" in report
    assert f"{TRIGGER}, a cat looks at you" in report
    assert tab.page.locator("#train_lora_report.prose li").count() == 0, "no problem is shown"


def _train_answers_within_a_second(tab: Tab) -> None:
    pressed = time.monotonic()
    tab.train()
    tab.page.wait_for_function("gradioApp().querySelector('#train_lora_progress').innerText.trim() !== ''")
    assert time.monotonic() - pressed < 1, "nothing visible happened within a second"
    tab.wait_for_state("running")


def _a_step_replaces_no_node(tab: Tab) -> None:
    tab.wait_for_step(2)
    bar = tab.page.locator("#train_lora_progress progress").element_handle()
    assert bar is not None
    tab.wait_for_step(int(bar.get_attribute("value") or 0) + 1)
    assert bar.evaluate("bar => bar.isConnected")


def _a_reloaded_page_finds_the_job(tab: Tab) -> None:
    job, step = tab.job(), int(tab.page.locator("#train_lora_progress progress").get_attribute("value") or 0)
    tab.open()
    tab.wait_for_step(step + 1)
    assert tab.job() == job
    assert tab.page.locator("#train_lora_progress").get_attribute("data-state") == "running", (
        "the run ended before the reload did"
    )
    assert min(tab.curve_points()) > step, "the curve starts at the first step again"


def _files_lie_in_the_lora_folder(server: Server) -> None:
    stem = server.lora_folder / NAME
    assert set(client.files_in(server.lora_folder)) >= {f"{NAME}{suffix}" for suffix in (".safetensors", ".json", ".png")}
    assert not [name for name in client.files_in(server.lora_folder) if name.endswith((".tmp", ".bak"))]
    card = json.loads(stem.with_suffix(".json").read_text())
    assert (card["activation text"], card["preferred weight"], card["sd version"]) == (TRIGGER, 1.0, "SD1")
    assert Image.open(stem.with_suffix(".png")).size == (128, 128)
    assert client.lists(server, NAME)


def _both_galleries_show_the_card(page: Page, server: Server) -> None:
    """Without any click after Train; with the preview picture, which the webui really serves."""
    for gallery in ("txt2img", "img2img"):
        card = page.locator(f"#{gallery}_lora_cards .card[data-name='{NAME}']")
        card.wait_for(state="attached")
        picture = card.locator("img.preview").get_attribute("src")
        assert picture, f"the card in {gallery} has no picture"
        answer = requests.get(f"{server.url}/{picture.removeprefix('./')}", timeout=30)
        assert answer.ok and answer.content == (server.lora_folder / f"{NAME}.png").read_bytes()


def _test_button_fills_the_prompt(tab: Tab) -> None:
    assert not tab.page.locator("#tab_txt2img").is_visible()
    button = tab.page.locator("#train_lora_test")
    assert button.evaluate("button => getComputedStyle(button).backgroundColor") != "rgba(0, 0, 0, 0)", "it looks like plain text"
    button.click()
    tab.page.locator("#tab_txt2img").wait_for()
    prompt = tab.page.locator("#txt2img_prompt textarea")
    assert prompt.input_value() == f"<lora:{NAME}:1> {TRIGGER}"
    tab.page.locator("#txt2img_generate").wait_for()
    tab.shot("4-prompt")
