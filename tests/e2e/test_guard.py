"""Webuis that others may reach: who may look, who may train, and what the form offers them."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from tests.e2e import client, pictures, traces
from tests.e2e.conftest import run_server
from tests.e2e.events import Events, ask_key
from tests.e2e.server import Server, Webui, make_data_folder
from tests.e2e.tab import LOAD_MS, Tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.e2e

ROUTES = (("GET", "status"), ("GET", "sample/x/1/1"), ("GET", "queue"), ("GET", "queue/x"), ("POST", "key"))
API_USER = ("bot", "api-word")


@pytest.fixture(scope="module")
def outside() -> str:
    """An address of this machine that is no loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    return address


@pytest.fixture(scope="module")
def listening(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Open to the network, without any login."""
    data = tmp_path_factory.mktemp("listening") / "data"
    make_data_folder(data)
    yield from run_server(Server(webui, data, "--listen"))


@pytest.fixture(scope="module")
def with_logins(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Open to the network, with both logins, hidden folders, and LoRAs elsewhere."""
    data = tmp_path_factory.mktemp("logins") / "data"
    make_data_folder(data)
    shutil.rmtree(data / "models" / "Lora")
    flags = ("--listen", "--gradio-auth", "me:secret", "--api-auth", ":".join(API_USER), "--hide-ui-dir-config")
    server = Server(webui, data, *flags, "--lora-dir", str(data.parent / "loras"), api_user=API_USER)
    server.lora_folder = data.parent / "loras"
    server.lora_folder.mkdir()
    yield from run_server(server)


@pytest.fixture(scope="module")
def with_api_login(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Only the API has a login."""
    data = tmp_path_factory.mktemp("api") / "data"
    make_data_folder(data)
    yield from run_server(Server(webui, data, "--api-auth", ":".join(API_USER), "--no-gradio-queue", api_user=API_USER))


@pytest.mark.case(62)
def test_without_login_others_cannot_train(page: Page, listening: Server, outside: str, photos: Path) -> None:
    """Through the network the tab says why; on the machine itself it trains."""
    far = Tab(page, listening.url_at(outside))
    far.open()
    far.fill(data=photos, name="far", **client.SMALL_RUN)
    assert "start the webui with --gradio-auth" in far.wait_for_report("This page may not train")
    assert ["This page may not train" in line for line in far.refused()] == [True]
    for button in ("stop", "keep"):
        assert page.locator(f"#train_lora_{button}").get_attribute("title") == "Nothing runs now."
        page.locator(f"#train_lora_{button}").click(force=True)
    page.wait_for_timeout(500)
    assert client.status(listening) is None
    far.shot("11-no-login")
    near = Tab(page, listening.url)
    near.open()
    near.fill(data=photos, name="near", **client.SMALL_RUN)
    near.train_and_wait_for_job()
    near.wait_for_state("done")


def test_without_login_the_key_is_for_this_machine(listening: Server, outside: str) -> None:
    """By address, and by the name that the request was meant for."""
    assert ask_key(listening.url).status_code == 200
    assert ask_key(listening.url_at(outside)).status_code == 403
    for headers in ({"Host": "attacker.example"}, {"Host": "abc.gradio.live"}, {"X-Forwarded-For": "192.0.2.9"},
                    {"Origin": "https://attacker.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):  # fmt: skip
        assert ask_key(listening.url, **headers).status_code == 403, headers
    assert ask_key(listening.url, Origin=listening.url).status_code == 200


@pytest.mark.case(63)
def test_events_that_are_made_up_do_nothing(listening: Server, photos: Path, outside: str) -> None:
    """What gradio tells an event of its request can be invented; the key cannot."""
    before = client.status(listening)
    for url in (listening.url, listening.url_at(outside)):
        made_up = {"client": {"host": "127.0.0.1"}, "headers": {"host": "127.0.0.1"}, "query_params": {}, "url": url}
        events = Events(url)
        for name, inputs in (("train_lora_train", events.inputs("train_lora_train", data=str(photos), name="stolen")),
                             ("train_lora_check", events.inputs("train_lora_check", data=str(photos)))):  # fmt: skip
            answer = events.call(name, inputs, request=made_up)
            assert "This page may not train" in json.dumps(answer), answer
    after = client.status(listening)
    assert (after and after["id"]) == (before and before["id"])


def test_files_of_the_machine_are_not_copied(listening: Server, tmp_path: Path) -> None:
    """Gradio's own file field copies what a client names into the folder that it serves."""
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"network_dim": "a_secret", "more": "x" * 4321}))
    key = ask_key(listening.url).json()["key"]
    events = Events(listening.url)
    inputs = events.inputs("train_lora_import", key=key)
    inputs[1] = {"name": str(secret), "data": None, "is_file": True}
    answer = json.dumps(events.call("train_lora_import", inputs))
    assert "secret.json" in answer and "No such file" in answer and "a_secret" not in answer, answer
    assert [
        path for path in listening.uploads.rglob("*") if path.is_file() and path.stat().st_size == secret.stat().st_size
    ] == []


