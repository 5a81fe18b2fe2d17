"""`make demo`: train a LoRA with the product's own code on real pictures and the embedded tiny checkpoint, and show what it does.

Writes build/demo/: the LoRA with its card, before-after.png, loss.png. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib_lora.tiny import write_tiny
from PIL import Image, ImageDraw

from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.data.images import Pixels
from lib_lora.data.sizes import Size
from lib_lora.events import Finished, StepDone, Stop
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.model.adapter import attached, pairs_from_state
from lib_lora.output.lora_file import read
from lib_lora.sample import Request, sample
from lib_lora.train import train
from lib_lora.training.precision import choose_precision
from tools.demo_pictures import concept_regions, other_classes, write_training_folder
from tools.demo_score import concept_share, heldout_loss, small

SIDE, SEEDS, STEPS = 64, 16, 400
TRIGGER = "ohwx"


def main(build: Path) -> dict[str, Any]:
    """Run the demo below `build`; the result is DESIGN.md's `demo` object."""
    started = float(os.environ.get("DEMO_STARTED") or time.time())
    shutil.rmtree(build, ignore_errors=True)
    host = StandaloneHost(write_tiny(build / "model"), build)
    config = demo_config(build, write_training_folder(build / "pictures", 10, TRIGGER))
    heldout = concept_regions()[1]
    with host.borrow_model() as base:
        unchanged = fingerprint(base)
        without, loss_without = draw(base), heldout_loss(base, heldout, TRIGGER, SIDE)
    lora, losses = run(config, host)
    with host.borrow_model() as base:
        with attached(pairs_from_state(base.targets(), read(lora)[0], base.device)):
            pictures, loss_with = draw(base), heldout_loss(base, heldout, TRIGGER, SIDE)
        same = fingerprint(base) == unchanged
    before_after(build / "before-after.png", without, pictures, heldout)
    loss_chart(build / "loss.png", losses)
    others = other_classes()
    return {
        "lora": str(lora), "steps": len(losses), "seconds": round(time.time() - started, 1),
        "loss_first": mean(losses[:40]), "loss_last": mean(losses[-40:]),
        "heldout_before": loss_without, "heldout_after": loss_with,
        "concept_without": concept_share(without, heldout, others, SIDE),
        "concept_with": concept_share(pictures, heldout, others, SIDE), "base_unchanged": same,
    }  # fmt: skip


def demo_config(out: Path, data: Path, **changes: object) -> TrainConfig:
    """The settings of the demo; `changes` for its control runs."""
    return build_config({
        "data": [str(data)], "out": str(out), "name": "demo", "resolution": SIDE, "min_bucket_reso": SIDE, "batch_size": 4,
        "steps": STEPS, "rank": 8, "alpha": 8, "unet_lr": 2e-3, "text_encoder_lr": 1e-3, "lr_scheduler": "cosine",
        "preview_steps": 20, "trigger": TRIGGER, **changes,
    })  # fmt: skip


def run(config: TrainConfig, host: StandaloneHost) -> tuple[Path, list[float]]:
    """Train, with a bar on stderr; the file and the loss of every step."""
    losses, path = [], None
    for event in train(config, host, Stop()):
        if isinstance(event, StepDone):
            losses.append(event.loss)
            done = event.step * 40 // event.total
            print(
                f"\r[{'#' * done:<40}] {event.step}/{event.total} loss {mean(losses[-40:]):.3f}",
                end="",
                file=sys.stderr,
                flush=True,
            )
        if isinstance(event, Finished):
            path = event.path
    print(file=sys.stderr)
    assert path is not None
    return path, losses


def draw(base: DiffusersModel) -> list[Pixels]:
    """One picture of the trigger word per seed."""
    precision = choose_precision("auto", base.device)
    return [sample(base, Request(TRIGGER, Size(SIDE, SIDE), 20, seed, guidance=4.0), precision) for seed in range(SEEDS)]


def fingerprint(base: DiffusersModel) -> str:
    """SHA-256 over every weight and buffer of the three networks."""
    digest = hashlib.sha256()
    for module in (base.unet, base.text_encoder, base.vae):
        for tensor in [*module.parameters(), *module.buffers()]:
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def before_after(path: Path, without: Sequence[Pixels], with_lora: Sequence[Pixels], heldout: Sequence[Pixels]) -> None:
    """Three rows: without, with (same seeds), and held-out photographs."""
    rows = [np.concatenate([small(p, SIDE) for p in row[:8]], axis=1) for row in (without, with_lora, heldout)]
    gap = np.full((6, rows[0].shape[1], 3), 255, np.uint8)
    grid = np.concatenate([rows[0], gap, rows[1], gap, rows[2]])
    Image.fromarray(grid).resize((grid.shape[1] * 2, grid.shape[0] * 2), Image.Resampling.LANCZOS).save(path)


def loss_chart(path: Path, losses: Sequence[float]) -> None:
    """Every loss, and their running mean over 40 steps."""
    image = Image.new("RGB", (800, 300), "white")
    pen = ImageDraw.Draw(image)
    low, high = min(losses), max(losses)

    def point(step: int, loss: float) -> tuple[float, float]:
        return 60 + 730 * step / max(len(losses) - 1, 1), 10 + 260 * (high - loss) / max(high - low, 1e-9)

    pen.line([point(i, loss) for i, loss in enumerate(losses)], fill=(250, 200, 160))
    pen.line([point(i, mean(losses[max(0, i - 39) : i + 1])) for i in range(len(losses))], fill=(234, 88, 12), width=3)
    for loss in (low, high):
        pen.text((8, point(0, loss)[1] - 6), f"{loss:.3f}", fill="black")
    pen.text((60, 280), f"step 1 to {len(losses)}", fill="black")
    image.save(path)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


if __name__ == "__main__":
    print(json.dumps({"demo": main(Path("build/demo"))}))
