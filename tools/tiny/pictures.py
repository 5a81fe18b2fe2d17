"""The pictures that the tiny checkpoint learns from: simple things on backgrounds cut from photographs, with captions.

`scene` draws the words, `paint` the picture, `caption` the sentence; each is a pure function of a generator or of its arguments.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from skimage import data as photographs

from lib_lora.data.images import Pixels

SIDE = 128
THINGS = ("ball", "box", "star", "heart", "house", "tree")
COLOURS = {
    "red": (205, 35, 30),
    "yellow": (240, 205, 35),
    "green": (30, 150, 50),
    "blue": (35, 70, 210),
    "purple": (140, 45, 165),
    "white": (240, 240, 238),
}
BACKGROUNDS = ("grass", "gravel", "bricks", "wood", "sky")
PLACES = {"left": (-29, 0), "right": (29, 0), "top": (0, -29), "bottom": (0, 29), "": (0, 0)}
_SUPERSAMPLING = 3
_OUT_OF_FOCUS_PX = 1.4  # four latent channels cannot hold every blade of grass

Generator = np.random.Generator


@dataclass(frozen=True)
class Scene:
    """The words of a picture; an empty `thing` is a background alone, an empty `place` the middle."""

    thing: str
    colour: str
    background: str
    place: str


def scene(rng: Generator) -> Scene:
    """Words at random; one picture in twelve has no thing."""
    thing = str(rng.choice(THINGS)) if rng.random() > 1 / 12 else ""
    return Scene(thing, str(rng.choice(list(COLOURS))), str(rng.choice(BACKGROUNDS)), str(rng.choice(list(PLACES))))


def caption(words: Scene, rng: Generator, left_out: float) -> str:
    """`a red ball on grass, left`; each part but the thing is left out with probability `left_out`."""
    colour, background, place = (
        word if rng.random() >= left_out else "" for word in (words.colour, words.background, words.place)
    )
    if not words.thing:
        return words.background
    text = f"a {colour} {words.thing}" if colour else f"a {words.thing}"
    text += f" on {background}" if background else ""
    return f"{text}, {place}" if place else text


def paint(words: Scene, rng: Generator) -> Pixels:
    """The picture, `[128, 128, 3]`."""
    picture = Image.fromarray(_background(words.background, rng))
    if not words.thing:
        return np.asarray(picture)
    dx, dy = PLACES[words.place]
    x, y = SIDE / 2 + dx + rng.uniform(-4, 4), SIDE / 2 + dy + rng.uniform(-4, 4)
    radius = rng.uniform(26, 32)
    mask = _silhouette(words.thing, x, y, radius)
    shadow = Image.fromarray(np.roll(np.asarray(mask), (5, 5), (0, 1))).filter(ImageFilter.GaussianBlur(4))
    picture.paste((20, 20, 20), mask=shadow.point(lambda value: value * 0.5))
    picture.paste(Image.fromarray(_surface(words, x, y, radius, rng)), mask=mask)
    return np.asarray(picture)


@functools.lru_cache
def photograph_crops() -> tuple[Pixels, ...]:
    """Whole photographs, none of them in the pictures above, for a VAE that knows more than things and backgrounds."""
    pictures = [photographs.astronaut(), photographs.chelsea(), photographs.rocket(), photographs.coffee(),
                photographs.hubble_deep_field()[:512, :512], photographs.retina()[200:1200:2, 200:1200:2],
                photographs.stereo_motorcycle()[0]]  # fmt: skip
    return tuple(np.ascontiguousarray(picture) for picture in pictures)


def photograph(rng: Generator) -> Pixels:
    """A random piece of one of the photographs, `[128, 128, 3]`, at a random scale, mirrored half of the time."""
    picture = photograph_crops()[rng.integers(len(photograph_crops()))]
    piece = _cut(picture, int(rng.integers(SIDE, min(picture.shape[:2]))), rng)
    return piece[:, ::-1] if rng.random() < 0.5 else piece


def _background(name: str, rng: Generator) -> Pixels:
    if name == "sky":
        return _sky(rng)
    source = _background_photographs()[name]
    piece = _cut(source, int(rng.integers(min(source.shape[0], 100), min(source.shape[0], 240) + 1)), rng)
    soft = cv2.GaussianBlur(piece, (0, 0), _OUT_OF_FOCUS_PX)
    return np.clip(soft * rng.uniform(0.85, 1.15), 0, 255).astype(np.uint8)


@functools.lru_cache
def _background_photographs() -> dict[str, Pixels]:
    """Grey photographs of scikit-image in their natural colours, and the table below its cup of coffee."""
    grass = _tinted(photographs.grass(), (40, 75, 15), (150, 200, 90))
    gravel = _tinted(photographs.gravel(), (50, 48, 45), (225, 220, 210))
    bricks = _tinted(photographs.brick(), (70, 25, 15), (230, 150, 120))
    return {"grass": grass, "gravel": gravel, "bricks": bricks, "wood": photographs.coffee()[270:400, 470:600]}


def _tinted(grey: NDArray[np.uint8], dark: tuple[int, int, int], bright: tuple[int, int, int]) -> Pixels:
    """Shades of grey as shades between two colours, with the contrast stretched."""
    low, high = np.percentile(grey, (1, 99))
    level = np.clip((grey.astype(np.float32) - low) / (high - low), 0, 1)[..., None]
    return (level * np.array(bright) + (1 - level) * np.array(dark)).astype(np.uint8)


def _cut(picture: Pixels, side: int, rng: Generator) -> Pixels:
    """A random square of the picture, scaled to `[128, 128, 3]`."""
    top, left = rng.integers(picture.shape[0] - side + 1), rng.integers(picture.shape[1] - side + 1)
    piece = picture[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(piece, (SIDE, SIDE), interpolation=how), np.uint8)


def _sky(rng: Generator) -> Pixels:
    """A blue that pales downwards, with clouds of 1/f noise."""
    down = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    blue = (1 - down) * np.array([70, 130, 215]) + down * np.array([165, 200, 240])
    noise = np.zeros((SIDE, SIDE), np.float32)
    for cells in (3, 6, 12, 24):
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        noise += cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) * (3 / cells)
    clouds = np.clip(noise * 0.45 + rng.uniform(-0.4, 0.1), 0, 0.9)[..., None]
    return (blue * (1 - clouds) + 250 * clouds).astype(np.uint8)


def _surface(words: Scene, x: float, y: float, radius: float, rng: Generator) -> Pixels:
    """Colour of the thing at every pixel: lit from the upper left, a ball more than what is flat."""
    base = np.array(COLOURS[words.colour], np.float32) * rng.uniform(0.92, 1.05)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    if words.thing == "ball":
        distance = np.hypot(columns - x + radius * 0.4, rows - y + radius * 0.4) / radius
        light = 1.25 - 0.5 * distance
        base = base + 90 * np.exp(-((distance / 0.35) ** 2))[..., None]
    else:
        light = 1.0 - 0.18 * ((columns - x) + (rows - y)) / radius
    return np.clip(base * light[..., None], 0, 255).astype(np.uint8)


def _silhouette(thing: str, x: float, y: float, radius: float) -> Image.Image:
    """Where the thing is, 0 to 255, with smooth edges."""
    scale = _SUPERSAMPLING
    large = Image.new("L", (SIDE * scale, SIDE * scale))
    pen = ImageDraw.Draw(large)
    for outline in _OUTLINES[thing]():
        pen.polygon([((x + px * radius) * scale, (y + py * radius) * scale) for px, py in outline], fill=255)
    return large.resize((SIDE, SIDE), Image.Resampling.BOX)


Outline = list[tuple[float, float]]


def _ball() -> list[Outline]:
    return [[(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 60)]]


def _box() -> list[Outline]:
    return [[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]]


def _star() -> list[Outline]:
    angles = [-math.pi / 2 + k * math.pi / 5 for k in range(10)]
    return [[(r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, [1.2, 0.5] * 5)]]


def _heart() -> list[Outline]:
    turns = np.linspace(0, 2 * math.pi, 80)
    return [[(1.1 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15)
             for t in turns]]  # fmt: skip


def _house() -> list[Outline]:
    return [[(-0.75, 1.0), (-0.75, -0.1), (-1.15, -0.1), (0, -1.2), (1.15, -0.1), (0.75, -0.1), (0.75, 1.0), (0.22, 1.0),
             (0.22, 0.4), (-0.22, 0.4), (-0.22, 1.0)]]  # fmt: skip


def _tree() -> list[Outline]:
    crown = [[(0, -1.25 + k * 0.55), (0.5 + k * 0.22, -0.45 + k * 0.55), (-0.5 - k * 0.22, -0.45 + k * 0.55)] for k in range(3)]
    return [*crown, [(-0.17, 0.6), (0.17, 0.6), (0.17, 1.15), (-0.17, 1.15)]]


_OUTLINES: dict[str, Callable[[], list[Outline]]] = {
    "ball": _ball, "box": _box, "star": _star, "heart": _heart, "house": _house, "tree": _tree,
}  # fmt: skip
