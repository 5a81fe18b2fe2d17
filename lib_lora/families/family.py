"""A model family: all that tells it apart from others, for files, names and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from lib_lora.families.noise_process import NoiseProcess


@dataclass(frozen=True)
class Layout:
    """How many blocks a U-Net has: `side` down and as many up, `middle` between them, `ends` before and behind all."""

    side: int
    middle: int
    ends: int

    @property
    def blocks(self) -> int:
        return 2 * (self.ends + self.side) + self.middle


@dataclass(frozen=True)
class UNet:
    """A family's U-Net of full size.

    `channels`: width of each level. `depths`: transformers in an attention block of each level; 0 where a level has none.
    `middle_depth`: the same of the middle.
    `context`: width of what it reads of texts.
    `linear`: Linears lie around the transformers, instead of 1×1 convolutions.
    `names`: whose names files of the family have.
    `layout`: its blocks, as options count them.
    `reads_sizes`: it is told the sizes of images, and pooled text.
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
        """Transformers in an attention block of a level, which is counted from the top on the way "in", and from below "out"."""
        if side == "middle":
            return self.middle_depth
        return self.depths[level if side == "in" else len(self.depths) - 1 - level]


@dataclass(frozen=True)
class TextEncoder:
    """One of a family's text encoders, of full size.

    `prefix`: what LoRA files call it.
    `weights`: below which keys a checkpoint file has it.
    `layers`, `width`: of the layers that are read. `unread`: layers that a file has behind them.
    `penultimate`: it is read before its last layer and without its last layer norm, and pooled if its output is projected.
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
        """Whether files have it under open_clip's names; then texts are padded with 0 instead of the end token."""
        return self.weights.endswith(".model.")


@dataclass(frozen=True)
class Family:
    """One family.

    `id`: what tells it from all others.
    `name`: for people.
    `text_encoders`: in the order in which their outputs are joined.
    `latent_scale`: factor on the VAE's latents (ldm scale_factor).
    `noise_process`: makes the process of a model that does not bring its own.
    `base_versions`, `architectures`: ss_base_model_version and modelspec.architecture (without its ending) of a model that
    predicts noise, and of one that predicts v. `version_starts`: with which both begin in files of any program.
    `sd_version`: the webui's own word for the family, in a LoRA's card.
    `latent_channels`, `vae_factor`: channels of latents, and pixels per latent on each side.
    `clip_skip`: whether the text encoder may be left early; SDXL has its own layers for that.
    `text_encoder_lr`: the text encoders' learning rate where none is given.
    `enough_bytes`: of a GPU's memory, an estimate: above it, memory is for larger batches, and gradient checkpointing is off.
    `inpaints`: the U-Net reads a mask and the latents of what the mask leaves, beside the noisy ones.
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
        """What a LoRA file calls the text encoders."""
        return tuple(encoder.prefix for encoder in self.text_encoders)

    def is_in(self, keys: Iterable[str]) -> bool:
        """Whether a checkpoint file with these keys has all of the family's text encoders."""
        held = tuple(keys)
        return all(any(key.startswith(encoder.weights) for key in held) for encoder in self.text_encoders)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape of the latents of an image with these sides in pixels, `[C, h, w]`."""
        return self.latent_channels, height // self.vae_factor, width // self.vae_factor

    def with_channels(self, channels: int) -> Family | None:
        """The family whose U-Net reads as many channels: this one, or its inpainting model; None for neither."""
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
    """What a model is, and where that was read.

    `read_from`: what says the family, in words.
    `v_from`: what says that the model predicts v, in words; empty where nothing does.
    """

    family: Family
    read_from: str
    v_from: str = ""

    def description(self, *, declared: bool) -> str:
        """For a person, before a run begins. `declared`: the settings say that the model predicts v."""
        predicts = "noise (nothing indicates v)"
        if self.v_from or declared:
            predicts = f"v ({self.v_from or 'set by Checkpoint predicts v'})"
        return f"{self.family.name}, predicts {predicts}; read from {self.read_from}"


def inpainting(family: Family) -> Family:
    """The same family with a U-Net that fills in what a mask leaves out; its LoRAs are those of the family."""
    return replace(family, name=f"{family.name} inpainting", inpaints=True)
