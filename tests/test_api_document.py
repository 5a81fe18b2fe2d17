"""docs/api.md: its examples run against a light server (the routes alone), and it names every route, field and status."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

from lib_lora.ui.api.listing import FILTERS, SORTS  # noqa: E402
from lib_lora.ui.guard import Guard  # noqa: E402
from tests.api import ROOT, SECONDS, Api, app_in, picture  # noqa: E402

DOCUMENT = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
NAMED = "http://127.0.0.1:7860"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Api]]:
    """The address of a server with the routes alone, guarded as a webui without a login; and what it has on the disk."""
    app: Any = app_in(tmp_path / "webui", Guard())
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        started = time.monotonic()
        while not server.started and time.monotonic() < started + SECONDS:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", Api(app_in(tmp_path / "webui"), tmp_path / "webui")
        server.should_exit = True
        thread.join(SECONDS)


def example(language: str, address: str) -> str:
    """The document's example, for the server at `address`."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert NAMED in text
    return str(text).replace(NAMED, address)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def only(api: Api) -> tuple[str, Any]:
    """Name and first page of the only dataset."""
    (dataset,) = api.ask("GET", "datasets")["datasets"]
    return dataset["name"], api.looked_at(dataset["id"])


def test_the_example_with_curl(served: tuple[str, Api], tmp_path: Path) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None or shutil.which("python3") is None:
        pytest.skip("curl, bash or python3 is not there")
    address, api = served
    (tmp_path / "cat.jpg").write_bytes(picture(700, 600, kind="JPEG"))
    said = run(["bash", "-euo", "pipefail", "-c", example("sh", address)], tmp_path)
    assert '"steps":100,' in said and '"problems":[]}' in said
    name, page = only(api)
    (image,) = page["images"]
    assert name == "My cat" and (image["caption"], image["crop"]) == ("photo, a cat, sofa", [0, 0, 512, 512])


def test_the_example_in_python(served: tuple[str, Api], tmp_path: Path) -> None:
    address, api = served
    cats = tmp_path / "cats"
    cats.mkdir()
    (cats / "猫 1.png").write_bytes(picture(600, 600, seed=1))
    (cats / "猫 1.txt").write_text("a cat, 猫", encoding="utf-8")
    (cats / "wide.png").write_bytes(picture(1500, 500, seed=2))
    said = run([sys.executable, "-c", example("python", address)], tmp_path)
    assert "2 images" in said and "steps" in said.splitlines()[-2 if not said.splitlines()[-1] else -1]
    name, page = only(api)
    images = {image["name"]: image for image in page["images"]}
    assert name == "My cats" and images["猫 1.png"]["caption"] == "a cat, 猫" and images["wide.png"]["caption"] == "a cat"
    assert images["wide.png"]["crop"] == [500, 0, 1000, 500] and images["猫 1.png"]["crop"] is None


def test_a_client_that_hangs_up_leaves_nothing_behind(served: tuple[str, Api]) -> None:
    address, api = served
    dataset = api.made()
    before = api.files()
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        head = (
            f"POST {ROOT}/datasets/{dataset}/files?name=a.png HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 900000\r\n\r\n"
        )
        client.sendall(head.encode() + picture(300, 300)[:20_000])
        started = time.monotonic()
        while api.files() == before:
            assert time.monotonic() < started + SECONDS, "it never arrived"
    while api.files() != before:
        assert time.monotonic() < started + SECONDS, "it is still there"


def test_every_route_is_in_the_document(tmp_path: Path) -> None:
    app: Any = app_in(tmp_path)
    wanted = {
        f"{method} {route.path.removeprefix(ROOT + '/').format(dataset='ID', image='IMAGE')}"
        for route in app.routes
        if route.path.startswith(ROOT)
        for method in route.methods
    }
    found = {name.partition("?")[0] for name in re.findall(r"^\| `([A-Z]+ [^`]+)`", DOCUMENT, re.MULTILINE)}
    assert found == wanted


def test_every_field_is_in_the_document(tmp_path: Path) -> None:
    """Those of an image, a page, a plan; and what may be asked."""
    api = Api(app_in(tmp_path / "webui"), tmp_path / "webui")
    dataset = api.made()
    api.upload(dataset, "a.png", picture())
    page = api.looked_at(dataset)
    report = api.ask(
        "POST", f"datasets/{dataset}/report", {"settings": {"trigger": "x", "resolution": 64, "min_bucket_reso": 64}}
    )
    named = set(re.findall(r"`(\w+)`", DOCUMENT))
    fields = {
        *page,
        *page["images"][0],
        *page["masks"],
        *page["looked"],
        *report,
        *report["plan"],
        *report["plan"]["buckets"][0],
        *FILTERS,
        *SORTS,
    }
    assert fields - named == set()
