"""`make demo`: train a LoRA with the product's own code on real pictures, and measure what it learned.

The checkpoint is a miniature of Stable Diffusion 1.5 with random weights, written on the spot: everything that happens to a
real one happens to it, in a minute, but what it draws is noise. So the demo's measure is the loss on pictures of the same
subject that were held out: with fixed noise and timesteps, without the LoRA and with it.

Writes build/demo/: the LoRA with its card, and loss.png. The last line of stdout is one JSON object.
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

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw

from lib_lora.config.groups import ObjectiveConfig, TrainConfig, build_config
from lib_lora.data.images import Pixels
from lib_lora.data.tokens import caption_ids
from lib_lora.events import Finished, StepDone, Stop
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.model.adapter import attached, pairs_from_state
from lib_lora.model.base import BaseModel
from lib_lora.objective.noise import TIMESTEPS, add_noise
from lib_lora.output.lora_file import read
from lib_lora.randomness import normal
from lib_lora.train import train
from lib_lora.training.latents import image_tensor
from lib_lora.training.step import StepInputs, compute_loss
from tests.synthetic import write_mini
from tools.demo_pictures import concept_regions, write_training_folder

SIDE, STEPS, TRIGGER = 128, 100, "ohwx"
NOISES = 12  # per held-out picture, with timesteps spread evenly over the schedule


def main(build: Path) -> dict[str, Any]:
    """Run the demo below `build`. The `concept_…` entries are null: they need a checkpoint that can draw."""
    started = float(os.environ.get("DEMO_STARTED") or time.time())
    shutil.rmtree(build, ignore_errors=True)
    host = StandaloneHost(write_mini(build / "model"), build)
    config = demo_config(build, write_training_folder(build / "pictures", 10, TRIGGER))
    heldout = concept_regions()[1]
    with host.borrow_model() as base:
        before, loss_before = fingerprint(base), heldout_loss(base, heldout)
    lora, losses = run(config, host)
    with host.borrow_model() as base:
        with attached(pairs_from_state(base.targets(), read(lora)[0], base.device)):
            loss_after = heldout_loss(base, heldout)
        unchanged = fingerprint(base) == before
    loss_chart(build / "loss.png", losses)
    return {
        "lora": str(lora), "steps": len(losses), "seconds": round(time.time() - started, 1), "loss_first": mean(losses[:20]),
        "loss_last": mean(losses[-20:]), "heldout_before": loss_before, "heldout_after": loss_after, "concept_without": None,
        "concept_with": None, "base_unchanged": unchanged,
    }  # fmt: skip


def demo_config(out: Path, data: Path) -> TrainConfig:
    """The settings of the demo."""
    return build_config({
        "data": [str(data)], "out": str(out), "name": "demo", "trigger": TRIGGER, "resolution": SIDE, "min_bucket_reso": SIDE,
        "batch_size": 2, "steps": STEPS, "rank": 8, "alpha": 8,
        "unet_lr": 2e-3, "text_encoder_lr": 1e-3, "lr_scheduler": "cosine",
        "preview_steps": 10,
    })  # fmt: skip


def run(config: TrainConfig, host: StandaloneHost) -> tuple[Path, list[float]]:
    """Train, with a bar on stderr; the file and the loss of every step."""
    losses, path = [], None
    for event in train(config, host, Stop()):
        if isinstance(event, StepDone):
            losses.append(event.loss)
            done = event.step * 40 // event.total
            bar = f"\r[{'#' * done:<40}] {event.step}/{event.total} loss {mean(losses[-20:]):.3f}"
            print(bar, end="", file=sys.stderr, flush=True)
        if isinstance(event, Finished):
            path = event.path
    print(file=sys.stderr)
    assert path is not None
    return path, losses


@torch.no_grad()
def heldout_loss(base: BaseModel, pictures: Sequence[Pixels]) -> float:
    """Mean loss over fixed noise and timesteps; whatever is attached to the model takes part."""
    ids = torch.tensor([caption_ids(base.tokenizer, TRIGGER, 75)] * NOISES)
    timesteps = torch.linspace(0, TIMESTEPS - 1, NOISES + 2)[1:-1].long()
    losses = []
    for number, picture in enumerate(pictures):
        small = np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
        posterior_mean, _ = base.encode_image(image_tensor(small)[None])
        latents = (posterior_mean * base.latent_scale).expand(NOISES, -1, -1, -1)
        noise = normal(tuple(latents.shape), 1, "heldout", number)
        noisy = add_noise(latents, noise, timesteps, base.alphas_cumprod)
        losses.append(float(compute_loss(base, StepInputs(noisy, noise, timesteps, ids), ObjectiveConfig(), 1)))
    return mean(losses)


def fingerprint(base: DiffusersModel) -> str:
    """SHA-256 over every weight and buffer of the three networks."""
    digest = hashlib.sha256()
    for module in (base.unet, base.text_encoder, base.vae):
        for tensor in [*module.parameters(), *module.buffers()]:
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def loss_chart(path: Path, losses: Sequence[float]) -> None:
    """Every loss, and their running mean over 20 steps."""
    image = Image.new("RGB", (800, 300), "white")
    pen = ImageDraw.Draw(image)
    low, high = min(losses), max(losses)

    def point(step: int, loss: float) -> tuple[float, float]:
        return 60 + 730 * step / max(len(losses) - 1, 1), 10 + 260 * (high - loss) / max(high - low, 1e-9)

    pen.line([point(i, loss) for i, loss in enumerate(losses)], fill=(250, 200, 160))
    pen.line([point(i, mean(losses[max(0, i - 19) : i + 1])) for i in range(len(losses))], fill=(234, 88, 12), width=3)
    for loss in (low, high):
        pen.text((8, point(0, loss)[1] - 6), f"{loss:.3f}", fill="black")
    pen.text((60, 280), f"step 1 to {len(losses)}", fill="black")
    image.save(path)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


if __name__ == "__main__":
    print(json.dumps({"demo": main(Path("build/demo"))}))
