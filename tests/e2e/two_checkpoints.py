"""A webui with a second checkpoint and a VAE of other weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.e2e import client
from tests.e2e.conftest import assert_as_before
from tests.e2e.server import Server, make_data_folder

OURS, OTHER, VAE = "tiny-sd1.safetensors", "other.safetensors", "colours.safetensors"


def make_folder(data: Path) -> None:
    """As `make_data_folder`, and these two files."""
    make_data_folder(data)
    models = data / "models"
    tensors = load_file(models / "Stable-diffusion" / OURS)
    noise = torch.Generator().manual_seed(3)
    other = {
        key: value + 0.02 * torch.randn(value.shape, generator=noise) if value.dtype.is_floating_point else value
        for key, value in ((key, value.float() if value.dtype.is_floating_point else value) for key, value in tensors.items())
    }
    save_file(other, models / "Stable-diffusion" / OTHER)
    sidecar = models / "Stable-diffusion" / OURS.replace("safetensors", "yaml")
    (models / "Stable-diffusion" / OTHER.replace("safetensors", "yaml")).write_text(sidecar.read_text())
    (models / "VAE").mkdir()
    first_stage = "first_stage_model."
    vae = {key[len(first_stage) :]: value for key, value in other.items() if key.startswith(first_stage)}
    save_file(vae, models / "VAE" / VAE)


def house_as_before(server: Server) -> Iterator[None]:
    """For a fixture: after the test, healed, idle and with the first checkpoint selected, the webui is as before."""
    select(server, sd_model_checkpoint=OURS, sd_vae="Automatic")
    client.generate(server, client.PROMPT)
    picture, host, files = client.generate(server, client.PROMPT), client.fingerprint(server), client.files_in(server.data)
    yield
    server.post("/e2e/heal")
    select(server, sd_model_checkpoint=OURS, sd_vae="Automatic")
    client.end_job(server)
    assert_as_before(server, host, picture, files)


def select(server: Server, **options: Any) -> None:
    """As in the webui's settings; returns when it is done."""
    server.post("/sdapi/v1/options", options)
