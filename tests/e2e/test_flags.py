"""Webuis started with flags that change how the model is held, or the public address: what the tab says, and what becomes of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import requests
from safetensors.numpy import load_file

from tests.e2e import client, traces
from tests.e2e.browser import FLAGS, chromium
from tests.e2e.conftest import run_server
from tests.e2e.server import DEVICE, Server, Webui, make_data_folder
from tests.e2e.tab import LOAD_MS, Tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.e2e

PUBLIC = "abcdef.gradio.live"
# gradio's own way out needs a service; this one is a name that leads to the same place. A page that is shared has its scripts from
# gradio's servers; here they come from the webui, as on a page that is not.
TUNNEL = f"""
from gradio import networking
from modules import script_callbacks
networking.setup_tunnel = lambda local_host, local_port, share_token: f"http://{PUBLIC}:{{local_port}}"
script_callbacks.on_app_started(lambda demo, app: setattr(demo, "share", False))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made: Path = tmp_path / "data"
    make_data_folder(made)
    return made


@pytest.fixture(scope="module")
def far(browser: Browser) -> Iterator[Browser]:
    """A browser for which the public name leads to this machine. It asks for a proxy of nobody."""
    mapped = f"--host-resolver-rules=MAP {PUBLIC} 127.0.0.1"
    running = browser.browser_type.launch(executable_path=chromium(), args=[*FLAGS, mapped, "--no-proxy-server"])
    yield running
    running.close()


@pytest.mark.case(47)
@pytest.mark.parametrize("flag", ["medvram", "lowvram"])
def test_memory_modes_are_refused(
    browser: Browser, webui: Webui, untouched: traces.Traces, folder: Path, photos: Path, flag: str
) -> None:
    """Before Train is pressed, in one sentence; pressed all the same, nothing is touched, and pictures are drawn as before."""
    for server in run_server(Server(webui, folder, f"--{flag}")):
        picture = client.generate(server, client.PROMPT)
        before = client.fingerprint(server)
        tab = Tab(browser.new_page(), server.url)
        tab.open()
        tab.fill(data=photos, name="small", **client.SMALL_RUN)
        sentence = f"The webui runs with --{flag}, which moves the model during use; start it without --{flag} to train."
        assert sentence in tab.wait_for_report(f"--{flag}")
        assert tab.refused() == [sentence]
        tab.shot(f"16-{flag}")
        tab.page.close()
        assert client.changes(before, client.fingerprint(server)) == []
        assert np.array_equal(client.generate(server, client.PROMPT), picture)
        assert client.files_in(server.lora_folder) == {}


@pytest.mark.case(47)
@pytest.mark.parametrize("flag", ["medvram", "lowvram"])
def test_memory_modes_refuse_a_run(webui: Webui, untouched: traces.Traces, folder: Path, photos: Path, flag: str) -> None:
    """Started past the form as well; on a GPU, where these flags really move the model, pictures are as before."""
    for server in run_server(Server(webui, folder, f"--{flag}")):
        picture = client.generate(server, client.PROMPT)
        job = client.train(server, photos, "small")
        assert job["state"] == "failed" and job["step"] == 0, job
        assert [f"runs with --{flag}, which moves the model during use" in problem for problem in job["problems"]] == [True]
        assert np.array_equal(client.generate(server, client.PROMPT), picture)
        assert client.files_in(server.lora_folder) == {}


@pytest.mark.case(47)
@pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU these flags compute in another precision")
def test_flags_that_do_not_matter_here(
    webui: Webui, untouched: traces.Traces, folder: Path, server: Server, photos: Path
) -> None:
    """The LoRA is bit for bit that of a webui without them; afterwards the host is as before. No GPU is there that --device-id could name."""
    assert client.train(server, photos, "plain flags")["state"] == "done"
    expected = load_file(server.lora_folder / "plain flags.safetensors")
    flags = (
        "--device-id",
        "0",
        "--medvram-sdxl",
        "--upcast-sampling",
        "--precision",
        "full",
        "--no-half-vae",
    )
    for other in run_server(Server(webui, folder, *flags)):
        client.generate(other, client.PROMPT)
        before = client.fingerprint(other)
        assert client.train(other, photos, "flags")["state"] == "done"
        found = load_file(other.lora_folder / "flags.safetensors")
        assert [
            key for key in expected if not np.array_equal(found[key], expected[key])
        ] == [] and found.keys() == expected.keys()
        assert client.changes(before, client.fingerprint(other)) == []


