"""The protocol of a host: the program that lends a model."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch

from lib_lora.families.family import DetectedModel
from lib_lora.model.base import BaseModel


class Host(Protocol):
    """The program that lends a model."""

    def problems(self) -> list[str]:
        """Sentences that say why no model can be borrowed, as far as it can be told without touching it."""
        ...

    def detected_model(self) -> DetectedModel | None:
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
