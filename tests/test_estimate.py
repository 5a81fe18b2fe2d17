"""The memory account against computed steps, and on the full shapes of SD 1.5 and SDXL."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.cli import main
from lib_lora.data.sizes import Size
from lib_lora.estimate.estimate import state_bytes
from lib_lora.estimate.meta import meta_model
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.model.adapter import parameters
from lib_lora.settle import settle
from lib_lora.training.initial_adapters import initial_adapters
from tests.conftest import small_config
from tests.counted import counted_step, told_step
from tests.models import shared_host

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("checkpointing", [False, True], ids=["keeps all", "checkpointing"])
@pytest.mark.parametrize("kind", ["mini_checkpoint", "mini_sdxl"])
def test_a_step_takes_what_the_account_says(
    kind: str, checkpointing: bool, request: pytest.FixtureRequest, photos: Path, tmp_path: Path
) -> None:
    config = small_config(photos, tmp_path, batch_size=2)
    with shared_host(request.getfixturevalue(kind), tmp_path).borrow_model() as base:
        found = counted_step(config, base, Size(192, 128), checkpointing=checkpointing)
        told = told_step(config, base, Size(192, 128), checkpointing=checkpointing)
    assert told == (pytest.approx(found[0], rel=0.05), pytest.approx(found[1], rel=0.1))


def test_other_types_and_convolutions(shallow_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    with shared_host(shallow_checkpoint, tmp_path).borrow_model() as base:
        for flat in ({"adapter_type": "dora"}, {"adapter_type": "lokr"}, {"conv_dim": 2, "conv_alpha": 1}):
            config = small_config(photos, tmp_path, **flat)
            found = counted_step(config, base, Size(128, 128), checkpointing=False)
            told = told_step(config, base, Size(128, 128), checkpointing=False)
            assert told == (pytest.approx(found[0], rel=0.03), pytest.approx(found[1], rel=0.1)), flat


@pytest.mark.parametrize(("optimizer", "factor"), [("AdamW", 2), ("SGDNesterov", 1), ("AdamW8bit", 8 / 4)])
def test_state_of_the_optimizer(optimizer: str, factor: float, mini_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """The miniature's tensors are too small for states in 8 bits."""
    config = settle(small_config(photos, tmp_path, optimizer=optimizer, unet_lr=1e-3), None)
    pairs = initial_adapters(config, meta_model(StandaloneHost(mini_checkpoint, tmp_path, torch.device("cpu")).look()))
    values = sum(value.numel() for value in parameters(pairs))
    assert state_bytes(config, pairs, "cpu") == pytest.approx(4 * factor * values, rel=0.03)


def only_header(path: Path, shapes: dict[str, list[int]]) -> Path:
    """A checkpoint of fp16 tensors that takes no place on the disk."""
    header: dict[str, Any] = {}
    end = 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * int(torch.Size(shape).numel())
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.mark.parametrize(("shapes", "side", "most_gb"), [("sd15_shapes.json", 512, 6), ("sdxl_shapes.json", 1024, 11)])
def test_full_shapes_fit_small_gpus(
    shapes: str, side: int, most_gb: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = only_header(tmp_path / "full.safetensors", json.loads((DATA / shapes).read_text()))
    arguments = ["estimate", "--checkpoint", str(checkpoint), "--resolution", str(side), "--device", "cuda", "--json"]
    assert main([*arguments, "--mixed-precision", "bf16", "--gradient-checkpointing", "on"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "bf16, gradient checkpointing on" in found["title"] and found["peak"] == max(found["phases"].values())
    held = sum(found["weights"].values()) + sum(found["adapters"].values())
    assert found["phases"]["training"] > held + found["kept_for_backward"]
    assert held < found["peak"] < most_gb * 2**30
