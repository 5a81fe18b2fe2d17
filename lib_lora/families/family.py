"""A model family: everything specific to it in files, names and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from lib_lora.families.noise_process import NoiseProcess


@dataclass(frozen=True)
class Layout:
    """Number of blocks of a U-Net: `side` down and as many up, `middle` between them, `ends` before and after all."""

    side: int
    middle: int
    ends: int

    @property
    def blocks(self) -> int:
        return 2 * (self.ends + self.side) + self.middle


@dataclass(frozen=True)
class UNet:
    """A family's full-size U-Net.

    `channels`: width of each level. `depths`: transformers per attention block of each level; 0 if it has none.
    `middle_depth`: the same for the middle.
    `context`: width of the text context.
    `linear`: proj_in and proj_out are Linears instead of 1×1 convolutions.
    `names`: whose layer names the family's files have.
    `layout`: its blocks, as options count them.
    `reads_sizes`: it reads the sizes of images, and pooled text.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    middle_depth: int
    context: int
    linear: bool
    names: Literal["diffusers", "ldm"]
    layout: Layout
    reads_sizes: bool = False

    def depth(self, side: str, level: int) -> int:
        """Transformers per attention block of a level, which is counted from the top for "in" and from the bottom for "out"."""
        if side == "middle":
            return self.middle_depth
        return self.depths[level if side == "in" else len(self.depths) - 1 - level]


@dataclass(frozen=True)
class TextEncoder:
    """One of a family's full-size text encoders.

    `prefix`: its prefix in LoRA files.
    `weights`: its key prefix in checkpoint files.
    `layers`, `width`: of the layers that are read. `unread`: further layers in a file, which are not read.
    `penultimate`: it is read before its last layer and without its last layer norm.
    `pools`: it also gives pooled text, its projected output.
    """

    prefix: str
    weights: str
    layers: int
    width: int
    unread: int = 0
    penultimate: bool = False
    pools: bool = False

    @property
    def is_open_clip(self) -> bool:
        """Whether files have it under open_clip's names; if so, texts are padded with 0 instead of the end token."""
        return self.weights.endswith(".model.")


@dataclass(frozen=True)
class Family:
    """One family.

    `id`: unique identifier.
    `name`: shown to users.
    `text_encoders`: in the order in which their outputs are concatenated.
    `latent_scale`: factor on the VAE's latents (ldm scale_factor).
    `noise_process`: makes the process of a model without its own.
    `base_versions`, `architectures`: ss_base_model_version and modelspec.architecture (without its ending) of a model that
    predicts noise, and of one that predicts v. `version_starts`: prefixes of both in files of any program.
    `sd_version`: the webui's name of the family, in a LoRA's card.
    `latent_channels`, `vae_factor`: channels of latents, and pixels per latent on each side.
    `clip_skip`: whether clip skip is supported; SDXL reads fixed layers.
    `text_encoder_lr`: default learning rate of the text encoders.
    `enough_bytes`: GPU memory, an estimate, from which gradient checkpointing is off, which leaves memory for larger batches.
    `inpaints`: the U-Net also reads a mask and the latents of the masked image.
    """

    id: str
    name: str
    unet: UNet
    text_encoders: tuple[TextEncoder, ...]
    latent_scale: float
    noise_process: Callable[[], NoiseProcess]
    base_versions: tuple[str, str]
    architectures: tuple[str, str]
    version_starts: tuple[str, ...]
    implementation: str
    sd_version: str
    latent_channels: int = 4
    vae_factor: int = 8
    is_v2: bool = False
    clip_skip: bool = True
    text_encoder_lr: float = 5e-5
    enough_bytes: int = 12 * 2**30
    inpaints: bool = False

    @property
    def text_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the text encoders in LoRA files."""
        return tuple(encoder.prefix for encoder in self.text_encoders)

    def is_in(self, keys: Iterable[str]) -> bool:
        """Whether a checkpoint file with these keys has all of the family's text encoders."""
        held = tuple(keys)
        return all(any(key.startswith(encoder.weights) for key in held) for encoder in self.text_encoders)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape of an image's latents, `[C, h, w]`. `height`, `width`: in pixels."""
        return self.latent_channels, height // self.vae_factor, width // self.vae_factor

    def with_channels(self, channels: int) -> Family | None:
        """The family whose U-Net has this many input channels: this one or its inpainting model; None if neither."""
        if channels == self.latent_channels:
            return self
        return inpainting(self) if channels == 2 * self.latent_channels + 1 else None

    def base_version(self, *, velocity: bool) -> str:
        """The value of ss_base_model_version."""
        return self.base_versions[velocity]

    def architecture(self, *, velocity: bool) -> str:
        """The value of modelspec.architecture of a LoRA."""
        return f"{self.architectures[velocity]}/lora"


@dataclass(frozen=True)
class DetectedModel:
    """What a model was detected to be, and from what.

    `read_from`: what the family was read from, in words.
    `v_from`: what states that the model predicts v, in words; empty if nothing does.
    """

    family: Family
    read_from: str
    v_from: str = ""

    def description(self, *, declared: bool) -> str:
        """Text for the user, before a run begins. `declared`: the settings declare that the model predicts v."""
        predicts = "noise (nothing indicates v)"
        if self.v_from or declared:
            predicts = f"v ({self.v_from or 'set by Checkpoint predicts v'})"
        return f"{self.family.name}, predicts {predicts}; read from {self.read_from}"


def inpainting(family: Family) -> Family:
    """The same family with an inpainting U-Net; its LoRAs are those of the family."""
    return replace(family, name=f"{family.name} inpainting", inpaints=True)
