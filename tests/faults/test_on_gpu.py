"""Cases 1 and 3 on CUDA (`--faults gpu`): memory that really runs out, and is freed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lib_lora.events import Encoded, Finished, StepDone
from tests.house import HAS_LDM, House, on_the_gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(HAS_LDM or not torch.cuda.is_available(), reason="needs CUDA, and the standalone host"),
]
Figure = Callable[[str], None]
MB = 2**20


@pytest.fixture(autouse=True)
def on_cuda(host: Any) -> None:
    """Skips the test unless the host is on CUDA."""
    if host.device().type != "cuda":
        pytest.skip("run with --faults gpu")


@pytest.fixture
def short_memory() -> Iterator[Callable[[int], None]]:
    """Limits torch to so many bytes more than it holds now."""

    def leave(more: int) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.case(1)
@pytest.mark.parametrize("more", [2, 24, 48], ids=lambda more: f"{more} MB")
def test_memory_is_really_short(more: int, house: House, quick: Any, short_memory: Callable[[int], None], figure: Figure) -> None:
    """The card has 2, 24 or 48 MB more than the model takes: the run ends with what to lower, or does with it; then there is room, and it trains."""
    flat = {"batch_size": 4, "resolution": 256, "train_layers": "all", "up_lr_weight": "", "down_lr_weight": "", "rank": 8}
    short_memory(more * MB)
    run = house.run(quick(**flat))
    short_memory(8 * 2**30)
    told = " ".join(run.told)
    if not run.of(Finished):
        assert len(run.told) == 1 and ("memory" in told) and ("Batch size (batch_size)" in told or "batch" in told.lower()), (
            run.told
        )
    figure(
        f"{more} MB: {'trained' if run.of(Finished) else 'ended'} at step {len(run.of(StepDone))}, {len(run.of(Encoded))} encoded"
    )
    assert house.run(quick(**flat, name="after")).of(Finished)


@pytest.mark.case(3)
def test_memory_comes_back(house: House, quick: Any, figure: Figure) -> None:
    """A run with samples, preview and states: what tensors hold on the card afterwards is what they held before, within 50 MB."""
    before = on_the_gpu(house.host)
    run = house.run(quick(sample_every_n_steps=1, sample_prompts="a --s 1", preview_steps=1, save_state=True, steps=3))
    assert run.of(Finished)
    figure(f"{(on_the_gpu(house.host) - before) / MB:+.1f} MB")
