"""The webui is used while a training runs: what each use gives, and what the training makes of it. docs/live.md lists the outcomes."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from safetensors.numpy import load_file

from tests.e2e import client, traces
from tests.e2e.conftest import run_server
from tests.e2e.server import Server, Webui
from tests.e2e.tab import Tab
from tests.e2e.two_checkpoints import OTHER, OURS, VAE, house_as_before, make_folder, select

pytestmark = pytest.mark.e2e

# everything that a step depends on and that is kept between steps
RUN: dict[str, Any] = {
    "steps": 12, "batch_size": 1, "gradient_accumulation_steps": 2, "ema_decay": 0.9, "network_dropout": 0.1,
    "lr_scheduler": "cosine", "save_precision": "float", "sample_every_n_steps": 9, "sample_prompts": "ohwx --s 3 --w 64 --h 64",
}  # fmt: skip
Lora = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def live(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A webui of its own, with a second checkpoint and a VAE."""
    data = tmp_path_factory.mktemp("live") / "data"
    make_folder(data)
    for server in run_server(Server(webui, data)):
        client.generate(
            server, client.PROMPT
        )  # the first load, which goes on behind the start, sets the selected checkpoint itself
        yield server


@pytest.fixture
def house(live: Server) -> Iterator[None]:
    yield from house_as_before(live)


@pytest.fixture
def server(live: Server, house: None) -> Server:
    return live


@pytest.fixture(scope="module")
def undisturbed(live: Server, photos: Path) -> Lora:
    """The LoRA of a run that nothing happened to."""
    select(live, sd_model_checkpoint=OURS)
    assert client.train(live, photos, "undisturbed", **RUN)["state"] == "done"
    return load_file(live.lora_folder / "undisturbed.safetensors")


def begin(server: Server, photos: Path, name: str, **settings: Any) -> str:
    """A run with steps slow enough to do something in between; returns after the first."""
    client.break_(server, "slow steps")
    job = client.begin(server, photos, name, **{**RUN, **settings})
    client.wait_for_step(server, job, 1)
    return job


def still_running(server: Server) -> dict[str, Any]:
    job = client.status(server)
    assert job is not None and job["state"] in {"running", "lent"} and job["step"] < RUN["steps"], "it waited for the end"
    return job


