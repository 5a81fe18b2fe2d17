"""The U-Net and the text encoder of the tiny checkpoint, trained together from scratch on latents and captions."""

from __future__ import annotations

import copy
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from lib_lora.data.tokens import caption_ids, load_tokenizer
from lib_lora.families.ddpm import STEPS, Ddpm, scaled_linear
from lib_lora.model.text_encoders import ClipEncoder, clip_core
from tools.tiny.pictures import Scene, caption
from tools.tiny.vae import POSTERIOR_STD, start_silent

WIDTH = 64  # of the text encoder
UNET_CHANNELS = (64, 128, 128, 64)
BATCH = 32
EMPTY_CAPTIONS = 0.1  # for guidance
HALF_LIFE_STEPS = 150  # of the EMA of the weights
SMALLEST_SNR = 0.04

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A phase of the training.

    Args:
        steps: updates.
        learning_rate: its peak.
        noisy: share of each batch that is drawn only from the noisier half of the timesteps, which decides shapes.
        left_out: probability of leaving out a part of a caption.
    """

    steps: int
    learning_rate: float
    noisy: float
    left_out: float


def new_unet() -> UNet2DConditionModel:
    """An untrained U-Net with Stable Diffusion 1.x's four levels of two residual blocks and eight heads."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=UNET_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=32,
    )
    start_silent(unet)
    unet.set_attn_processor(AttnProcessor())  # heads of eight channels: torch's fused kernel is slower on a CPU
    return unet


def new_text_encoder() -> CLIPTextModel:
    """An untrained CLIP text encoder with the real vocabulary; all words differ from the start, also unseen ones."""
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=1,
            hidden_act="quick_gelu",
            projection_dim=WIDTH,
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    )
    embeddings: Any = clip_core(encoder).embeddings
    nn.init.normal_(embeddings.token_embedding.weight, std=0.3)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.1)
    return encoder


class Networks(nn.Module):
    """Both networks as one module, with one EMA."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = new_unet()
        self.text_encoder = new_text_encoder()

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The predicted noise. Shapes: `[B, 4, h, w]`, `[B]`, `[B, 77]` -> `[B, 4, h, w]`."""
        context = ClipEncoder(self.text_encoder).read(ids, 1).hidden
        predicted: torch.Tensor = self.unet(noisy, timesteps, encoder_hidden_states=context, return_dict=False)[0]
        return predicted.float()


def train_networks(networks: Networks, latents: torch.Tensor, scenes: list[Scene], phase: Phase, seed: int) -> Networks:
    """Train the networks for a phase; returns their EMA.

    Shapes:
        latents: `[n, 4, 16, 16]`, scaled posterior means; one scene each
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    process = scaled_linear()
    captions = _Captions()
    networks.train()
    average = copy.deepcopy(networks).eval()
    optimizer = torch.optim.AdamW(networks.parameters(), lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, phase.steps))
    losses, started = [], time.time()
    for step in range(phase.steps):
        chosen = rng.integers(len(scenes), size=BATCH)
        clean = latents[chosen] + POSTERIOR_STD * torch.randn(BATCH, *latents.shape[1:])
        ids = captions.ids([_drawn_caption(scenes[index], rng, phase.left_out) for index in chosen])
        timesteps = _timesteps(phase.noisy, rng)
        noise = torch.randn_like(clean)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = networks(process.add_noise(clean, noise, timesteps), timesteps, ids)
        loss = ((predicted - noise).square().mean(dim=(1, 2, 3)) * _weights(timesteps, process)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        _follow(average, networks, step)
        losses.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            log.info("step %d/%d loss %.4f, %.0f s", step + 1, phase.steps, np.mean(losses[-100:]), time.time() - started)
    return average


def _timesteps(noisy: float, rng: np.random.Generator) -> torch.Tensor:
    """Evenly spread timesteps, the last `noisy` share of the batch over the noisier half; `[B]`."""
    count = round(noisy * BATCH)
    plain, late = ((np.arange(n) + rng.random(n)) / max(n, 1) for n in (BATCH - count, count))
    return torch.from_numpy(np.concatenate([plain, (1 + late) / 2]) * STEPS).long()


def _rate(step: int, steps: int) -> float:
    """Factor on the learning rate: 100 steps of warm-up, then half a cosine."""
    return min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.01)


def _weights(timesteps: torch.Tensor, process: Ddpm) -> torch.Tensor:
    """1 / √SNR, bounded, with mean 1: shapes and places are decided at high noise."""
    weights = process.snr(timesteps).clamp(min=SMALLEST_SNR).rsqrt()
    return weights / weights.mean()


@torch.no_grad()
def _follow(average: nn.Module, networks: nn.Module, step: int) -> None:
    share = 1 - min(0.5 ** (1 / HALF_LIFE_STEPS), (1 + step) / (10 + step))
    for kept, current in zip(average.parameters(), networks.parameters()):
        kept.lerp_(current, share)


def _drawn_caption(words: Scene, rng: np.random.Generator, left_out: float) -> str:
    return "" if rng.random() < EMPTY_CAPTIONS else caption(words, rng, left_out)


class _Captions:
    """Token ids, each caption tokenised once."""

    def __init__(self) -> None:
        self._tokenizer = load_tokenizer()
        self._known: dict[str, list[int]] = {}

    def ids(self, captions: list[str]) -> torch.Tensor:
        """`[B, 77]`"""
        for text in captions:
            if text not in self._known:
                self._known[text] = caption_ids(self._tokenizer, text, 75)[0]
        return torch.tensor([self._known[text] for text in captions])
