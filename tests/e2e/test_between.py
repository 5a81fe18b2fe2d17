"""A long run in the browser: samples, files in between, pausing, and going on from a state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e import client
from tests.e2e.server import Server
from tests.e2e.tab import RUN_MS, Tab

pytestmark = pytest.mark.e2e

BASIC = {key: value for key, value in client.SMALL_RUN.items() if key not in {"steps"}}


def test_samples_files_and_a_pause(tab: Tab, server: Server, photos: Path) -> None:
    """Pictures appear step by step, files in between work in a prompt, a paused run stands and goes on."""
    before = client.fingerprint(server)
    tab.fill(
        data=photos, name="long", **BASIC, steps=60, save_every_n_steps=20, sample_every_n_steps=20, sample_at_first=True,
        sample_prompts="ohwx --s 4 --w 128 --h 128", validation_split=0.25, validate_every_n_steps=20,
    )  # fmt: skip
    tab.train_and_wait_for_job()
    tab.wait_for_step(3)
    tab.page.locator("#train_lora_pause").click()
    tab.wait_for_state("paused")
    tab.page.wait_for_timeout(1500)  # the step that was under way is finished first
    stands = client.status(server)
    tab.page.wait_for_timeout(1500)
    assert client.status(server)["step"] == stands["step"] < 60
    tab.page.locator("#train_lora_go_on").click()
    tab.wait_for_state("done")
    pictures = tab.page.locator("#train_lora_progress .train-lora-samples img")
    assert pictures.count() == 4, "before the first step, and after 20, 40 and 60"
    tab.page.wait_for_function(
        "[...gradioApp().querySelectorAll('.train-lora-samples img')].every((picture) => picture.complete && picture.naturalWidth > 0)",
        timeout=RUN_MS,
    )
    assert "validation loss" in tab.progress()
    tab.shot("10-samples")
    assert client.changes(before, client.fingerprint(server)) == []
    plain = client.generate(server, client.PROMPT)
    for ending in ("-step00000020", "-step00000040", ""):
        assert client.lists(server, f"long{ending}"), ending
        assert not np.array_equal(client.generate(server, f"{client.PROMPT} <lora:long{ending}:1>"), plain), ending


def test_a_resumed_run_is_the_uninterrupted_one(server: Server, photos: Path) -> None:
    """Bit for bit, in the webui, over an accumulated step's break."""
    settings = {"gradient_accumulation_steps": 2, "batch_size": 1, "lr_scheduler": "cosine", "steps": 8, "ema_decay": 0.9}
    client.train(server, photos, "whole", **settings, save_every_n_steps=3, save_state=True, preview_steps=0)
    resumed = client.train(server, photos, "again", **settings, resume="whole-step00000003-state", preview_steps=0)
    assert resumed["state"] == "done" and resumed["first_step"] == 3 and resumed["step"] == 8
    whole, again = (load_file(server.lora_folder / f"{name}.safetensors") for name in ("whole", "again"))
    assert whole.keys() == again.keys() and all(np.array_equal(whole[key], again[key]) for key in whole)
