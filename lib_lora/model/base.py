"""The protocol of a base model, and its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeGuard

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
    """A textual inversion: a word and its vectors for each text encoder, `[n, width]`; trained vectors are parameters."""

    name: str
    vectors: tuple[torch.Tensor, ...]

    @property
    def count(self) -> int:
        """Number of tokens that the word is read as."""
        return self.vectors[0].shape[0]


@dataclass(frozen=True)
class ModelInfo:
    """What a LoRA file states about its base model. Hashes as sd-scripts': 8 digits of 64 KiB at 1 MiB, and of the whole file."""

    name: str
    legacy_hash: str | None
    sha256: str | None
    family: Family = SD1


class BaseModel(Protocol):
    """A borrowed, frozen model. All input and output tensors are on `device`.

    `detected`: what is known of the model without the settings, which may declare v-prediction. `family`: its family with the
    model's own numbers.
    `embeddings`: the host's own embeddings, which it uses in prompts, and which are therefore used in captions.
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
        """Check that the model is unchanged; called before every step.

        Raises:
            HostChanged: the model was moved or replaced since it was borrowed.
        """

    def info(self) -> ModelInfo:
        """Name and hashes of the checkpoint (may read the whole file)."""

    def targets(self) -> list[Target]:
        """Every layer that kohya's `networks.lora` adapts without conv_dim: text encoders first, each part in module order."""

    def predict(self, noisy_latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The U-Net's output. Shapes: `[B, C, h, w]`, `[B]` int64 -> `[B, C, h, w]`."""

    def encode_image(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logvar of the VAE's posterior, fp32, unscaled. Shapes: `[B, 3, H, W]` in -1..1 -> two of `[B, C, h, w]`."""

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels in -1..1 from unscaled latents, fp32. Shapes: `[B, C, h, w]` -> `[B, 3, H, W]`."""


def networks(base: BaseModel) -> list[nn.Module]:
    """The networks that adapters can be attached to: the U-Net and the text encoders."""
    return [base.unet, *(encoder.module for encoder in base.text_encoders)]


def is_linear(module: nn.Module | None) -> TypeGuard[nn.Linear]:
    """Whether it is a linear layer. Some programs have classes that behave like `nn.Linear` without being one."""
    weight = getattr(module, "weight", None)
    return hasattr(module, "in_features") and hasattr(module, "out_features") and isinstance(weight, torch.Tensor)


def is_layer(module: nn.Module | None) -> bool:
    """Whether it is a linear layer or a convolution."""
    return isinstance(module, nn.Conv2d) or is_linear(module)
