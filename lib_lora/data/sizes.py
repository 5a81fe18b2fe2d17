"""One type for sizes, so that height and width cannot be swapped."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """Height and width in pixels (or in latent pixels, if a name says so)."""

    height: int
    width: int

    @property
    def area(self) -> int:
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Crop(NamedTuple):
    """Edges in pixels, of an image inside its bucket or of a part of an image."""

    left: int
    top: int
    right: int
    bottom: int
