"""Captioners and crops on the page, in a browser without a webui: what is asked of the API, and what is shown of its answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.test_page import ROOMS, URL, Host, browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

__all__ = ["browser"]  # the fixture
API = "lora-train/v1/"
IMAGE: dict[str, Any] = {
    "id": "one", "name": "one.png", "place": "one.png", "caption": None, "tokens": 0, "limit": 75, "size": [160, 100],
    "left_out": False, "crop": None, "cut": None, "frame": [0, 0, 1, 1], "part": [0, 0, 1, 1], "notices": [], "problem": "",
    "thumbnail": None, "removable": True, "has_mask": False, "covered": None, "mask": None,
}  # fmt: skip
COUNTS = {"all": 2, "no_caption": 2, "problem": 0, "duplicate": 0, "small": 0, "left_out": 0}
DATASET: dict[str, Any] = {
    "id": "set", "name": "cats", "folder": None, "undo": "", "looked": {"done": 2, "total": 2}, "counts": COUNTS, "duplicates": 0,
    "page": 1, "pages": 1, "folders": [], "tags": [], "problems": [], "undo_number": 0, "masks": {"count": 0, "covered": None, "unused": ""},
}  # fmt: skip
MODE = {"name": "mode", "label": "Captions", "kind": "choice", "default": "missing", "help": "", "choices": [
    {"value": "missing", "label": "Only images without a caption"}, {"value": "replace", "label": "Replace captions"},
]}  # fmt: skip
CAPTIONERS: list[dict[str, Any]] = [
    {"id": "blip", "name": "BLIP", "needs": "BLIP needs the file 'x', which is not there; put it there.", "note": "", "options": [MODE]},
    {"id": "openai", "name": "Server", "needs": "", "note": "The images are sent to this address.", "options": [
        {"name": "address", "label": "Address", "kind": "text", "default": "http://127.0.0.1:1/v1", "help": "Of a server."},
        {"name": "key", "label": "Key", "kind": "secret", "default": "", "help": ""},
        {"name": "prompt", "label": "Prompt", "kind": "long", "default": "Describe", "help": ""},
        {"name": "threshold", "label": "Threshold", "kind": "number", "default": 0.35, "help": "", "least": 0, "most": 1},
        {"name": "spaces", "label": "Spaces", "kind": "flag", "default": True, "help": ""},
    ]},
]  # fmt: skip
IDLE: dict[str, Any] = {"captioner": "", "running": False, "elsewhere": ""}
RUNNING: dict[str, Any] = {
    "captioner": "Server", "running": True, "stopping": False, "done": 1, "total": 2, "written": 1, "current": "two.png",
    "problems": [], "ended": "", "elsewhere": "",
}  # fmt: skip


class Room(Host):
    """A stub of the API with one dataset of two images. `asked`: method, path and body of what is sent."""

    def __init__(self, page: Page) -> None:
        self.images = [IMAGE, {**IMAGE, "id": "two", "name": "two.png", "place": "two.png"}]
        self.captioning: dict[str, Any] = IDLE
        self.refusal: tuple[int, str] | None = None  # of what is sent
        self.cropped: dict[str, Any] = {"count": 1, "total": 2, "problems": [], "stopped": False, "crops": {}}
        self.asked: list[tuple[str, str, Any]] = []
        super().__init__(page)
        page.add_init_script("localStorage.setItem('train_lora_dataset', 'set')")

    def _answer(self, route: Route) -> None:
        method, path = route.request.method, route.request.url.removeprefix(URL).split("?")[0]
        if not path.startswith(API):
            super()._answer(route)
            return
        path = path.removeprefix(API)
        if method != "GET":
            self.asked.append((method, path, json.loads(route.request.post_data or "{}")))
            if self.refusal:
                status, text = self.refusal
                route.fulfill(status=status, json={"problems": [{"option": "", "text": text}]})
                return
        found = {
            "datasets": {"datasets": [{"id": "set", "name": "cats"}], "folders": True},
            "datasets/set": {**DATASET, "images": self.images},
            "captioners": {"captioners": CAPTIONERS},
            "datasets/set/captioning": self.captioning,
            "datasets/set/crops": self.cropped if method == "POST" else {"running": True, "done": 1, "total": 2},
        }
        route.fulfill(json=found.get(path, {}))

    @property
    def part(self) -> Locator:
        return self.page.locator("#train_lora_images details", has_text="Write captions automatically")

    def expand(self, captioner: str = "openai") -> None:
        self.part.locator("summary").click()
        self.part.get_by_label("Captioner").locator("option").nth(1).wait_for(state="attached")
        self.part.get_by_label("Captioner").select_option(captioner)

    def press(self, label: str) -> None:
        self.page.get_by_role("button", name=label, exact=True).click()

    def see(self, text: str) -> None:
        self.page.locator("#train_lora_images").get_by_text(text).first.wait_for()


@pytest.fixture
def room(browser: Browser) -> Iterator[Room]:  # noqa: F811 - the fixture of test_page
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.on("pageerror", lambda error: errors.append(str(error)))
    made = Room(page)
    made.open(ROOMS)
    page.locator(".train-lora-image").nth(1).wait_for()
    yield made
    page.close()
    assert errors == []


def test_what_a_captioner_needs_is_a_sentence_and_its_options_are_fields(room: Room) -> None:
    room.expand("blip")
    room.see(CAPTIONERS[0]["needs"])
    assert room.part.locator(".train-lora-field select").input_value() == "missing"
    room.part.get_by_label("Captioner").select_option("openai")
    room.see(CAPTIONERS[1]["note"])
    assert room.part.locator(".train-lora-problem").count() == 0
    assert room.part.get_by_label("Key").get_attribute("type") == "password"
    assert room.part.get_by_label("Threshold").get_attribute("max") == "1" and room.part.get_by_label("Spaces").is_checked()


def test_start_sends_the_options_and_the_filter(room: Room) -> None:
    room.page.get_by_role("button", name="No caption 2").click()
    room.page.evaluate("trainLora.images.settingsChanged('{\"resolution\":64}')")  # as the form's report does
    room.expand()
    room.part.get_by_label("Threshold").fill("0.5")
    room.part.get_by_label("Key").fill("secret")
    room.part.get_by_label("Spaces").uncheck()
    room.captioning = RUNNING
    room.press("Start: captions")
    room.see("1 of 2 images, captions written: 1")
    options = {"address": "http://127.0.0.1:1/v1", "key": "secret", "prompt": "Describe", "threshold": 0.5, "spaces": False}
    body = {"captioner": "openai", "options": options, "show": "no_caption", "text": "", "settings": '{"resolution":64}'}
    assert room.asked == [("POST", "datasets/set/captioning", body)]


def test_options_survive_a_reload_and_a_secret_is_not_kept(room: Room) -> None:
    room.expand()
    room.part.get_by_label("Prompt").fill("Tags only")
    room.part.get_by_label("Key").fill("secret")
    room.page.reload()
    room.page.locator(".train-lora-image").nth(1).wait_for()
    room.part.locator("summary").click()
    room.part.get_by_label("Prompt").wait_for()
    assert room.part.get_by_label("Captioner").input_value() == "openai"
    assert room.part.get_by_label("Prompt").input_value() == "Tags only" and room.part.get_by_label("Key").input_value() == ""
    assert "secret" not in room.page.evaluate("JSON.stringify(localStorage)")


def test_captions_appear_while_they_are_written_and_the_end_is_said(room: Room) -> None:
    """What is typed and what has the focus stay meanwhile."""
    room.captioning = RUNNING
    room.page.reload()
    room.page.locator(".train-lora-image").nth(1).wait_for()
    room.expand()
    room.see("two.png")
    bar = room.part.locator("progress")
    assert (bar.get_attribute("value"), bar.get_attribute("max")) == ("1", "2")
    prompt = room.part.get_by_label("Prompt")
    prompt.fill("half a thou")
    room.images = [{**IMAGE, "caption": "a cat"}, room.images[1]]
    room.captioning = {**RUNNING, "done": 2, "written": 2}
    room.page.wait_for_function("document.querySelector('.train-lora-image textarea').value === 'a cat'")
    assert room.page.evaluate("document.activeElement.value") == "half a thou"
    room.captioning = {
        **RUNNING,
        "running": False,
        "done": 2,
        "written": 2,
        "current": "",
        "problems": ["Image 'x' has no new caption."],
    }
    room.page.locator(".train-lora-spoken", has_text="Captions written: 2").wait_for(state="attached")
    room.see("Image 'x' has no new caption.")
    assert bar.count() == 0 and room.part.get_by_role("button", name="Start: captions").is_visible()


def test_a_page_that_was_just_opened_shows_captions_that_are_being_written(room: Room) -> None:
    """Also while the part of the captioners is closed."""
    room.captioning = RUNNING
    room.page.reload()
    room.page.locator(".train-lora-image").nth(1).wait_for()
    room.images = [{**IMAGE, "caption": "a cat"}, room.images[1]]
    room.captioning = {**RUNNING, "done": 2, "written": 2}
    room.page.wait_for_function("document.querySelector('.train-lora-image textarea').value === 'a cat'")
    assert not room.part.get_by_role("button", name="Stop: captions").is_visible(), "the part was opened"


def test_stop_is_pressed_and_told(room: Room) -> None:
    room.captioning = RUNNING
    room.page.reload()
    room.expand()
    room.captioning = {**RUNNING, "stopping": True}
    room.press("Stop: captions")
    room.see("Stopping")
    assert room.asked == [("DELETE", "datasets/set/captioning", {})]
    room.captioning = {**RUNNING, "running": False, "ended": "It was stopped after 1 of 2 images; their captions stay."}
    room.see("It was stopped after 1 of 2 images; their captions stay.")


def test_a_refused_start_is_told_at_its_place(room: Room) -> None:
    room.expand()
    room.refusal = (409, "Server captions the dataset 'dogs' now; wait until it is done, or stop it.")
    room.press("Start: captions")
    room.part.get_by_text(room.refusal[1]).wait_for()
    assert room.part.get_by_role("button", name="Start: captions").is_visible()


def test_crops_are_asked_for_what_is_shown_and_told(room: Room) -> None:
    room.page.get_by_label("Crop", exact=True).select_option("face")
    room.cropped["problems"] = ["Image 'two.png': no face was found, so it stays as it is."]
    room.images = [{**IMAGE, "crop": [0, 0, 80, 80]}, room.images[1]]
    room.press("Apply: crop")
    room.see(room.cropped["problems"][0])
    ((method, path, body),) = room.asked
    assert (method, path) == ("POST", "datasets/set/crops")
    assert {**body, "settings": ""} == {"mode": "face", "show": "all", "text": "", "settings": ""}
    room.page.locator(".train-lora-spoken", has_text="Images changed: 1").wait_for(state="attached")
    assert room.page.get_by_role("button", name="Whole image: two.png").count() == 0
    room.press("Whole image: one.png")
    room.page.wait_for_timeout(100)
    assert room.asked[1:] == [("PATCH", "datasets/set/images/one", {"crop": None, "cut": None})]