@pytest.mark.case(62, 63)
def test_both_logins_are_asked_for(with_logins: Server, outside: str) -> None:
    """Nobody without one; with one, from everywhere."""
    session = requests.Session()
    assert session.post(f"{with_logins.url}/login", data={"username": "me", "password": "secret"}, timeout=30).ok
    cookie = {"access-token-unsecure": session.cookies["access-token-unsecure"]}
    for url in (with_logins.url, with_logins.url_at(outside)):
        for method, path in ROUTES:
            known = 404 if path.endswith(("/x", "/1")) else 200
            for given, status in (({}, 401), ({"cookies": {"access-token": "made up"}}, 401), ({"auth": ("bot", "wrong")}, 401),
                                  ({"cookies": cookie}, known), ({"auth": API_USER}, known)):  # fmt: skip
                answer = requests.request(method, f"{url}/train-lora/{path}", timeout=30, **given)  # type: ignore[arg-type]
                assert answer.status_code == status, (url, path, given)
        answer = requests.post(
            f"{url}/train-lora/key", cookies=cookie, headers={"Origin": "https://attacker.example"}, timeout=30
        )
        assert answer.status_code == 403


def test_logged_in_and_folders_hidden(page: Page, with_logins: Server, outside: str, tmp_path: Path, photos: Path) -> None:
    """A person elsewhere logs in, drops images and trains; the LoRA lies where --lora-dir says. No folder can be named."""
    page.goto(with_logins.url_at(outside))
    page.locator("input").nth(0).fill("me")
    page.locator("input").nth(1).fill("secret")
    page.locator("button", has_text="Login").click()
    page.locator("#txt2img_generate").wait_for(timeout=LOAD_MS)
    tab = Tab(page, with_logins.url_at(outside))
    tab.open()
    assert not page.locator("#train_lora_data").is_visible() and page.locator("#train_lora_name").is_visible()
    tab.drop(sorted(pictures.write_photos(tmp_path / "mine", ("cat", "woman")).iterdir()))
    tab.fill(name="far away", **client.SMALL_RUN)
    tab.wait_for_report("stopped at 6 steps")
    tab.train_and_wait_for_job()
    tab.wait_for_state("done")
    assert (with_logins.lora_folder / "far away.safetensors").is_file() and client.lists(with_logins, "far away")
    tab.shot("12-logged-in")
    cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
    key = requests.post(f"{with_logins.url}/train-lora/key", auth=API_USER, timeout=30).json()["key"]
    events = Events(with_logins.url, cookies)
    answer = json.dumps(events.call("train_lora_check", events.inputs("train_lora_check", key=key, data=str(photos))))
    assert "runs with --hide-ui-dir-config" in answer and "Images" not in answer


@pytest.mark.case(62)
def test_api_login_alone(browser: Browser, with_api_login: Server, photos: Path) -> None:
    """Programs need the credentials; the browser asks the person for them once, and the tab works."""
    for method, path in ROUTES:
        assert requests.request(method, f"{with_api_login.url}/train-lora/{path}", timeout=30).status_code == 401
    assert client.status(with_api_login) is None
    for given, told in (
        ({"username": API_USER[0], "password": "wrong"}, "This page may not train"),  # and then cancelled
        ({"username": API_USER[0], "password": API_USER[1]}, "stopped at 6 steps"),
    ):
        context = browser.new_context(viewport={"width": 1366, "height": 1000}, http_credentials=given)  # type: ignore[arg-type]
        tab = Tab(context.new_page(), with_api_login.url)
        tab.open()
        tab.fill(data=photos, name="api", **client.SMALL_RUN)
        tab.wait_for_report(told)
        if given["password"] == API_USER[1]:
            tab.train_and_wait_for_job()
            tab.wait_for_state("done")
        else:
            tab.shot("13-no-credentials")
            assert client.status(with_api_login) is None
        context.close()
