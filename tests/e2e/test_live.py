"""The webui is used while a training runs: what each use gives, and what the training makes of it. docs/live.md lists the outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e import client, traces
from tests.e2e.conftest import run_server
from tests.e2e.server import Server, Webui, make_data_folder

pytestmark = pytest.mark.e2e

# everything that a step depends on and that is kept between steps
RUN: dict[str, Any] = {
    "steps": 40, "batch_size": 1, "gradient_accumulation_steps": 2, "ema_decay": 0.9, "network_dropout": 0.1,
    "lr_scheduler": "cosine", "save_precision": "float",
}  # fmt: skip


@pytest.fixture(scope="module")
def live(webui: Webui, untouched: traces.Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A webui of its own."""
    data = tmp_path_factory.mktemp("live") / "data"
    make_data_folder(data)
    yield from run_server(Server(webui, data))


@pytest.fixture
def server(live: Server) -> Iterator[Server]:
    yield live
    live.post("/e2e/heal")
    client.end_job(live)


@pytest.fixture(scope="module")
def undisturbed(live: Server, photos: Path) -> dict[str, np.ndarray]:
    """The LoRA of a run that nothing happened to."""
    assert client.train(live, photos, "undisturbed", **RUN)["state"] == "done"
    return load_file(live.lora_folder / "undisturbed.safetensors")


def test_a_picture_while_training(server: Server, photos: Path, undisturbed: dict[str, np.ndarray]) -> None:
    """Pixel for pixel the one without a training; the LoRA is bit for bit that of the undisturbed run."""
    prompts = (f"{client.PROMPT} <lora:undisturbed:1>", client.PROMPT)  # the last one leaves no LoRA on the model
    before = [client.generate(server, prompt) for prompt in prompts]
    host = client.fingerprint(server)
    job = client.begin(server, photos, "disturbed", **RUN)
    for _ in range(2):
        client.wait_for_step(server, job, 1)
        for prompt, picture in zip(prompts, before):
            assert np.array_equal(client.generate(server, prompt), picture), prompt
    assert client.status(server)["step"] < RUN["steps"], "the pictures waited for the end"
    assert client.changes(host, client.fingerprint(server)) == []
    assert client.wait_for_end(server, job)["state"] == "done"
    disturbed = load_file(server.lora_folder / "disturbed.safetensors")
    assert [key for key in undisturbed if not np.array_equal(undisturbed[key], disturbed[key])] == []
