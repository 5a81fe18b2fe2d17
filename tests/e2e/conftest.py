"""Fixtures of the end-to-end tests: a webui that is already installed, started here with a data folder of its own, and a browser.

WEBUI_DIR names the webui, WEBUI_PYTHON its interpreter (default: the one in its venv), CHROMIUM the browser, WEBUI_DEVICE where the
model lies: `cpu` (the default), or `cuda`, in fp16 as the webui has it. PILLOW_HEIF_DIR names a folder with the package pillow-heif
for that interpreter; without it and without the package, a plugin stands for it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.e2e import client, phone_photos, pictures, traces
from tests.e2e.browser import launch
from tests.e2e.server import DEVICE, DEVICE_FLAGS, SHOTS, Server, Webui, make_data_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.e2e.images_room import Room
    from tests.e2e.tab import Tab

if importlib.util.find_spec("diffusers") is None:  # as in the pins lane
    collect_ignore_glob = ["test_*.py"]

_servers: list[Server] = []  # whose logs a failed test shows


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without WEBUI_DIR these tests are skipped in one sentence; a wrong one is an error."""
    ours = [item for item in items if item.get_closest_marker("e2e")]
    if not ours:
        return
    if not os.environ.get("WEBUI_DIR"):
        skip = pytest.mark.skip(reason="WEBUI_DIR is not set; it names the stable-diffusion-webui that these tests drive")
        for item in ours:
            item.add_marker(skip)
        return
    problem = _webui_problem(_webui())
    if problem:
        raise pytest.UsageError(problem)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the webui wrote, and what the browser showed."""
    outcome: Any = yield
    report = outcome.get_result()
    if not report.failed or not item.get_closest_marker("e2e"):
        return
    report.sections += [(f"webui log {server.log}", server.log_tail()) for server in _servers]
    page = getattr(item, "funcargs", {}).get("page")
    if page is not None and not page.is_closed():
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"failed-{item.name}.png", full_page=True)


@pytest.fixture(scope="session")
def webui() -> Webui:
    """The webui under WEBUI_DIR."""
    return _webui()


@pytest.fixture(scope="session")
def untouched(webui: Webui) -> traces.Traces:
    """What the webui's folder and environment held before the first start."""
    return traces.look(webui)


