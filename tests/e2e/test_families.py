"""Every family in the webui itself: what it holds is recognised, trained, given back, and its own Lora extension reads the file."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from lib_lora.config.groups import build_config
from lib_lora.events import StepDone, Stop
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.train import train
from tests.e2e import client
from tests.e2e.conftest import run_server
from tests.e2e.server import Server, Webui, make_data_folder
from tests.e2e.test_numbers import assert_step_equals_the_standalone_hosts
from tests.synthetic import write_mini_inpainting, write_mini_sd2, write_mini_sdxl

pytestmark = pytest.mark.e2e

NOISE, VELOCITY = "noise (nothing says v)", "v (its configuration says so)"
# how its miniature is written, what it is called, what it predicts, ss_base_model_version, layers
FAMILIES: dict[str, tuple[Callable[[Path], Path], str, str, str, int]] = {
    "inpainting": (write_mini_inpainting, "SD 1.x inpainting", NOISE, "sd_v1", 12 + 192),
    "sd2-v": (functools.partial(write_mini_sd2, velocity=True), "SD 2.x", VELOCITY, "sd_v2_v", 54 + 192),
    "sd2-inpainting": (functools.partial(write_mini_sd2, inpaints=True), "SD 2.x inpainting", NOISE, "sd_v2", 54 + 192),
    "sdxl": (write_mini_sdxl, "SDXL", NOISE, "sdxl_base_v1-0", 12 + 60 + 242),
    "sdxl-v": (functools.partial(write_mini_sdxl, velocity=True), "SDXL", VELOCITY, "sdxl_base_v1-0", 12 + 60 + 242),
    "sdxl-inpainting": (
        functools.partial(write_mini_sdxl, inpaints=True), "SDXL inpainting", NOISE, "sdxl_base_v1-0", 12 + 60 + 242,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the miniatures' files, in the data folder of a webui that has no other."""
    data = tmp_path_factory.mktemp("families") / "data"
    make_data_folder(data)
    folder = data / "models" / "Stable-diffusion"
    shutil.rmtree(folder)
    for write, *_ in FAMILIES.values():
        write(folder)
    (data / "config.json").write_text(json.dumps({"live_previews_enable": False}))  # SDXL's wants a download
    return folder


@pytest.fixture(scope="module")
def family_server(webui: Webui, checkpoints: Path) -> Iterator[Server]:
    """A webui with a miniature of every family to choose from."""
    yield from run_server(Server(webui, checkpoints.parent.parent))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_the_webui(family_server: Server, checkpoints: Path, family: str, photos: Path, tmp_path: Path) -> None:
    """A run with the standalone host's losses, the file through the webui's own extension, the host bit for bit, and a step."""
    write, name, predicts, version, layers = FAMILIES[family]
    checkpoint = write(checkpoints)
    family_server.post("/sdapi/v1/options", {"sd_model_checkpoint": checkpoint.name})
    client.generate(family_server, client.PROMPT)  # loads the model
    before: Any = family_server.get("/e2e/fingerprint")
    job = client.train(family_server, photos, family, save_precision="float")
    assert job["state"] == "done", job
    assert job["choices"][0] == f"Model: {name}, predicts {predicts}; read from the model that the webui holds."
    assert family_server.get("/e2e/fingerprint") == before
    assert job["losses"] == pytest.approx(standalone_losses(checkpoint, photos, tmp_path), rel=1e-3)
    with safe_open(family_server.lora_folder / f"{family}.safetensors", framework="pt") as file:
        metadata, keys = file.metadata(), {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118
    assert metadata["ss_base_model_version"] == version and len(keys) == layers
    found = family_server.get("/e2e/lora-output", params={"name": family})
    print(found)
    for part in set(found) - {"unchanged"}:
        assert found[part]["effect"] > 1e-3 and found[part]["error"] < 1e-4, (part, found)
    assert found["unchanged"]
    with_lora = client.generate(family_server, f"{client.PROMPT} <lora:{family}:1>")
    assert (with_lora != client.generate(family_server, client.PROMPT)).any()
    assert_step_equals_the_standalone_hosts(family_server, checkpoint, tmp_path)


@pytest.mark.parametrize("kind", ["ia3", "diag-oft", "glora"])
@pytest.mark.parametrize("family", ["sd2-v", "sdxl"])
def test_a_type_beside_a_family(family_server: Server, checkpoints: Path, family: str, kind: str, photos: Path) -> None:
    """The rarer types: of some attentions the webui reads all layers or none."""
    family_server.post("/sdapi/v1/options", {"sd_model_checkpoint": FAMILIES[family][0](checkpoints).name})
    client.generate(family_server, client.PROMPT)
    name = f"rare-{family}-{kind}"
    job = client.train(family_server, photos, name, save_precision="float", adapter_type=kind)
    assert job["state"] == "done", job
    found = family_server.get("/e2e/lora-output", params={"name": name})
    for part in set(found) - {"unchanged"}:
        assert found[part]["effect"] > 1e-3 and found[part]["error"] < 1e-4, (part, found)
    assert found["unchanged"]


def standalone_losses(checkpoint: Path, photos: Path, out: Path, **settings: object) -> list[float]:
    """The losses of the same run in this process, on diffusers' modules."""
    host = StandaloneHost(checkpoint, out, torch.device("cpu"), full_precision=True)
    flat = {**client.SMALL_RUN, "data": [str(photos)], "out": str(out), "name": "same", **settings}
    return [event.loss for event in train(build_config(flat), host, Stop()) if isinstance(event, StepDone)]


@pytest.mark.parametrize("family", ["sd2-v", "sdxl"])
def test_an_embedding_of_a_family(family_server: Server, checkpoints: Path, family: str, photos: Path) -> None:
    """Of one text encoder or two; the webui reads it from the file as the trainer read it."""
    family_server.post("/sdapi/v1/options", {"sd_model_checkpoint": FAMILIES[family][0](checkpoints).name})
    client.generate(family_server, client.PROMPT)
    flat = {"embedding_vectors": 2, "embedding_lr": 0.05, "text_encoder_lr": 0, "save_precision": "float", "steps": 2}
    job = client.train(family_server, photos, f"pivotal-{family}", **flat)
    assert job["state"] == "done", job
    (found,) = family_server.post(f"/e2e/words?name=pivotal-{family}", [client.PROMPT])
    assert found["error"] < 1e-4 and found["effect"] > 1e-3