def wait_for_phase(server: Server, words: str) -> dict[str, Any]:
    """What the tab shows when the run says so."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = client.status(server)
        if job and words in job["phase"]:
            return job
        time.sleep(0.05)
    raise TimeoutError(f"the run does not say {words!r}: {client.status(server)}")


def wait_for_start(server: Server, before: int) -> None:
    """Until the UI came up once more than `before` times."""
    deadline = time.monotonic() + 120
    while server.starts() == before:
        assert time.monotonic() < deadline, f"the UI does not come back\n{server.log_tail()}"
        time.sleep(0.25)


def assert_undisturbed(server: Server, job: str, name: str, undisturbed: Lora) -> None:
    """The run comes to its end; its LoRA and its samples are bit for bit those of the undisturbed run."""
    server.post("/e2e/heal")
    ended = client.wait_for_end(server, job)
    assert ended["state"] == "done", ended
    lora = load_file(server.lora_folder / f"{name}.safetensors")
    assert [key for key in undisturbed if not np.array_equal(undisturbed[key], lora[key])] == []
    drawn, expected = samples(server, name), samples(server, "undisturbed")
    assert len(expected) == 1 and drawn == expected


def samples(server: Server, name: str) -> list[bytes]:
    folder = server.data / ".train-lora" / "runs" / name / "samples"
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.mark.case(40, 43)
def test_a_picture_while_training(server: Server, photos: Path, undisturbed: Lora) -> None:
    """Pixel for pixel the one without a training; the LoRA is bit for bit that of the undisturbed run; the host is as before."""
    prompts = (f"{client.PROMPT} <lora:undisturbed:1>", client.PROMPT)  # the last one leaves no LoRA on the model
    before = [client.generate(server, prompt) for prompt in prompts]
    host = client.fingerprint(server)
    job = begin(server, photos, "picture")
    for prompt, picture in zip(prompts, before):
        assert np.array_equal(client.generate(server, prompt), picture), prompt
    assert client.changes(host, client.fingerprint(server)) == []
    still_running(server)
    assert_undisturbed(server, job, "picture", undisturbed)
    assert client.changes(host, client.fingerprint(server)) == []


def hires_fix(server: Server) -> Any:
    more = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 2, "denoising_strength": 0.7}
    return client.generate(server, client.PROMPT, **more)


def hires_fix_with_another_checkpoint(server: Server) -> Any:
    more = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 2, "hr_checkpoint_name": OTHER}
    return client.generate(server, client.PROMPT, denoising_strength=0.7, **more)


def one_picture_of_another_checkpoint(server: Server) -> Any:
    return client.generate(server, client.PROMPT, override_settings={"sd_model_checkpoint": OTHER})


def xyz_plot(server: Server) -> Any:
    """Over checkpoints and numbers of steps; the other checkpoint is left loaded."""
    axes = next(script for script in server.get("/sdapi/v1/script-info") if script["name"] == "x/y/z plot")["args"][0]["choices"]
    x, y = axes.index("Checkpoint name"), axes.index("Steps")
    arguments = [x, f"{OURS}, {OTHER}", [], y, "1, 2", [], 0, "", [], True, False, False, False, False, False, False, 0, True]
    return client.generate(server, client.PROMPT, script_name="x/y/z plot", script_args=arguments)


def interrogate(server: Server) -> Any:
    """Its own models are not there and cannot be loaded; it takes its turn, begins and ends its job, and says so."""
    return server.post("/sdapi/v1/interrogate", {"image": "data:image/png;base64," + PIXEL, "model": "clip"})["caption"]


def extras(server: Server) -> Any:
    """A picture made four times as large, by the Extras tab's work."""
    stored = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(stored, "PNG")
    image = "data:image/png;base64," + base64.b64encode(stored.getvalue()).decode()
    asked = {"image": image, "upscaler_1": "Lanczos", "upscaling_resize": 4}
    return server.post("/sdapi/v1/extra-single-image", asked)["image"]


def interrupt_and_skip(server: Server) -> Any:
    """Pressed while nothing is generated, and while something is: the picture ends early, the training never."""
    for button in ("interrupt", "skip"):
        server.post(f"/sdapi/v1/{button}")
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        picture = pool.submit(client.generate, server, client.PROMPT, steps=150, width=256, height=256)
        while not drawing(server):
            time.sleep(0.02)
            assert time.monotonic() - started < 60
        server.post("/sdapi/v1/interrupt")
        picture.result(120)
    return None


def drawing(server: Server) -> bool:
    """Is the long picture being made?"""
    state = server.get("/e2e/state")  # the webui's own route draws previews at each call
    return bool(state["sampling_steps"] == 150 and state["sampling_step"] > 1)


def unload_and_reload(server: Server) -> Any:
    """On a CPU the model is where it was; tests/test_loan.py takes it away in the middle of a step."""
    server.post("/sdapi/v1/unload-checkpoint")
    server.post("/sdapi/v1/reload-checkpoint")
    return client.generate(server, client.PROMPT)


def settings(server: Server) -> Any:
    """One that builds the model's wrappers anew, and one that does nothing to the model."""
    select(server, cross_attention_optimization="sub-quadratic", CLIP_stop_at_last_layers=2)
    picture = client.generate(server, client.PROMPT)
    select(server, cross_attention_optimization="Automatic", CLIP_stop_at_last_layers=1)
    return picture


def another_vae(server: Server) -> Any:
    """The latents are encoded by then; the samples are drawn with what is selected, so it is back before the next."""
    select(server, sd_vae=VAE)
    picture = client.generate(server, client.PROMPT)
    select(server, sd_vae="Automatic")
    return picture


def patched_forwards(server: Server) -> Any:
    client.break_(server, "patched forwards")
    return client.generate(server, client.PROMPT)


