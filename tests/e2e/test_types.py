"""Every type of adapter trained in the webui itself: what it learned is in its own prompts, and the host is as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.e2e.round_trip import train_and_read_back
from tests.e2e.server import Server

pytestmark = pytest.mark.e2e

TYPES: dict[str, dict[str, Any]] = {
    "lora": {},
    "locon": {"adapter_type": "lora", "conv_dim": 2},
    "dylora": {"adapter_type": "lora", "unit": 2},
    "dora": {"conv_dim": 2},
    "loha": {"conv_dim": 2},
    "lokr": {"conv_dim": 2, "factor": 4},
    "lokr whole": {"adapter_type": "lokr", "full_matrix": True, "unet_lr": 0.001, "text_encoder_lr": 0.001},
    "ia3": {"unet_lr": 0.05, "text_encoder_lr": 0.05},
    "diag-oft": {"conv_dim": 2},
    "glora": {},
}


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_in_the_webui(server: Server, kind: str, photos: Path) -> None:
    """Trained, loaded with every key matched, the same numbers in a prompt, in bf16 near to them, and nothing else changed."""
    name = f"type-{kind.replace(' ', '-')}"
    train_and_read_back(server, photos, name, **{"adapter_type": kind, **TYPES[kind]})
    path = server.lora_folder / f"{name}.safetensors"
    half = path.with_name(f"{name}-bf16.safetensors")
    save_file({key: value.to(torch.bfloat16) for key, value in load_file(path).items()}, half)
    rounded = server.get("/e2e/lora-output", params={"name": half.stem, "ours": name})
    print(kind, "bf16", rounded)
    assert all(0 < rounded[part]["error"] < 1e-2 for part in ("unet", "text_encoder"))
