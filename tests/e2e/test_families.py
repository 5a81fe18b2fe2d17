"""Every family in the webui itself: what it holds is recognised, trained, given back, and its own Lora extension reads the file."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open

from lib_lora.config.groups import build_config
from lib_lora.events import StepDone
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.e2e import client
from tests.e2e.conftest import run_server
from tests.e2e.round_trip import LOSSES, train_and_read_back
from tests.e2e.server import Server, Webui, make_data_folder
from tests.e2e.tab import Tab
from tests.e2e.test_numbers import assert_step_equals_the_standalone_hosts
from tests.e2e.test_types import TYPES
from tests.synthetic import write_mini_inpainting, write_mini_refiner, write_mini_sd2, write_mini_sdxl, write_mini_unclip

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.e2e

NOISE, VELOCITY = "noise (nothing indicates v)", "v (set in its configuration)"
# how its miniature is written, what it is called, what it predicts, ss_base_model_version, layers
FAMILIES: dict[str, tuple[Callable[[Path], Path], str, str, str, int]] = {
    "inpainting": (write_mini_inpainting, "SD 1.x inpainting", NOISE, "sd_v1", 12 + 192),
    "sd2": (write_mini_sd2, "SD 2.x", NOISE, "sd_v2", 54 + 192),
    "sd2-v": (functools.partial(write_mini_sd2, velocity=True), "SD 2.x", VELOCITY, "sd_v2_v", 54 + 192),
    "sd2-inpainting": (functools.partial(write_mini_sd2, inpaints=True), "SD 2.x inpainting", NOISE, "sd_v2", 54 + 192),
    "sdxl": (write_mini_sdxl, "SDXL", NOISE, "sdxl_base_v1-0", 12 + 60 + 242),
    "sdxl-v": (functools.partial(write_mini_sdxl, velocity=True), "SDXL", VELOCITY, "sdxl_base_v1-0", 12 + 60 + 242),
    "sdxl-inpainting": (
        functools.partial(write_mini_sdxl, inpaints=True), "SDXL inpainting", NOISE, "sdxl_base_v1-0", 12 + 60 + 242,
    ),
}  # fmt: skip


# with a yaml of their own the webui loads these as well
REFUSED = {"refiner": (write_mini_refiner, "an SDXL refiner"), "unclip": (write_mini_unclip, "UnCLIP")}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The miniatures' files by family, in the data folder of a webui that has no other."""
    data = tmp_path_factory.mktemp("families") / "data"
    make_data_folder(data)
    folder = data / "models" / "Stable-diffusion"
    shutil.rmtree(folder)
    (data / "config.json").write_text(json.dumps({"live_previews_enable": False}))  # SDXL's wants a download
    return {family: write(folder) for family, (write, *_) in FAMILIES.items()}


@pytest.fixture(scope="module")
def family_server(webui: Webui, checkpoints: dict[str, Path]) -> Iterator[Server]:
    """A webui with a miniature of every family to choose from."""
    for server in run_server(Server(webui, checkpoints["sdxl"].parent.parent.parent)):
        client.generate(server, client.PROMPT)  # the first load goes on behind the start, and selects a checkpoint itself
        yield server


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_the_webui(
    family_server: Server, checkpoints: dict[str, Path], family: str, photos: Path, tmp_path: Path
) -> None:
    """A run with the standalone host's losses, the file through the webui's own extension, the host bit for bit, and a step."""
    _, name, predicts, version, layers = FAMILIES[family]
    checkpoint = select(family_server, checkpoints[family])
    job = train_and_read_back(family_server, photos, family)
    assert job["choices"][0] == f"Model: {name}, predicts {predicts}; read from the loaded model."
    assert job["losses"] == pytest.approx(standalone_losses(checkpoint, photos, tmp_path), rel=LOSSES)
    with safe_open(family_server.lora_folder / f"{family}.safetensors", framework="pt") as file:
        metadata, keys = file.metadata(), {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118
    assert metadata["ss_base_model_version"] == version and len(keys) == layers
    assert_step_equals_the_standalone_hosts(family_server, checkpoint, tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "lora"])