@pytest.mark.case(60)
def test_without_the_webuis_lora_extension(
    browser: Browser, webui: Webui, untouched: traces.Traces, folder: Path, photos: Path
) -> None:
    """Its built-in extension is disabled: the webui starts, and a LoRA is trained and lies where LoRAs lie."""
    (folder / "config.json").write_text(json.dumps({"disabled_extensions": ["Lora"]}))
    for server in run_server(Server(webui, folder)):
        picture = client.generate(server, client.PROMPT)
        tab = Tab(browser.new_page(), server.url)
        tab.open()
        _train(tab, photos, "alone")
        tab.page.close()
        assert (server.lora_folder / "alone.safetensors").is_file()
        assert np.array_equal(client.generate(server, client.PROMPT), picture)
        assert "Traceback" not in server.log.read_text(errors="replace")


@pytest.mark.case(62)
def test_shared_without_a_login(far: Browser, webui: Webui, untouched: traces.Traces, folder: Path, photos: Path) -> None:
    """--share: who comes by the public address may look and not train; the machine itself may."""
    for server in run_server(_shared(webui, folder)):
        assert f"Running on public URL: http://{PUBLIC}" in server.log.read_text(errors="replace")
        tab = _open(far, server)
        tab.fill(data=photos, name="far", **client.SMALL_RUN)
        assert "start the webui with --gradio-auth" in tab.wait_for_report("This page may not train")
        assert ["This page may not train" in line for line in tab.refused()] == [True]
        tab.shot("17-shared")
        tab.page.close()
        assert client.status(server) is None
        for headers in ({"Host": PUBLIC}, {"Host": PUBLIC, "Origin": f"https://{PUBLIC}"}, {"X-Forwarded-For": "192.0.2.9"}):
            assert requests.post(f"{server.url}/train-lora/key", headers=headers, timeout=30).status_code == 403, headers
        near = Tab(far.new_page(), server.url)
        near.open()
        _train(near, photos, "near")
        near.page.close()


@pytest.mark.case(62)
def test_shared_with_a_login(far: Browser, webui: Webui, untouched: traces.Traces, folder: Path, photos: Path) -> None:
    """--share --gradio-auth: who logs in at the public address trains; who does not sees nothing."""
    for server in run_server(_shared(webui, folder, "--gradio-auth", "me:secret")):
        for path, method in (("status", "GET"), ("key", "POST"), ("queue", "GET")):
            answer = requests.request(method, f"{server.url}/train-lora/{path}", headers={"Host": PUBLIC}, timeout=30)
            assert answer.status_code == 401, path
        page = far.new_page()
        page.goto(server.url.replace("127.0.0.1", PUBLIC))
        page.locator("input").nth(0).fill("me")
        page.locator("input").nth(1).fill("secret")
        page.locator("button", has_text="Login").click()
        page.locator("#txt2img_generate").wait_for(timeout=LOAD_MS)
        tab = Tab(page, page.url)
        tab.open()
        _train(tab, photos, "logged in")
        page.close()
        assert (server.lora_folder / "logged in.safetensors").is_file()


def _train(tab: Tab, photos: Path, name: str) -> None:
    """As a person does, to the end."""
    tab.fill(data=photos, name=name, **client.SMALL_RUN)
    tab.train_and_wait_for_job()
    tab.wait_for_state("done")


def _shared(webui: Webui, folder: Path, *flags: str) -> Server:
    scripts = folder / "extensions" / "e2e-tunnel" / "scripts"
    scripts.mkdir(parents=True)
    (scripts / "tunnel.py").write_text(TUNNEL)
    return Server(webui, folder, "--share", *flags)


def _open(far: Browser, server: Server) -> Tab:
    tab = Tab(far.new_page(), server.url.replace("127.0.0.1", PUBLIC))
    tab.open()
    return tab
