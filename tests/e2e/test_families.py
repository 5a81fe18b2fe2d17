"""Every family in the webui itself: what it holds is recognised, trained, given back, and its own Lora extension reads the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.e2e import client
from tests.e2e.conftest import run_server
from tests.e2e.server import Server, Webui, make_data_folder
from tests.e2e.test_numbers import assert_step_equals_the_standalone_hosts
from tests.synthetic import write_mini_inpainting, write_mini_sd2, write_mini_sdxl

pytestmark = pytest.mark.e2e


def _sd2_v(folder: Path) -> Path:
    return write_mini_sd2(folder, velocity=True)


FAMILIES: dict[str, tuple[Callable[[Path], Path], str, int]] = {
    "SD 1.x inpainting": (write_mini_inpainting, "sd_v1", 12 + 192),
    "SD 2.x": (_sd2_v, "sd_v2_v", 54 + 192),
    "SDXL": (write_mini_sdxl, "sdxl_base_v1-0", 12 + 60 + 242),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def family_server(webui: Webui, family: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A webui whose only checkpoint is a miniature of the family."""
    data = tmp_path_factory.mktemp("family") / "data"
    make_data_folder(data)
    checkpoints = data / "models" / "Stable-diffusion"
    shutil.rmtree(checkpoints)
    FAMILIES[family][0](checkpoints)
    (data / "config.json").write_text(json.dumps({"live_previews_enable": False}))  # SDXL's wants a download
    yield from run_server(Server(webui, data))


@pytest.mark.usefixtures("one_thread")
def test_a_family_in_the_webui(family_server: Server, family: str, photos: Path, tmp_path: Path) -> None:
    """A run, the file through the webui's own extension, the host bit for bit, and one step like the standalone host's."""
    client.generate(family_server, client.PROMPT)  # loads the model
    before: Any = family_server.get("/e2e/fingerprint")
    job = client.train(family_server, photos, "small", save_precision="float")
    assert job["state"] == "done", job
    assert family_server.get("/e2e/fingerprint") == before
    with safe_open(family_server.lora_folder / "small.safetensors", framework="pt") as file:
        metadata, keys = file.metadata(), {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118
    _, version, layers = FAMILIES[family]
    assert metadata["ss_base_model_version"] == version and len(keys) == layers
    found = family_server.get("/e2e/lora-output", params={"name": "small"})
    print(found)
    for part in set(found) - {"unchanged"}:
        assert found[part]["effect"] > 1e-3 and found[part]["error"] < 1e-4, (part, found)
    assert found["unchanged"]
    with_lora = client.generate(family_server, f"{client.PROMPT} <lora:small:1>")
    assert (with_lora != client.generate(family_server, client.PROMPT)).any()
    assert_step_equals_the_standalone_hosts(family_server, tmp_path)


def test_an_embedding_of_a_family(family_server: Server, photos: Path) -> None:
    """Of one text encoder or two; the webui reads it from the file as the trainer read it."""
    flat = {"embedding_vectors": 2, "embedding_lr": 0.05, "text_encoder_lr": 0, "save_precision": "float", "steps": 2}
    job = client.train(family_server, photos, "pivotal", **flat)
    assert job["state"] == "done", job
    (found,) = family_server.post("/e2e/words?name=pivotal", [client.PROMPT])
    print(found)
    assert found["error"] < 1e-4 and found["effect"] > 1e-3
