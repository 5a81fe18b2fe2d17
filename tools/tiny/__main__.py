"""Make the embedded tiny checkpoint from scratch, within an hour on two cores.

    python -m tools.tiny [FOLDER]

writes FOLDER/tiny-sd1.safetensors (default build/tiny); the embedded one is in lib_lora/assets/tiny.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tools.tiny.checkpoint import write_checkpoint
from tools.tiny.denoiser import Networks, Phase, train_networks
from tools.tiny.pictures import paint, scene
from tools.tiny.vae import encode, train_vae

SEED = 1
VAE_STEPS, PICTURES = 1400, 8000
PHASES = (  # first everything; then more at high noise, which decides shapes, with full captions
    Phase(steps=2600, learning_rate=1.2e-3, noisy=0.0, left_out=1 / 8),
    Phase(steps=600, learning_rate=8e-4, noisy=0.7, left_out=0.0),
)

log = logging.getLogger("tools.tiny")


def main(folder: Path) -> Path:
    """Train everything and write the file."""
    started = time.time()
    vae = train_vae(VAE_STEPS, SEED)
    rng = np.random.default_rng(SEED + 1)
    scenes = [scene(rng) for _ in range(PICTURES)]
    latents = encode(vae, [paint(words, rng) for words in scenes])
    log.info("%d pictures encoded, %.0f s", PICTURES, time.time() - started)
    torch.manual_seed(SEED + 2)
    networks = Networks()
    for number, phase in enumerate(PHASES):
        networks = train_networks(networks, latents, scenes, phase, SEED + 2 + number)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny-sd1.safetensors"
    write_checkpoint(path, networks.unet, networks.text_encoder, vae)
    log.info("%s written, %.0f s in all", path, time.time() - started)
    return path


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/tiny"))
