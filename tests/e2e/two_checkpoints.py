"""A data folder with a second checkpoint and a VAE of other weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

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


def select(server: Server, **options: Any) -> None:
    """As in the webui's settings; returns when it is done."""
    server.post("/sdapi/v1/options", options)
