"""A light server of the tab: its form, its routes and its page on gradio alone, without a webui.

`python -m tests.light_server FOLDER PORT [LANGUAGE]` serves it until it is ended, with all files below FOLDER. It trains on the tiny
checkpoint, through diffusers.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from html import escape
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parent.parent
READY = "the tab is served"
START_S = 300
STYLE = "div.gradio-container { max-width: unset !important; overflow: visible !important; }"  # as in the webui
# what the webui gives to scripts of extensions: its page, and a call once that is built; it translates texts that are a key
WEBUI = """
const loaded = [], gradioApp = () => document, onUiLoaded = (callback) => loaded.push(callback);
window.localization = %s;
(() => {
    const PARTS = ["#train_lora_images", "#train_lora_report", "#train_lora_queue", "#train_lora_announced"];
    const SPOKEN = ["placeholder", "title"];
    let isLoaded = false;

    function translate(root) {
        const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        for (let node = texts.nextNode(); node; node = texts.nextNode()) {
            const known = window.localization[node.textContent.trim()];
            if (known && !node.parentNode.closest("textarea, script, style")) node.textContent = known;
        }
    }

    function changed() {
        if (Object.keys(window.localization).length) translate(document.body);
        if (isLoaded || !PARTS.every((part) => document.querySelector(part))) return;
        isLoaded = true;
        loaded.forEach((callback) => callback());
    }

    document.addEventListener("DOMContentLoaded", () => {
        new MutationObserver(changed).observe(document.body, {childList: true, subtree: true});
        changed();
    });
})();
"""


class LightServer:
    """The server in a process of its own, with its files below `folder`. `language`: of the webui's settings; English without."""

    def __init__(self, folder: Path, language: str = "") -> None:
        self.folder = folder
        self.log = folder / "log"
        self._language = language
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Returns when the page and the routes answer.

        Raises:
            RuntimeError: the server ended, or takes too long; with the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.light_server", str(self.folder), str(self._port), self._language]
        environment = {
            **os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(self.folder / "gradio"),
            "HF_HUB_OFFLINE": "1", "no_proxy": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_S
        while READY not in self.log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"The light server did not start; the end of its log:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the process; it has nothing to save."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that a route of `/lora-train/v1` answers; a body of bytes is a file."""
        sent = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        answer = requests.request(method, f"{self.url}/lora-train/v1/{path}", timeout=60, **sent)
        assert answer.ok, answer.text
        return answer.json()


def _added(language: str) -> tuple[bytes, bytes]:
    """What the webui adds to head and body of its page: the page's files with the dictionary of a language, and the style."""
    dictionary = ROOT / "localizations" / f"{language}.json"
    labels = json.loads(dictionary.read_text()) if language else {}
    version = time.time_ns()  # no older file from the browser's memory
    rooms = "".join(
        f"<script src='/light/javascript/{escape(room.name)}?{version}'></script>"
        for room in sorted((ROOT / "javascript").glob("*.js"))
    )
    script = (WEBUI % json.dumps(labels)).replace("</", "<\\/")
    style = f"<style>{STYLE}</style><link rel='stylesheet' href='/light/style.css?{version}'>"
    return f"<script>{script}</script>{rooms}".encode(), style.encode()


def serve(folder: Path, port: int, language: str) -> None:
    """Serve the tab until the process is ended."""
    import gradio as gr
    import torch
    from fastapi.responses import FileResponse
    from fastapi.staticfiles import StaticFiles

    from lib_lora.data.tokens import load_tokenizer
    from lib_lora.datasets.captionings import Captionings
    from lib_lora.datasets.catalogue import Catalogue
    from lib_lora.hosts.standalone import StandaloneHost
    from lib_lora.jobs.kept import DATASETS, TAKEN
    from lib_lora.jobs.queue import Queue
    from lib_lora.jobs.queue_store import Store
    from lib_lora.jobs.runner import Runner
    from lib_lora.languages.spoken import follow
    from lib_lora.tiny import write_tiny
    from lib_lora.ui.api.datasets import add_dataset_routes
    from lib_lora.ui.guard import Guard
    from lib_lora.ui.routes import add_routes
    from lib_lora.ui.tab import TrainTab
    from tests.folder_host import PlainTools

    follow(lambda: language)
    load_tokenizer()  # the webui has loaded one; transformers cannot be imported by several threads at once
    host = StandaloneHost(write_tiny(folder / "model"), folder / "loras", torch.device("cpu"))
    uploads, guard, runner = folder / "loras" / ".train-lora" / "uploads", Guard(), Runner(host)
    queue = Queue(runner, Store(folder / "loras" / ".train-lora" / "queue", uploads))
    catalogue = Catalogue(uploads / DATASETS)
    tab = TrainTab(queue, catalogue, uploads / TAKEN, guard).build()
    for part in tab.blocks.values():  # classes that the webui adds, and our style uses
        part.elem_classes = [f"gradio-{part.get_block_name()}", *(part.elem_classes or [])]
    with (
        gr.Blocks(title="Train LoRA", analytics_enabled=False) as page,
        gr.Tabs(elem_id="tabs"),
        gr.TabItem("Train LoRA", id="train_lora", elem_id="tab_train_lora"),
    ):
        tab.render()

    original, (head, body) = gr.routes.templates.TemplateResponse, _added(language)

    def with_head(*values: Any, **named: Any) -> Any:
        answer = original(*values, **named)
        answer.body = answer.body.replace(b"</head>", head + b"</head>").replace(b"</body>", body + b"</body>")
        answer.init_headers()
        return answer

    gr.routes.templates.TemplateResponse = with_head
    app, _, _ = page.queue(64).launch(
        server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, show_api=False
    )
    app.mount("/light/javascript", StaticFiles(directory=ROOT / "javascript"))
    app.add_api_route("/light/style.css", lambda: FileResponse(ROOT / "style.css"))
    add_routes(app, queue, guard)
    tools = PlainTools(folder / "wd14", may_choose=True)
    add_dataset_routes(app, catalogue, guard, tools, Captionings(), hides_folders=False, host=host)
    print(READY, flush=True)
    page.block_thread()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