def many_at_once(server: Server) -> Any:
    """Each within a step or two: nobody waits for the end."""
    with ThreadPoolExecutor(6) as pool:
        return np.stack(list(pool.map(lambda _: client.generate(server, client.PROMPT), range(6))))


EVENTS: dict[Callable[[Server], Any], int] = {  # and their cases of the fault campaign
    hires_fix: 41, hires_fix_with_another_checkpoint: 41, one_picture_of_another_checkpoint: 37, xyz_plot: 41, interrogate: 41,
    extras: 41, interrupt_and_skip: 35, unload_and_reload: 38, settings: 40, another_vae: 37, patched_forwards: 45, many_at_once: 40,
}  # fmt: skip
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    "event", [pytest.param(event, marks=pytest.mark.case(case), id=event.__name__) for event, case in EVENTS.items()]
)
def test_what_happens_meanwhile(event: Callable[[Server], Any], server: Server, photos: Path, undisturbed: Lora) -> None:
    """It gives what it gives without a training, before the training ends, and the training does not notice."""
    expected = event(server)
    server.post("/e2e/heal")
    name = f"during {event.__name__}"
    job = begin(server, photos, name)
    found = event(server)
    still_running(server)
    assert np.array_equal(found, expected)
    assert_undisturbed(server, job, name, undisturbed)


@pytest.mark.case(37)
def test_another_checkpoint_is_selected(server: Server, photos: Path, undisturbed: Lora) -> None:
    """It is loaded and used; the training says what it waits for, and goes on when its own is selected again."""
    select(server, sd_model_checkpoint=OTHER)
    expected = client.generate(server, client.PROMPT)
    select(server, sd_model_checkpoint=OURS)
    assert not np.array_equal(client.generate(server, client.PROMPT), expected)
    job = begin(server, photos, "switched")
    select(server, sd_model_checkpoint=OTHER)
    shown = wait_for_phase(server, "was selected")
    assert shown["state"] == "lent" and OURS in shown["phase"] and OTHER in shown["phase"]
    assert np.array_equal(client.generate(server, client.PROMPT), expected)
    time.sleep(1.5)
    assert client.status(server)["step"] == shown["step"]
    select(server, sd_model_checkpoint=OURS)
    assert_undisturbed(server, job, "switched", undisturbed)


@pytest.mark.case(37)
def test_stop_and_keep_while_another_checkpoint_is_selected(server: Server, photos: Path) -> None:
    """The LoRA is saved as it is; the selected checkpoint stays the webui's."""
    begin(server, photos, "kept elsewhere", sample_every_n_steps=0)
    select(server, sd_model_checkpoint=OTHER)
    shown = wait_for_phase(server, "was selected")
    server.post("/e2e/stop?keep=true")
    ended = client.wait_for_end(server, shown["id"])
    assert ended["state"] == "done" and ended["step"] == shown["step"] < RUN["steps"]
    kept = server.get("/e2e/kept")
    assert kept["held"] == OTHER and kept["selected"].startswith(OTHER) and client.lists(server, "kept elsewhere")


def test_another_vae_is_waited_out_where_images_are_still_encoded(server: Server, photos: Path) -> None:
    job = begin(server, photos, "vae", cache_latents=False, sample_every_n_steps=0)
    select(server, sd_vae=VAE)
    wait_for_phase(server, "Another VAE was selected")
    select(server, sd_vae="Automatic")
    server.post("/e2e/heal")
    assert client.wait_for_end(server, job)["state"] == "done"


@pytest.mark.case(42)
def test_the_ui_is_reloaded(server: Server, photos: Path, undisturbed: Lora) -> None:
    """The page comes back, the training goes on, and a picture can be drawn."""
    job, starts = begin(server, photos, "reloaded"), server.starts()
    server.post("/e2e/reload-ui")
    wait_for_start(server, starts)
    client.generate(server, client.PROMPT)
    assert_undisturbed(server, job, "reloaded", undisturbed)