@pytest.mark.parametrize("family", ["inpainting", "sd2-v", "sdxl"])
def test_a_type_beside_a_family(
    family_server: Server, checkpoints: dict[str, Path], family: str, kind: str, photos: Path
) -> None:
    """The families that name or fuse their layers in another way; SD 1.x itself is in `test_types.py`, LoRA in the test above.

    Of some attentions the webui reads all layers or none.
    """
    select(family_server, checkpoints[family])
    name = f"{family}-{kind.replace(' ', '-')}"
    job = train_and_read_back(family_server, photos, name, **{"adapter_type": kind, "steps": 2, **TYPES[kind]})
    with safe_open(family_server.lora_folder / f"{name}.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert len(job["losses"]) == 2 and metadata["ss_base_model_version"] == FAMILIES[family][3]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_checkpoint_that_cannot_be_trained(
    family_server: Server, checkpoints: dict[str, Path], kind: str, photos: Path
) -> None:
    """Refused by name, with the model as it was; the webui goes on drawing with it."""
    write, called = REFUSED[kind]
    checkpoint = select(family_server, write(checkpoints["sdxl"].parent))
    picture, before = client.generate(family_server, client.PROMPT), client.fingerprint(family_server)
    job = client.train(family_server, photos, f"no-{kind}")
    told = f"The loaded checkpoint {checkpoint.name!r} is {called}; only SD 1.x, SD 2.x, SDXL and their inpainting models"
    assert job["state"] == "failed" and job["step"] == 0 and len(job["problems"]) == 1, job
    assert job["problems"][0].startswith(told)
    assert client.changes(before, client.fingerprint(family_server)) == []
    assert (client.generate(family_server, client.PROMPT) == picture).all()
    assert f"no-{kind}.safetensors" not in client.files_in(family_server.lora_folder)


@pytest.mark.usefixtures("one_thread")
def test_v_is_declared_by_hand_in_the_tab(
    page: Page, family_server: Server, checkpoints: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    """Of an SDXL without a NAME.yaml and without a mark in the file: nothing says it but the tick box."""
    bare, yaml = checkpoints["sdxl"].with_name("bare.safetensors"), checkpoints["sdxl"].with_suffix(".yaml")
    shutil.copyfile(checkpoints["sdxl"], bare)
    shutil.copyfile(yaml, family_server.data / "sd_xl_base.yaml")
    client.break_(family_server, "small sdxl")
    try:
        select(family_server, bare)
        tab = Tab(page, family_server.url)
        tab.open()
        tab.fill(data=photos, name="by hand", **client.SMALL_RUN)
        tab.wait_for_report(f"SDXL, predicts {NOISE}")
        tab.fill(v_parameterization=True)
        tab.wait_for_report("SDXL, predicts v (set by Checkpoint predicts v)")
        tab.train_and_wait_for_job()
        tab.wait_for_state("done")
        job = client.status(family_server)
    finally:
        family_server.post("/e2e/heal")
    assert job and job["choices"][0].startswith("Model: SDXL, predicts v (set by Checkpoint predicts v);")
    wanted = standalone_losses(bare, photos, tmp_path, v_parameterization=True)
    assert job["losses"] == pytest.approx(wanted, rel=LOSSES) and len(wanted) == client.SMALL_RUN["steps"]
    with safe_open(family_server.lora_folder / "by hand.safetensors", framework="pt") as file:
        assert file.metadata()["modelspec.prediction_type"] == "v"


def select(server: Server, checkpoint: Path) -> Path:
    """Make the webui hold `checkpoint`, which may be new."""
    server.post("/sdapi/v1/refresh-checkpoints")
    server.post("/sdapi/v1/options", {"sd_model_checkpoint": checkpoint.name})
    client.generate(server, client.PROMPT)  # loads the model
    held = server.get("/e2e/kept")["held"]
    assert held == checkpoint.name, f"the webui holds {held}"
    return checkpoint


def standalone_losses(checkpoint: Path, photos: Path, out: Path, **settings: object) -> list[float]:
    """The losses of the same run in this process, on diffusers' modules."""
    host = StandaloneHost(checkpoint, out, torch.device("cpu"), full_precision=True)
    flat = {**client.SMALL_RUN, "data": [str(photos)], "out": str(out), "name": "same", **settings}
    return [event.loss for event in train(build_config(flat), host, RunControl()) if isinstance(event, StepDone)]


@pytest.mark.parametrize("family", ["sd2-v", "sdxl"])
def test_an_embedding_of_a_family(family_server: Server, checkpoints: dict[str, Path], family: str, photos: Path) -> None:
    """Of one text encoder or two; the webui reads it from the file as the trainer read it."""
    select(family_server, checkpoints[family])
    flat = {"embedding_vectors": 2, "embedding_lr": 0.05, "text_encoder_lr": 0, "save_precision": "float", "steps": 2}
    job = client.train(family_server, photos, f"pivotal-{family}", **flat)
    assert job["state"] == "done", job
    (found,) = family_server.post(f"/e2e/words?name=pivotal-{family}", [client.PROMPT])
    assert found["error"] < 1e-4 and found["effect"] > 1e-3
