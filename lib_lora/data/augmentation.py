"""Image augmentation: mirroring, random crops and colour changes.

Random draws are a pure function of (seed, step, place in the step).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lib_lora.config.data import DataConfig
from lib_lora.data.images import Pixels
from lib_lora.randomness import uniform

# sd-scripts `AugHelper.color_aug`
COLOUR_SHARE = 0.33
LARGEST_HUE = 8.0  # OpenCV's hue has 180 steps
LARGEST_GAMMA = 0.05


@dataclass(frozen=True)
class Augmentation:
    """How an image is augmented. `cut`: crop offset from top and left, as a share of the surplus, 0 to 1; None for the centre."""

    mirrored: bool = False
    cut: tuple[float, float] | None = None
    hue: float = 0.0
    gamma: float = 1.0


PLAIN = Augmentation()


def drawn_augmentation(data: DataConfig, seed: int, step: int, place: int) -> Augmentation:
    """The augmentation of the image at `place` of `step`."""

    def draw(what: str) -> float:
        return uniform(seed, "look", what, step, place)

    hue, gamma = 0.0, 1.0
    if data.color_aug and draw("colours") <= COLOUR_SHARE:
        amount = 2 * draw("amount") - 1
        if draw("hue") > 0.5:
            hue = LARGEST_HUE * amount
        else:
            gamma = 1 + LARGEST_GAMMA * amount
    cut = (draw("top"), draw("left")) if data.random_crop else None
    return Augmentation(data.flip_aug and draw("mirror") < 0.5, cut, hue, gamma)


def with_colours(pixels: Pixels, augmentation: Augmentation) -> Pixels:
    """`pixels` with shifted hue, or with each value v (0 to 255, as in sd-scripts) raised to v^γ, `[height, width, 3]`."""
    if augmentation.hue:
        turned = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        turned[..., 0] = (turned[..., 0].astype(np.float32) + augmentation.hue % 180) % 180
        return np.asarray(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB), dtype=np.uint8)
    if augmentation.gamma != 1.0:
        return np.clip(pixels.astype(np.float32) ** augmentation.gamma, 0, 255).astype(np.uint8)
    return pixels
