"""The protocol of a model that is trained on, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from lib_lora.data.tokens import Tokenizer
from lib_lora.families.family import DetectedModel, Family
from lib_lora.families.noise_process import NoiseProcess
from lib_lora.families.sd1 import SD1
from lib_lora.model.conditioning import Conditioning, TextEncoder

Part = Literal["text_encoder", "unet"]


@dataclass(frozen=True)
class Target:
    """A layer that can be adapted. `name` is its key in a LoRA file (kohya's), `module` a Linear or a Conv2d."""

    name: str
    module: nn.Module
    part: Part


@dataclass(frozen=True)
class Embedding:
    """A word with an embedding: its vectors for each text encoder, `[n, width]`; those that are trained are parameters."""

    name: str
    vectors: tuple[torch.Tensor, ...]

    @property
    def count(self) -> int:
        """How many tokens it is read as."""
        return self.vectors[0].shape[0]


@dataclass(frozen=True)
class ModelInfo:
    """What the LoRA file says about the base model. Hashes as sd-scripts': 8 digits over 64 KiB at 1 MiB, and the file's."""

    name: str
    legacy_hash: str | None
    sha256: str | None
    family: Family = SD1


class BaseModel(Protocol):
    """A borrowed, frozen model. All tensors it takes and gives live on `device`.

    `detected`: what is known of it beside the settings; settings may declare that it predicts v. `family` is its family with the
    model's own numbers.
    `embeddings`: those for which the host has embeddings of its own. They are read so in its prompts, and therefore in captions.
    """

    family: Family
    detected: DetectedModel
    device: torch.device
    unet: nn.Module
    text_encoders: tuple[TextEncoder, ...]
    vae: nn.Module
    tokenizer: Tokenizer
    embeddings: tuple[Embedding, ...]
    noise_process: NoiseProcess

    def verify(self) -> None:
        """Called before every step.

        Raises:
            HostChanged: the model was moved or exchanged since it was borrowed.
        """
        ...

    def info(self) -> ModelInfo:
        """Name and hashes of the checkpoint (may read the whole file)."""
        ...

    def targets(self) -> list[Target]:
        """Every layer that kohya's `networks.lora` adapts without conv_dim: text encoder first, each part in module order."""
        ...

    def predict(self, noisy_latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The U-Net's output. Shapes: `[B, C, h, w]`, `[B]` int64 -> `[B, C, h, w]`."""
        ...

    def encode_image(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logvar of the VAE's posterior, fp32, unscaled. Shapes: `[B, 3, H, W]` in -1..1 -> twice `[B, C, h, w]`."""
        ...

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels in -1..1 of unscaled latents, fp32. Shapes: `[B, C, h, w]` -> `[B, 3, H, W]`."""
        ...


def networks(base: BaseModel) -> list[nn.Module]:
    """What is trained on: the U-Net and the text encoders."""
    return [base.unet, *(encoder.module for encoder in base.text_encoders)]
