"""What needs CUDA. Nothing of it was ever measured: no GPU was at hand where the project was made; see docs/unmeasured.md."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from lib_lora.events import Finished, Planned, StepDone, Stop
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.output.lora_file import read
from lib_lora.replay import load_recording, replay
from lib_lora.train import train
from tests.conftest import small_config
from tests.recorded import RECORDED

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


@pytest.fixture
def host(mini_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    return StandaloneHost(mini_checkpoint, tmp_path / "out", torch.device("cuda"))


def trained(host: StandaloneHost, photos: Path, **flat: object) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of a run on the GPU, and its LoRA."""
    config = small_config(photos, host.lora_folder(), **flat)
    events = list(train(config, host, Stop()))
    assert isinstance(events[0], Planned) and isinstance(events[-1], Finished) and events[-1].path
    return [event.loss for event in events if isinstance(event, StepDone)], read(events[-1].path)[0]


@pytest.mark.parametrize(
    "flat",
    [
        {"mixed_precision": "fp16"},
        {"mixed_precision": "bf16"},
        {"mixed_precision": "fp16", "full_fp16": True},
        {"mixed_precision": "bf16", "full_bf16": True},
        {"mixed_precision": "fp16", "gradient_accumulation_steps": 2, "gradient_checkpointing": "on"},
        {"mixed_precision": "fp16", "network_dropout": 0.1, "rank_dropout": 0.1, "ema_decay": 0.9},
    ],
    ids=str,
)
def test_number_formats(flat: dict[str, object], host: StandaloneHost, photos: Path) -> None:
    losses, state = trained(host, photos, **flat, steps=8)
    assert all(math.isfinite(loss) for loss in losses)
    assert any(float(value.abs().max()) > 0 for key, value in state.items() if "lora_up" in key)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW8bit", "PagedAdamW", "Lion8bit", "SGDNesterov8bit"])
def test_optimizers_of_bitsandbytes(name: str, host: StandaloneHost, photos: Path) -> None:
    _, state = trained(host, photos, optimizer=name, mixed_precision="bf16")
    assert any(float(value.abs().max()) > 0 for key, value in state.items() if "lora_up" in key)


def test_checkpointing_saves_memory(host: StandaloneHost, photos: Path) -> None:
    peaks = []
    for choice in ("off", "on"):
        trained(host, photos, name=f"c_{choice}", gradient_checkpointing=choice, mixed_precision="bf16")
        peaks.append(torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()
    assert peaks[1] < peaks[0]


@pytest.mark.parametrize("recording", RECORDED, ids=lambda path: path.stem)
def test_replay_of_sd_scripts_on_the_gpu(recording: Path, mini_checkpoint: Path, tmp_path: Path) -> None:
    """In full precision, with TF32 off: bounds wider than a CPU's, since kernels add in another order."""
    host = StandaloneHost(mini_checkpoint, tmp_path, torch.device("cuda"), full_precision=True)
    with host.borrow_model() as base:
        report = replay(load_recording(recording), base)
    assert max(report["loss_rel_err"]) < 1e-3 and report["delta_cosine"] > 0.999