@pytest.mark.case(42)
def test_the_ui_is_reloaded_while_a_picture_is_drawn(server: Server, photos: Path, undisturbed: Lora) -> None:
    """The picture ends early, or is lost with the old page; the page comes back, pictures are as before, the training goes on."""
    expected = client.generate(server, client.PROMPT)
    job, starts = begin(server, photos, "reloaded meanwhile"), server.starts()
    with ThreadPoolExecutor(1) as pool:
        picture = pool.submit(client.generate, server, client.PROMPT, steps=150, width=256, height=256)
        while not drawing(server):
            assert not picture.done(), picture.result()
            time.sleep(0.02)
        still_running(server)
        server.post("/e2e/reload-ui")
        wait_for_start(server, starts)
        assert picture.exception(120) is None or isinstance(picture.exception(), requests.ConnectionError)
    assert np.array_equal(client.generate(server, client.PROMPT), expected)
    assert_undisturbed(server, job, "reloaded meanwhile", undisturbed)


@pytest.mark.case(39)
def test_two_people_press_train_at_once(server: Server, photos: Path) -> None:
    """One of them trains, the other is told the place in the list, and trains then."""
    together = threading.Barrier(2)
    client.break_(server, "slow steps")

    def press(name: str) -> int:
        together.wait()
        place: int = server.post("/e2e/queue", {**client.SMALL_RUN, "data": str(photos), "name": name})
        return place

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(press, ("mine", "yours"))) == [0, 1]
    server.post("/e2e/heal")
    deadline = time.monotonic() + client.RUN_S
    while not all((server.lora_folder / f"{name}.safetensors").is_file() for name in ("mine", "yours")):
        assert time.monotonic() < deadline, client.status(server)
        time.sleep(0.1)


def test_off(server: Server, photos: Path) -> None:
    """The picture waits for the end."""
    job = begin(server, photos, "keeps the model", generate_while_training=False)
    client.generate(server, client.PROMPT)
    assert client.status(server)["state"] == "done", job


def test_samples_leave_the_webui_alone(server: Server, photos: Path) -> None:
    """No switch of checkpoints, no parameters file, no caches: the model in hand draws them."""
    client.generate(server, client.PROMPT)
    parameters = (server.data / "params.txt").read_bytes()
    before = server.get("/e2e/kept")
    job = begin(server, photos, "sampled", steps=40)
    client.wait_for_step(server, job, 10)
    assert len(samples(server, "sampled")) == 1
    assert server.get("/e2e/kept") == before and before["caches"][0][0] != "None"
    assert (server.data / "params.txt").read_bytes() == parameters


@pytest.mark.case(40)
def test_a_picture_in_the_browser(page: Any, server: Server, photos: Path) -> None:
    """Generate is pressed while the tab's training runs: the webui's own progress and picture, and the tab says where the model is."""
    tab = Tab(page, server.url)
    tab.open()
    small = {key: value for key, value in client.SMALL_RUN.items() if key != "steps"}
    tab.fill(data=photos, name="in the tab", steps=40, **small)
    client.break_(server, "slow steps")
    tab.train_and_wait_for_job()
    tab.wait_for_step(2)
    page.locator("#tabs > .tab-nav button", has_text="txt2img").click()
    page.locator("#txt2img_prompt textarea").fill(client.PROMPT)
    for field, value in (("steps", 60), ("width", 128), ("height", 128)):
        page.locator(f"#txt2img_{field} input[type=number]").fill(str(value))
    page.locator("#txt2img_generate").click()
    page.locator("#tab_txt2img .progressDiv").wait_for(timeout=60_000)
    page.locator("#tabs > .tab-nav button", has_text="Train LoRA").click()
    tab.wait_for_state("lent")
    assert "Lent" in tab.progress() and "lent to the webui" in tab.progress()
    tab.shot("11-lent")
    page.locator("#txt2img_gallery img").first.wait_for(state="attached", timeout=120_000)
    still = client.status(server)
    assert still["step"] < 40, "it waited for the end"
    server.post("/e2e/heal")
    tab.wait_for_state("done")
