"""Case 44: an exception in every phase of a run; the host is bit for bit as before."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from lib_lora.events import Finished
from tests.house import House

# room, what in it fails, at which call (0: the first)
PLACES: list[tuple[str, str, int]] = [
    ("lib_lora.train", "look", 0),
    ("lib_lora.train", "settled_notes", 0),
    ("lib_lora.train", "choose_precision", 0),
    ("lib_lora.train", "LatentSource", 0),
    ("lib_lora.training.latents", "posteriors", 0),
    ("lib_lora.training.latents", "posteriors", 2),
    ("lib_lora.training.latents", "load_example", 1),
    ("lib_lora.train", "Trainer", 0),
    ("lib_lora.training.trainer", "initial_adapters", 0),
    ("lib_lora.training.trainer", "Updater", 0),
    ("lib_lora.train", "LoraWriter", 0),
    ("lib_lora.output.checkpointer", "data_fingerprint", 0),
    ("lib_lora.training.trainer", "draw", 0),
    ("lib_lora.training.texts", "encode", 0),
    ("lib_lora.training.step", "compute_loss", 0),
    ("lib_lora.training.step", "compute_loss", 1),
    ("lib_lora.training.step", "batch_loss", 0),
    ("lib_lora.training.optimizer.Updater", "accumulate", 0),
    ("lib_lora.training.optimizer.Updater", "accumulate", 1),
    ("lib_lora.training.optimizer.Updater", "update", 0),
    ("lib_lora.training.optimizer.Updater", "update", 1),
    ("lib_lora.training.ema.MovingAverage", "update", 0),
    ("lib_lora.output.samples", "draw_preview", 0),
    ("lib_lora.output.lora_writer", "state_dict", 0),
    ("lib_lora.output.lora_writer", "file_metadata", 0),
    ("lib_lora.output.lora_writer", "serialise", 1),
    ("lib_lora.output.publish", "write", 0),
    ("lib_lora.output.checkpointer", "write_state", 0),
    ("lib_lora.output.lora_writer", "write_card", 0),
    ("lib_lora.output.lora_writer", "draw_preview", 0),
]  # fmt: skip


def owner(path: str) -> Any:
    """A room, or a class in one."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name) if name[0].isupper() else importlib.import_module(path)


@pytest.mark.case(44)
@pytest.mark.parametrize(
    ("room", "name", "call"), PLACES, ids=[f"{room}.{name} {call}".removeprefix("lib_lora.") for room, name, call in PLACES]
)
def test_an_exception_anywhere(
    room: str, name: str, call: int, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    """An exception in each phase, loading, caching, injecting, stepping, drawing, saving: the host is as before to the last bit."""
    real, calls = getattr(owner(room), name), []

    def fails(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == call + 1:
            raise RuntimeError("injected")
        return real(*args, **kwargs)

    flat = {"save_state": True, "save_every_n_steps": 1, "sample_every_n_steps": 1, "sample_prompts": "a --s 1", "preview_steps": 1,
            "ema_decay": 0.9}  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(owner(room), name, fails)
        run = house.run(quick(**flat))
    assert len(calls) > call, "never reached"
    assert len(run.told) == 1 and "injected" in run.told[0]
    forgiven = (room, name) in {
        ("lib_lora.output.samples", "draw_preview"),
        ("lib_lora.output.lora_writer", "write_card"),
        ("lib_lora.output.lora_writer", "draw_preview"),
    }
    assert bool(run.of(Finished)) == forgiven
    figure(f"{len(PLACES)} places")
