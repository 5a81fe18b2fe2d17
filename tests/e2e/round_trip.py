"""Train, and see what the webui's own Lora extension makes of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e import client
from tests.e2e.server import DEVICE, Server

LEAST_EFFECT = 1e-3  # all of these are relative
# in fp16 and in fp32: a LoRA in a prompt, the losses of a run on diffusers' modules in fp32, one step's loss, and its gradients
MOST_ERROR, LOSSES, LOSS, GRADIENTS = (1e-2, 3e-2, 1e-2, 1e-1) if DEVICE == "cuda" else (1e-4, 1e-3, 1e-5, 1e-4)


def train_and_read_back(server: Server, photos: Path, name: str, **settings: Any) -> dict[str, Any]:
    """The job of a run that leaves the host as it was, whose file means in a prompt what was trained, and nothing afterwards."""
    plain = client.generate(server, client.PROMPT)
    before = client.fingerprint(server)
    job = client.train(server, photos, name, save_precision="float", **settings)
    assert job["state"] == "done", job
    assert client.changes(before, client.fingerprint(server)) == []
    found = server.get("/e2e/lora-output", params={"name": name})
    print(name, found)
    assert_the_same(found)
    assert not np.array_equal(client.generate(server, f"{client.PROMPT} <lora:{name}:1>"), plain)
    assert np.array_equal(client.generate(server, client.PROMPT), plain)
    assert client.changes(before, client.fingerprint(server)) == [], "the prompt's LoRA is not taken off exactly"
    return job


def assert_the_same(found: dict[str, Any]) -> None:
    """The answer of `/e2e/lora-output`: every layer found, every part changed, and as our adapters change it."""
    assert found["layers"] > 50 and found["unmatched"] == [] and found["failed"] == {}, found
    assert found["unchanged"], "the model without LoRA answers differently afterwards"
    parts = {part: numbers for part, numbers in found.items() if isinstance(numbers, dict) and "error" in numbers}
    assert {"unet", "text_encoder"} <= set(parts)
    for part, numbers in parts.items():
        assert numbers["effect"] > LEAST_EFFECT and numbers["error"] < MOST_ERROR, (part, found)