@pytest.fixture(scope="session")
def main_server(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The webui that most tests share."""
    data = tmp_path_factory.mktemp("webui") / "data"
    make_data_folder(data)
    yield from run_server(Server(webui, data))


@pytest.fixture(scope="session")
def images_server(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The webui of the tests of the Images room; its Python has no pillow-heif."""
    folder = tmp_path_factory.mktemp("images")
    make_data_folder(folder / "data")
    yield from run_server(Server(webui, folder / "data", python_path=phone_photos.no_package(folder / "plugins")))


@pytest.fixture(scope="session")
def heic_server(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same without gradio's queue, and with pillow-heif."""
    folder = tmp_path_factory.mktemp("heic")
    make_data_folder(folder / "data")
    package = phone_photos.heif_package(webui, folder / "plugins")
    yield from run_server(Server(webui, folder / "data", "--no-gradio-queue", python_path=package))


@pytest.fixture(scope="session")
def twelve(webui: Webui, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve photos of a phone, and a caption."""
    folder = tmp_path_factory.mktemp("phone")
    heic = phone_photos.write_heic(webui, phone_photos.heif_package(webui, folder / "plugins"), folder)
    return phone_photos.write_twelve(folder / "DCIM", heic)


@pytest.fixture(scope="session")
def pristine(main_server: Server) -> client.Fingerprint:
    """The fingerprint of the shared webui before anything was trained in it."""
    client.generate(main_server, client.PROMPT)
    return client.fingerprint(main_server)


@pytest.fixture(scope="session")
def first_picture(main_server: Server, pristine: client.Fingerprint) -> client.Picture:
    """What the shared webui drew before anything was trained in it, the second time, as all that follow."""
    assert pristine
    return client.generate(main_server, client.PROMPT)


@pytest.fixture
def house(main_server: Server, pristine: client.Fingerprint, first_picture: client.Picture) -> Iterator[None]:
    """After the test, healed and idle: same picture (so the lock is free), same tensors, no file half done.

    Hooks and classes are for the tests themselves to compare: a webui that was started anew has others.
    """
    before = client.files_in(main_server.data)
    yield
    main_server.post("/e2e/heal")
    client.end_job(main_server)
    assert_as_before(main_server, pristine, first_picture, before)


@pytest.fixture
def server(main_server: Server, house: None) -> Server:
    """The shared webui, which is as before after each test."""
    return main_server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium. Where playwright is not installed, as on a machine for computing, the tests that need it are skipped."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed; it drives the browser of this test")
    with launch() as running:
        yield running


def assert_as_before(server: Server, host: client.Fingerprint, picture: client.Picture, files: dict[str, Any]) -> None:
    """The criteria of the fault campaign, for a webui at rest: what it draws, its tensors, and files that are new since `files`."""
    assert (client.generate(server, client.PROMPT) == picture).all(), "the webui draws another picture"
    assert client.changes({"tensors": host["tensors"]}, client.fingerprint(server)) == []
    fresh = [path for path, changed in client.files_in(server.data).items() if files.get(path) != changed]
    assert not [path for path in fresh if path.endswith((".tmp", ".bak"))]


# whenever a picture is generated in the page, without the extension as well
GRADIOS_OWN_ERROR = "Cannot read properties of undefined (reading 'props')"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page. An error in its scripts fails the test."""
    errors: list[str] = []
    fresh = browser.new_page(viewport={"width": 1366, "height": 1000})
    fresh.on("pageerror", lambda error: errors.append(str(error)))
    yield fresh
    fresh.close()
    ours = [error for error in errors if GRADIOS_OWN_ERROR not in error]
    assert not ours, f"errors of scripts in the page: {ours}"


@pytest.fixture
def tab(page: Page, server: Server) -> Tab:
    """The tab, open."""
    from tests.e2e.tab import Tab

    opened = Tab(page, server.url)
    opened.open()
    return opened


@pytest.fixture
def room(page: Page, images_server: Server) -> Room:
    """The Images room, empty, in a browser that has never seen it."""
    from tests.e2e.images_room import Room

    opened = Room(page, images_server)
    opened.open()
    return opened


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos in two shapes; three have captions."""
    return pictures.write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def lora(main_server: Server, pristine: client.Fingerprint, photos: Path) -> str:
    """The name of a LoRA that was trained in the shared webui and stored in fp32."""
    assert pristine
    job = client.train(main_server, photos, "fixture", save_precision="float")
    assert job["state"] == "done", job
    return "fixture"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the webui of these tests; see `server._environment`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_server(server: Server) -> Iterator[Server]:
    """Start, lend, end."""
    _servers.append(server)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _webui() -> Webui:
    folder = Path(os.environ["WEBUI_DIR"]).expanduser().resolve()
    python = os.environ.get("WEBUI_PYTHON")
    return Webui(folder, Path(python) if python else folder / "venv" / "bin" / "python")


def _webui_problem(webui: Webui) -> str | None:
    if not (webui.folder / "launch.py").is_file() or not (webui.folder / "modules" / "sd_models.py").is_file():
        return f"WEBUI_DIR: {str(webui.folder)!r} holds no stable-diffusion-webui."
    if DEVICE not in DEVICE_FLAGS:
        return f"WEBUI_DEVICE: {DEVICE!r} is not known; set it to {' or '.join(DEVICE_FLAGS)}."
    if not os.access(webui.python, os.X_OK):
        return f"WEBUI_PYTHON: {str(webui.python)!r} is no interpreter; set it to the webui's."
    return None
