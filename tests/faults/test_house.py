"""Cases 43, 68, 70: the host unchanged bit for bit, no growth from run to run, and the numbers of sd-scripts."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from lib_lora.data.sizes import Size
from lib_lora.events import Finished, StepDone
from lib_lora.jobs.job import Job
from lib_lora.output.preview import PreviewRequest
from lib_lora.replay.step import load_recording, replay
from tests.house import HAS_LDM, House, drawn, on_the_gpu
from tests.recorded import RECORDED, assert_equal_to_sd_scripts

DATA = Path(__file__).parents[1] / "data"
PICTURES = 12


def twelve(host: Any) -> list[bytes]:
    """Pictures of fixed seeds, drawn as the host draws."""
    if HAS_LDM:
        from modules import shared  # type: ignore[import-not-found]  # the double

        from tests.pins.drawing import draw

        return [draw(shared.sd_model, f"a cat, number {seed}", seed=seed).tobytes() for seed in range(PICTURES)]
    return drawn(host, [PreviewRequest(f"a cat, number {seed}", Size(64, 64), 2, seed, 7.0) for seed in range(PICTURES)])


@pytest.mark.case(43)
def test_a_run_leaves_the_host_bit_for_bit(house: House, quick: Any, figure: Callable[[str], None]) -> None:
    """A whole run with states, samples and preview: tensors, types, flags, hooks and pictures of fixed seeds are the same."""
    before = twelve(house.host)
    flat = {
        "save_state": True,
        "save_every_n_steps": 1,
        "sample_every_n_steps": 1,
        "sample_prompts": "a --s 1",
        "preview_steps": 1,
    }
    assert (
        house.run(quick(train_layers="all", up_lr_weight="", down_lr_weight="", text_encoder_lr=1e-3, **flat))
        .of(Finished)[0]
        .path
    )
    assert twelve(house.host) == before and len(set(before)) == PICTURES
    figure(f"{PICTURES} pictures")


def alive(host: Any) -> tuple[int, int, int, int]:
    """Tensors, threads, open files of this process, bytes on the GPU."""
    gc.collect()
    tensors = sum(isinstance(found, torch.Tensor) for found in gc.get_objects())
    return tensors, threading.active_count(), psutil.Process().num_fds(), on_the_gpu(host)


@pytest.mark.case(68)
@pytest.mark.timeout(0)
def test_runs_in_a_row_leave_nothing_behind(house: House, quick: Any, long: bool, figure: Callable[[str], None]) -> None:
    """Runs in a row, every third one stopped and every fifth one failing: tensors, threads and open files stay, memory does not grow."""
    warm, count = (3, 20) if long else (1, 2)
    memory, counts = [], []

    def at(number: int) -> Callable[[object, Job], None]:
        def seen(event: object, job: Job) -> None:
            if isinstance(event, StepDone) and number % 3 == 2:
                job.control.request_stop(keep=False)
            if isinstance(event, StepDone) and number % 5 == 4:
                raise RuntimeError("injected")

        return seen

    flat = {"overwrite": True, "save_state": True, "sample_every_n_steps": 2, "sample_prompts": "a --s 1"}
    for number in range(warm + count):
        house.run(quick(**flat), at(number))
        if number >= warm:
            counts.append(alive(house.host))
            memory.append(psutil.Process().memory_info().rss)
    assert len(set(counts)) == 1, counts
    if long:
        slope = float(np.polyfit(range(count), memory, 1)[0]) * count / memory[0]
        figure(
            f"fitted slope of memory over {count} runs {slope:+.2%}; tensors, threads, files, bytes on the GPU always {counts[0]}"
        )
        assert slope <= 0.01


@pytest.mark.case(70)
@pytest.mark.parametrize("recording", [DATA / "mini-recording.safetensors", *RECORDED], ids=lambda path: path.stem)
def test_recorded_runs_are_replayed(recording: Path, house: House) -> None:
    """Runs recorded with sd-scripts, and with diffusers and peft: losses within 1e-5, the change of the weights with a cosine above 0.9999."""
    if house.host.device().type == "cuda":
        pytest.skip("in tests/test_gpu.py, with bounds of its own")
    with house.host.borrow_model() as base:
        assert_equal_to_sd_scripts(replay(load_recording(recording), base))
