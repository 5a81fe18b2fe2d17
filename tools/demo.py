"""`make demo`: train a LoRA of a new concept on real pictures, and measure what it learned.

The embedded tiny checkpoint draws balls and stars on grass, but no coins. Two thirds of the coins of a photograph are trained on,
the rest are held out for two measures: the loss (fixed noise and timesteps), and the share of pictures drawn from the trigger
word alone that are nearer to the held-out coins than to anything the checkpoint knows.

Writes build/demo/: the LoRA with its card, before_after.png and loss.png. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.events import Encoded, Finished, StepDone
from lib_lora.files.lora_file import read
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.model.adapter import adapters_from_state, attached
from lib_lora.run_control import RunControl
from lib_lora.tiny import write_tiny
from lib_lora.train import train
from tools.demo_figures import comparison, loss_chart
from tools.demo_pictures import SIDE, concept_pictures, write_training_folder
from tools.demo_score import concept_score, draw, fingerprint, heldout_loss

STEPS, TRIGGER = 240, "ohwx"


def main(build: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run the demo in `build`, with `changes` to its settings."""
    started = float(os.environ.get("DEMO_STARTED") or time.time())
    shutil.rmtree(build, ignore_errors=True)
    host = StandaloneHost(write_tiny(build / "model"), build, torch.device("cpu"))  # the same figures everywhere
    config = demo_config(build, write_training_folder(build / "pictures", 10, TRIGGER), changes or {})
    heldout = concept_pictures()[1]
    with host.borrow_model() as base:
        before, loss_before, without = fingerprint(base), heldout_loss(base, heldout, TRIGGER), draw(base, TRIGGER)
    lora, losses = run(config, host)
    with host.borrow_model() as base:
        with attached(adapters_from_state(base.targets(), read(lora)[0], base.device)):
            loss_after, drawn = heldout_loss(base, heldout, TRIGGER), draw(base, TRIGGER)
        unchanged = fingerprint(base) == before
    loss_chart(build / "loss.png", losses)
    rows = [("held-out photographs", heldout), ("without the LoRA,\nseeds 0 to 7", without), ("with it,\nsame seeds", drawn)]
    comparison(build / "before_after.png", rows)
    return {
        "lora": str(lora), "steps": len(losses), "seconds": round(time.time() - started, 1),
        "loss_first": float(np.mean(losses[:20])), "loss_last": float(np.mean(losses[-20:])),
        "heldout_before": loss_before, "heldout_after": loss_after,
        "concept_without": concept_score(without, heldout), "concept_with": concept_score(drawn, heldout),
        "base_unchanged": unchanged,
    }  # fmt: skip


def demo_config(out: Path, data: Path, changes: Mapping[str, Any]) -> TrainConfig:
    """The settings of the demo."""
    return build_config({
        "data": [str(data)], "out": str(out), "name": "demo", "trigger": TRIGGER, "resolution": SIDE, "min_bucket_reso": SIDE,
        "batch_size": 4, "steps": STEPS, "rank": 16, "alpha": 16,
        "unet_lr": 2e-3, "text_encoder_lr": 5e-4, "lr_scheduler": "cosine",
        "preview_steps": 20, **changes,
    })  # fmt: skip


def run(config: TrainConfig, host: StandaloneHost) -> tuple[Path, list[float]]:
    """Train with a progress bar on stderr; returns the LoRA file and the loss of every step."""
    losses, path, started = [], None, time.time()
    for event in train(config, host, RunControl()):
        if isinstance(event, Encoded):
            print(f"\rencoded {event.done}/{event.total} pictures", end="", file=sys.stderr, flush=True)
        if isinstance(event, StepDone):
            losses.append(event.loss)
            left = (time.time() - started) / event.step * (event.total - event.step)
            bar = f"\r[{'#' * (event.step * 40 // event.total):<40}] {event.step}/{event.total}"
            print(f"{bar} loss {np.mean(losses[-20:]):.3f}, {left:.0f} s left ", end="", file=sys.stderr, flush=True)
        if isinstance(event, Finished):
            path = event.path
    print(file=sys.stderr)
    assert path is not None
    return path, losses


if __name__ == "__main__":
    print(json.dumps({"demo": main(Path("build/demo"))}))
