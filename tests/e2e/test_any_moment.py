"""Stop, Pause, and the webui's Interrupt and Skip, at moments that nobody chose: within a step, as asked, and nothing of it stays."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e import client
from tests.e2e.events import Events
from tests.e2e.server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.case(35)]

STEPS = 40
# files and pictures in between, so that moments fall into the making of them
RUN: dict[str, Any] = {
    **client.SMALL_RUN, "steps": STEPS, "save_precision": "float", "sample_every_n_steps": 4, "sample_prompts": "ohwx --s 2 --w 64 --h 64",
}  # fmt: skip
Lora = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def lora_of_step(main_server: Server, pristine: client.Fingerprint, photos: Path) -> Callable[[int], Lora]:
    """The LoRA of a run that nobody disturbed, after each of its steps."""
    assert pristine
    job = client.train(main_server, photos, "undisturbed", **RUN, save_every_n_steps=1)
    assert job["state"] == "done", job

    def read(step: int) -> Lora:
        ending = "" if step == STEPS else f"-step{step:08d}"
        return load_file(main_server.lora_folder / f"undisturbed{ending}.safetensors")

    return read


@pytest.fixture
def events(server: Server) -> Events:
    return Events(server.url)


def moments(long: bool, seed: int) -> list[float]:
    """Seconds after the start, of 20 presses or 2."""
    draw = random.Random(seed)
    return [draw.uniform(0, 4) for _ in range(20 if long else 2)]


def pressed(server: Server, events: Events, button: str) -> tuple[int, float]:
    """Press, and return the last step that was made by then, and the time of pressing."""
    started = time.monotonic()
    events.press(button)
    job = client.status(server)
    assert job is not None
    return job["step"], started


def assert_clean(server: Server) -> None:
    """The webui does nothing, and nobody's press of a button is left over for what comes next."""
    state = server.get("/e2e/state")
    assert (state["job"], state["job_count"]) == ("", 0), state
    assert not (state["interrupted"] or state["skipped"] or state["stopping_generation"]), state


def assert_same(lora: Lora, other: Lora) -> None:
    assert lora.keys() == other.keys()
    assert [key for key in lora if not np.array_equal(lora[key], other[key])] == []


@pytest.mark.parametrize("keep", [False, True], ids=["stop", "stop-and-keep"])
def test_stop(
    keep: bool,
    server: Server,
    events: Events,
    photos: Path,
    lora_of_step: Callable[[int], Lora],
    long: bool,
    figure: Callable[[str], None],
) -> None:
    """Stop and Stop and keep at random moments: the end comes with the step, and nothing is left or the LoRA of just that step."""
    seconds, steps = [0.0], set()
    for number, moment in enumerate(moments(long, 35 + keep)):
        name, files = f"stopped {number} {keep}", set(client.files_in(server.lora_folder))
        job = client.begin(server, photos, name, **RUN)
        time.sleep(moment)
        step, since = pressed(server, events, "train_lora_keep" if keep else "train_lora_stop")
        ended = client.wait_for_end(server, job)
        seconds.append(time.monotonic() - since)
        steps.add(ended["step"])
        assert ended["step"] <= step + 1, (moment, ended)
        if ended["step"] < STEPS:
            kept = keep and ended["step"] > 0
            assert ended["state"] == ("done" if kept else "stopped"), (moment, ended)
            endings = (".safetensors", ".json", ".png") if kept else ()
            new = set(client.files_in(server.lora_folder)) - files
            assert new - {f"{name}.png"} == {f"{name}{ending}" for ending in endings} - {f"{name}.png"}
            if kept:
                assert_same(load_file(server.lora_folder / f"{name}.safetensors"), lora_of_step(ended["step"]))
        assert_clean(server)
    figure(f"{len(seconds) - 1} moments, steps {min(steps)} to {max(steps)}, over after {max(seconds):.1f} s at most")


def test_pause(
    server: Server, events: Events, photos: Path, lora_of_step: Callable[[int], Lora], long: bool, figure: Callable[[str], None]
) -> None:
    """Pause at random moments: the run stands after its step, the webui has its model, and in the end the LoRA is the undisturbed one."""
    presses, seconds = len(moments(long, 37)), [0.0]
    draw, runs = random.Random(37), 0
    while len(seconds) - 1 < presses:
        runs += 1
        name = f"paused {runs}"
        job = client.begin(server, photos, name, **RUN)
        while len(seconds) - 1 < presses and (client.status(server) or {})["state"] not in client.ENDED:
            time.sleep(draw.uniform(0, 0.5))
            step, since = pressed(server, events, "train_lora_pause")
            stands = stood(server, job)
            if stands is None:  # over before
                break
            seconds.append(time.monotonic() - since)
            assert stands["step"] <= step + 1
            assert_clean(server)
            time.sleep(0.3)
            later = client.status(server)
            assert later is not None and (later["state"], later["step"]) == ("paused", stands["step"])
            events.press("train_lora_go_on")
        assert client.wait_for_end(server, job)["state"] == "done"
        assert_same(load_file(server.lora_folder / f"{name}.safetensors"), lora_of_step(STEPS))
    figure(f"{presses} moments, stands after {max(seconds):.1f} s at most")


def stood(server: Server, job_id: str) -> dict[str, Any] | None:
    """What is shown once the run stands; None where it ends first, as one does that has made its last step."""
    deadline = time.monotonic() + client.RUN_S
    while time.monotonic() < deadline:
        job = client.status(server)
        assert job and job["id"] == job_id
        if job["state"] in client.ENDED:
            return None
        if job["state"] == "paused" and "paused; the webui has the model" in job["phase"]:
            return job
        time.sleep(0.02)
    raise TimeoutError(f"the run does not stand: {client.status(server)}")


def test_interrupt_and_skip(
    server: Server, photos: Path, lora_of_step: Callable[[int], Lora], long: bool, figure: Callable[[str], None]
) -> None:
    """The webui's Interrupt and Skip at random moments: they end pictures and no training, and none waits for the next picture."""
    presses, draw, done, runs = 40 if long else 4, random.Random(38), 0, 0
    while done < presses:
        runs += 1
        name = f"interrupted {runs}"
        job = client.begin(server, photos, name, **RUN)
        while done < presses:
            time.sleep(draw.uniform(0, 0.3))
            server.post(f"/sdapi/v1/{('interrupt', 'skip')[done % 2]}")
            if (client.status(server) or {})["state"] in client.ENDED:
                break
            done += 1
        ended = client.wait_for_end(server, job)
        assert (ended["state"], ended["step"]) == ("done", STEPS), ended
        assert_same(load_file(server.lora_folder / f"{name}.safetensors"), lora_of_step(STEPS))
        assert_clean(server)
    figure(f"{done} presses")
