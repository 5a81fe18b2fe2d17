"""What the program that hosts the page does with images for us: captions, and crops around what matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lib_lora.datasets.captioner_offers import Offer
from lib_lora.datasets.crops import Autocrop
from lib_lora.datasets.image_set import ImageSet
from lib_lora.ui.api.listing import Look, Shown

ShownBy = Callable[[ImageSet, Look], Shown]  # the images of a dataset that a look lets through


class ImageTools(Protocol):
    """The tools of a host."""

    def captioners(self) -> list[Offer]:
        """The captioners that can be chosen, the first by default."""

    def autocrop(self, mode: str) -> Autocrop | None:
        """What a mode of `crops.ASKING` needs; None if this host has no such code.

        Raises:
            DatasetError: something is missing; the sentence says what.
        """
