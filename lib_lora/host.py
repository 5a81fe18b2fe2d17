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
        """Why no model can be borrowed, as far as can be determined without touching it."""

    def detected_model(self) -> DetectedModel | None:
        """The detected model, without touching it; None if none is loaded yet or it cannot be trained."""

    def device(self) -> torch.device:
        """The device on which the model runs."""

    def lora_folder(self) -> Path:
        """The folder for LoRA files."""

    def work_folder(self) -> Path:
        """The folder for samples and states, below a name that starts with a dot, so that they are not listed or served."""

    def keeps(self, folder: Path) -> bool:
        """Whether a folder of images is the host's own copy of dropped images."""

    def hides_pictures(self) -> bool:
        """Whether pictures in the work folder need hidden names, since the host serves every file with a picture's ending."""

    def borrow_model(self) -> AbstractContextManager[BaseModel]:
        """Lend the model, frozen; the exit restores everything, also after an error."""

    def look(self) -> BaseModel | None:
        """The model that would be lent, for inspection only: nothing is loaded or changed. None if there is none."""

    def someone_waits(self) -> bool:
        """Whether others wait for the borrowed model. Called after every step; never blocks."""

    def borrow_again(self, base: Any, *, needs_vae: bool, insist: bool) -> AbstractContextManager[None]:
        """Lend a model again that `borrow_model` lent and that was given back since; those who wait go first.

        Args:
            base: the model that was lent; it stays the same object, perhaps with other modules.
            needs_vae: whether the VAE must be unchanged, too.
            insist: whether to replace another model that was selected meanwhile, until the exit.

        Raises:
            ModelAway: the model is not available, or has changed, for now; nothing was changed.
        """

    def check_lora(self, path: Path) -> None:
        """Load the file as a user of the host would.

        Raises:
            LoraFileError: it does not load, or a key has no layer.
        """

    def announce(self, path: Path) -> None:
        """Notify the host of a new or replaced file."""

    def software(self) -> dict[str, Any]:
        """Name and version of the host, for metadata."""
