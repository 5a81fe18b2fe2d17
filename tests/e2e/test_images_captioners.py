"""Captions that programs write, started in the Images room, in a real browser."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import client
from tests.e2e.captioner_weights import CERTAIN, has_module, write_blip, write_deepbooru
from tests.e2e.images_room import Room, dataset_of
from tests.e2e.server import Webui
from tests.e2e.tab import LOAD_MS, RUN_MS

if TYPE_CHECKING:
    from playwright.sync_api import Locator

pytestmark = pytest.mark.e2e

TITLE = "Write captions automatically"


class Stub(ThreadingHTTPServer):
    """A server with an OpenAI-compatible address; it answers `most` times, and then only once it is released."""

    def __init__(self, most: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.most, self.asked = most, 0
        self.released, self.holds = threading.Event(), threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
        self.server.asked += 1
        number = self.server.asked
        if number > self.server.most:
            self.server.holds.set()
            self.server.released.wait(120)
        answer = {"choices": [{"message": {"content": f"a blob 猫, number {number}"}, "finish_reason": "stop"}]}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    running = Stub(2)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()


def test_a_captioner_behind_an_address_tells_progress_and_stops(room: Room, stub: Stub, tmp_path: Path) -> None:
    """Captions appear as they come; Stop keeps those that are done, and a caption that was there is not replaced."""
    names = [f"{letter}.jpg" for letter in "abcde"]
    room.use_dataset(dataset_of(room.server, tmp_path, "by address", {**dict.fromkeys(names, ""), "a.jpg": "my own"}))
    part = room.open_part(TITLE)
    _choose(part, "OpenAI-compatible server")
    part.locator("label", has_text="Address").locator("input").fill(stub.address)
    room.press("Start", "captions")
    assert stub.holds.wait(60), "the third image was not asked for"
    part.get_by_text("captions written: 2").wait_for(timeout=LOAD_MS)
    bar = part.locator("progress")
    assert bar.get_attribute("max") == "4" and bar.get_attribute("value") == "2"
    room.page.wait_for_function("() => trainLora.images.data().counts.no_caption === 2", timeout=LOAD_MS)
    assert room.caption("c.jpg").input_value() == "a blob 猫, number 2", "a page that is open shows them"
    room.press("Stop", "captions")
    part.get_by_role("button", name="Start: captions").wait_for(timeout=LOAD_MS)  # although the server has not answered
    written = {name: image["caption"] for name, image in room.images().items() if image["caption"]}
    assert written == {"a.jpg": "my own", "b.jpg": "a blob 猫, number 1", "c.jpg": "a blob 猫, number 2"}
    room.room.get_by_role("button", name="Undo: ").click()
    room.spoken("Undone: ")
    assert {image["caption"] for image in room.images().values()} == {"my own", None}


@pytest.mark.parametrize(
    ("name", "file", "folder", "caption"),
    [
        ("DeepBooru", "model-resnet_custom_v3.pt", "torch_deepdanbooru", ", ".join(CERTAIN)),
        ("BLIP", "model_base_caption_capfilt_large.pth", "BLIP", "cat"),
    ],
)
def test_the_webuis_own_captioners(
    name: str, file: str, folder: str, caption: str, room: Room, webui: Webui, tmp_path: Path
) -> None:
    """Without its file the tab says which is needed and where; with it, its code writes captions, and the webui's state is as before."""
    room.use_dataset(dataset_of(room.server, tmp_path, f"by {name}", {"a.jpg": "", "b.jpg": ""}))
    part = room.open_part(TITLE)
    _choose(part, name)
    needs = part.locator("p.train-lora-problem", has_text=file)
    assert folder in needs.inner_text()
    room.press("Start", "captions")
    part.locator("li", has_text=file).wait_for(timeout=LOAD_MS)
    models = room.server.data / "models"
    model = (
        write_deepbooru(webui, models) if name == "DeepBooru" else write_blip(webui, models, room.server.data.parent / "hf_home")
    )
    room.server.post("/sdapi/v1/options", {"interrogate_clip_min_length": 1, "interrogate_clip_max_length": 7})  # quick
    before = room.server.get("/e2e/state")
    part.locator("summary").click()
    room.open_part(TITLE)  # what is needed is looked for anew
    needs.wait_for(state="detached", timeout=LOAD_MS)
    room.press("Start", "captions")
    room.page.wait_for_function("() => trainLora.images.data().counts.no_caption === 0", timeout=RUN_MS)
    part.get_by_role("button", name="Start: captions").wait_for(timeout=LOAD_MS)
    assert {" ".join(dict.fromkeys(image["caption"].split())) for image in room.images().values()} == {caption}
    assert room.server.get("/e2e/state") == before
    client.generate(room.server, client.PROMPT)  # the queue lock is free
    model.unlink()


def test_wd14_says_what_it_needs(room: Room, webui: Webui, tmp_path: Path) -> None:
    """Without onnxruntime or without the model: one sentence, and nothing happens."""
    room.use_dataset(dataset_of(room.server, tmp_path, "by WD14", {"a.jpg": ""}))
    part = room.open_part(TITLE)
    _choose(part, "WD14")
    missing = "model.onnx" if has_module(webui, "onnxruntime") else "WD14 needs the package onnxruntime"
    assert missing in part.locator("p.train-lora-problem").inner_text()
    room.press("Start", "captions")
    part.locator("li", has_text=missing).wait_for(timeout=LOAD_MS)
    assert room.images()["a.jpg"]["caption"] is None


def _choose(part: Locator, name: str) -> None:
    part.get_by_label("Captioner", exact=True).select_option(label=name, timeout=LOAD_MS)
