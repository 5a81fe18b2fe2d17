"""What the program that hosts the page does with images for us: captions, and crops around what matters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lib_lora.datasets.captioner_offers import Offer, plain_offers
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

    def autocrop(self, mode: str) -> Autocrop | None:  # noqa: ARG002 - there is none for any mode
        """See `ImageTools`."""
        return None
