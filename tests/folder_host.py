"""A host, and its tools for images, for tests that train nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from lib_lora.datasets.captioner_offers import Offer, plain_offers
from lib_lora.families.family import DetectedModel


class FolderHost:
    """A host with a folder and nothing to lend. `problems`: what it tells. `held`: the model that it detects."""

    held: DetectedModel | None = None

    def __init__(self, folder: Path, *problems: str) -> None:
        self.folder, self.told = folder, list(problems)

    def device(self) -> torch.device:
        return torch.device("cpu")

    def problems(self) -> list[str]:
        return self.told

    def detected_model(self) -> DetectedModel | None:
        return self.held

    def lora_folder(self) -> Path:
        return self.folder

    def work_folder(self) -> Path:
        return self.folder / ".train-lora"

    def look(self) -> None:
        return None


class PlainTools:
    """The tools of a host without code of its own for images.

    Args:
        wd14_folder: where the model of WD14 is looked for.
        may_choose: whether the page may name other files.
    """

    def __init__(self, wd14_folder: Path, *, may_choose: bool) -> None:
        self._wd14_folder, self._may_choose = wd14_folder, may_choose

    def captioners(self) -> list[Offer]:
        """See `ImageTools`."""
        return plain_offers(self._wd14_folder, may_choose=self._may_choose)

    def autocrop(self, mode: str) -> None:  # noqa: ARG002 - there is none for any mode
        """See `ImageTools`."""
        return
