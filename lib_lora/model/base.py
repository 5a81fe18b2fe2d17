"""Protocols: what the trainer needs of a model and of the program that lends it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from lib_lora.data.tokens import Tokenizer
from lib_lora.families.family import Family, Kind
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
class Word:
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

    `kind`: what is known of it beside the settings; a model that is not known to predict v may be declared to. `family` is its
    family with the model's own numbers.
    `words`: those for which the host has embeddings of its own. They are read so in its prompts, and therefore in captions.
    """

    family: Family
    kind: Kind
    device: torch.device
    unet: nn.Module
    text_encoders: tuple[TextEncoder, ...]
    vae: nn.Module
    tokenizer: Tokenizer
    words: tuple[Word, ...]
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


class Host(Protocol):
    """The program that lends a model."""

    def problems(self) -> list[str]:
        """Sentences that say why no model can be borrowed, as far as it can be told without touching it."""
        ...

    def kind(self) -> Kind | None:
        """What its model is, as far as it can be told without touching it; None before one is loaded, or where it is refused."""
        ...

    def device(self) -> torch.device:
        """Where the model computes."""
        ...

    def lora_folder(self) -> Path:
        """Where LoRA files go."""
        ...

    def work_folder(self) -> Path:
        """Where samples and states go: a place that starts with a dot, so that nobody takes them for LoRAs or serves them."""
        ...

    def keeps(self, folder: Path) -> bool:
        """Whether a folder of images is the host's own: a copy of what was dropped, which lies on its disk for the run."""
        ...

    def hides_pictures(self) -> bool:
        """Whether pictures in the work folder need names that are no pictures', since the host serves those wherever they lie."""
        ...

    def borrow_model(self) -> AbstractContextManager[BaseModel]:
        """Lend the model, frozen; the exit restores everything, also after an error."""
        ...

    def look(self) -> BaseModel | None:
        """The model that would be lent, only to be looked at: nothing is loaded or changed. None where there is none."""
        ...

    def someone_waits(self) -> bool:
        """Whether anybody waits for the model while it is borrowed. Asked after every step; never blocks."""
        ...

    def borrow_again(self, base: Any, *, needs_vae: bool, insist: bool) -> AbstractContextManager[None]:
        """Lend a model again that `borrow_model` lent and that was given back since: those who wait go first.

        Args:
            base: what was lent; it is the same object afterwards, perhaps on other modules.
            needs_vae: whether its VAE must be the same, too.
            insist: whether another model that was chosen meanwhile makes way until the exit.

        Raises:
            ModelAway: it is not there, or not the same, for now; nothing was changed.
        """
        ...

    def check_lora(self, path: Path) -> None:
        """Load the file as a user of the host would.

        Raises:
            LoraFileError: it does not load, or a key finds no layer.
        """
        ...

    def announce(self, path: Path) -> None:
        """Tell the host that the file is there (or was replaced)."""
        ...

    def software(self) -> dict[str, Any]:
        """Name and version of the host, for metadata."""
        ...
