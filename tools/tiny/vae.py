"""The VAE of the tiny checkpoint: trained on crops of pictures, then whitened so that latents have unit variance."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from lib_lora.data.images import Pixels
from lib_lora.families.sd1 import SD1
from lib_lora.training.vae import image_tensor
from tools.tiny.pictures import SIDE, paint, photograph, scene

CHANNELS = (64, 64, 64, 64)  # two per group of GroupNorm: one would lose the brightness of the whole picture
BATCH, PIECE, LEARNING_RATE = 16, 64, 1e-3
PAINTED, PHOTOGRAPHS, WHITENED_ON = 3000, 1500, 400  # pictures
LATENT_NOISE = 0.1  # of the latents' spread, while training: makes the decoder robust to errors of a small U-Net
POSTERIOR_STD = 0.05  # of a latent of unit variance

log = logging.getLogger(__name__)


def new_vae() -> AutoencoderKL:
    """An untrained VAE like Stable Diffusion's: factor 8, four latent channels, one residual block per level.

    It starts as plain averaging and repeating, with silent residual branches, so that colours are learned within minutes.
    """
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=32,
    )
    start_silent(vae)
    for block in vae.encoder.down_blocks[:-1]:
        _identity(block.downsamplers[0].conv, [(row, column) for row in (0, 1) for column in (0, 1)])
    for block in vae.decoder.up_blocks[:-1]:
        _identity(block.upsamplers[0].conv, [(1, 1)])
    return vae


@torch.no_grad()
def start_silent(network: nn.Module) -> None:
    """Make residual branches and attentions add nothing at first (ldm `zero_module`)."""
    for name, module in network.named_modules():
        if name.endswith(("conv2", "to_out.0", "proj_out", "ff.net.2")):
            for weight in module.parameters():
                weight.zero_()


@torch.no_grad()
def _identity(conv: nn.Conv2d, taps: Sequence[tuple[int, int]]) -> None:
    """Initialise so that every channel is its own mean over the given places of the kernel."""
    conv.weight *= 0.1
    conv.bias.zero_()
    for row, column in taps:
        conv.weight[:, :, row, column] += torch.eye(len(conv.weight)) / len(taps)


def train_vae(steps: int, seed: int) -> AutoencoderKL:
    """A trained and whitened VAE."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pictures = [paint(scene(rng), rng) for _ in range(PAINTED)] + [photograph(rng) for _ in range(PHOTOGRAPHS)]
    vae = new_vae().train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    warmup = min(50, steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.01)
    )
    started = time.time()
    for step in range(steps):
        pixels = _pieces(pictures, rng)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(pixels).latent_dist.mode().float()
            noisy = latents + LATENT_NOISE * latents.detach().std() * torch.randn_like(latents)
            decoded = vae.decode(noisy).sample.float()
        loss = reconstruction_loss(decoded, pixels) + 1e-4 * latents.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            log.info("vae step %d/%d loss %.4f, %.0f s", step + 1, steps, float(loss.detach()), time.time() - started)
    vae.eval()
    whiten(vae, pictures[:WHITENED_ON])
    return vae


def reconstruction_loss(decoded: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the pixels, of their differences (edges), and of their averages over 4×4 (colours)."""
    loss = (decoded - pixels).abs().mean()
    for dim in (2, 3):
        loss = loss + 0.5 * (decoded.diff(dim=dim) - pixels.diff(dim=dim)).abs().mean()
    return loss + 0.5 * (F.avg_pool2d(decoded, 4) - F.avg_pool2d(pixels, 4)).abs().mean()


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Sequence[Pixels], batch: int = 16) -> torch.Tensor:
    """Posterior means, scaled, fp32. Shapes: `[128, 128, 3]` each -> `[n, 4, 16, 16]`."""
    encoded = []
    for first in range(0, len(pictures), batch):
        pixels = torch.stack([image_tensor(picture) for picture in pictures[first : first + batch]])
        with torch.autocast("cpu", torch.bfloat16):
            encoded.append(vae.encode(pixels).latent_dist.mode().float() * SD1.latent_scale)
    return torch.cat(encoded)


@torch.no_grad()
def whiten(vae: Any, pictures: Sequence[Pixels]) -> None:
    """Change the two 1×1 convolutions around the latents so that scaled latents have zero mean and unit covariance.

    With latents z, mean m and covariance C:  z' = C^(-1/2) (z - m) / scale, and back. The posterior gets a fixed spread.
    """
    latents = encode(vae, pictures) / SD1.latent_scale
    columns = latents.transpose(0, 1).flatten(1).double()  # [4, n · 16 · 16]
    mean = columns.mean(dim=1)
    values, vectors = torch.linalg.eigh(torch.cov(columns))
    into = vectors @ torch.diag(values.rsqrt()) @ vectors.T / SD1.latent_scale
    back = torch.linalg.inv(into)
    quant, post = vae.quant_conv, vae.post_quant_conv
    weight, bias = quant.weight[:4, :, 0, 0].double(), quant.bias[:4].double()
    quant.weight.zero_()
    quant.weight[:4, :, 0, 0] = (into @ weight).float()
    quant.bias[:4] = (into @ (bias - mean)).float()
    quant.bias[4:] = 2 * math.log(POSTERIOR_STD / SD1.latent_scale)
    weight = post.weight[:, :, 0, 0].double()
    post.bias += (weight @ mean).float()
    post.weight[:, :, 0, 0] = (weight @ back).float()


def _pieces(pictures: Sequence[Pixels], rng: np.random.Generator) -> torch.Tensor:
    """A batch of random crops, `[16, 3, 64, 64]` in -1..1."""
    pieces = []
    for index in rng.integers(len(pictures), size=BATCH):
        top, left = rng.integers(SIDE - PIECE + 1, size=2)
        pieces.append(image_tensor(pictures[index][top : top + PIECE, left : left + PIECE]))
    return torch.stack(pieces)
