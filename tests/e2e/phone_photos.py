"""Photos as they come from a phone, with what is often wrong with some, and HEIC with and without its package."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from tests.e2e.server import Webui
from tests.test_arrivals import FAKE_HEIF, HEIC_START

TURNED = 6  # EXIF orientation: to be shown a quarter turn clockwise
ORIENTATION = 0x0112
PLAIN = ("IMG_0001.jpg", "IMG_0002.jpg", "IMG_0003.jpg", "IMG_0004.jpg", "IMG_0005.jpg")
HEIC, AS_JPEG = "IMG_0012.HEIC", "IMG_0012.jpg"
TWELVE = {*PLAIN, "turned.jpg", "IMG_0001 (1).jpg", "smaller.jpg", "truncated.jpg", "tiny.png", "panorama.jpg", HEIC}
NO_PACKAGE = "raise ImportError"
_ENCODE = "import sys, pillow_heif; from PIL import Image; pillow_heif.register_heif_opener(); Image.open(sys.argv[1]).save(sys.argv[2])"


def picture(seed: int, width: int = 1600, height: int = 1200) -> Image.Image:
    """A photo-like picture: large shapes and fine grain."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.integers(-12, 13, (height // 4, width // 4), dtype=np.int16)
    coarse = np.asarray(Image.fromarray(grain.astype(np.int32)).resize((width, height))).astype(np.int16)
    return Image.fromarray(np.clip(np.asarray(shapes, dtype=np.int16) + coarse[..., None], 0, 255).astype(np.uint8))


def write_twelve(folder: Path, heic: bytes) -> list[Path]:
    """The photos of `TWELVE`, and a caption for the first."""
    folder.mkdir(parents=True)
    for seed, name in enumerate(PLAIN, start=1):
        picture(seed).save(folder / name, quality=92)
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    picture(6).save(folder / "turned.jpg", quality=92, exif=exif)
    shutil.copy(folder / PLAIN[0], folder / "IMG_0001 (1).jpg")
    Image.open(folder / PLAIN[1]).resize((1000, 750)).save(folder / "smaller.jpg", quality=80)
    whole = (folder / PLAIN[2]).read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    picture(7, 60, 40).save(folder / "tiny.png")
    picture(8, 6000, 250).save(folder / "panorama.jpg", quality=92)
    (folder / HEIC).write_bytes(heic)
    assert {path.name for path in folder.iterdir()} == TWELVE
    (folder / "IMG_0001.txt").write_text("a cat, sitting", encoding="utf-8")
    return sorted(folder.iterdir())


def shown_size(path: Path) -> tuple[int, int]:
    """Width and height of a photo as it is shown."""
    with Image.open(path) as image:
        turned = image.getexif().get(ORIENTATION) == TURNED
        return (image.height, image.width) if turned else image.size


def heif_package(webui: Webui, folder: Path) -> Path:
    """A folder from which the webui's Python imports pillow-heif.

    It is the one that PILLOW_HEIF_DIR names, if any; else, if the webui does not have the package, a plugin that stands for it
    and finds a PNG behind the start of a HEIC.
    """
    folder.mkdir()
    given = os.environ.get("PILLOW_HEIF_DIR")
    if given:
        return Path(given)
    if not _has_package(webui, folder):
        (folder / "pillow_heif.py").write_text(FAKE_HEIF)
    return folder


def no_package(folder: Path) -> Path:
    """A folder that hides pillow-heif."""
    folder.mkdir()
    (folder / "pillow_heif.py").write_text(NO_PACKAGE)
    return folder


def write_heic(webui: Webui, package: Path, folder: Path) -> bytes:
    """A HEIC photo that the package in a folder reads."""
    png, heic = folder / "photo.png", folder / "photo.heic"
    picture(9, 1200, 1600).save(png)
    if (package / "pillow_heif.py").is_file():
        return HEIC_START + png.read_bytes()
    subprocess.run(
        [webui.python, "-c", _ENCODE, png, heic], env={**os.environ, "PYTHONPATH": str(package)}, check=True, timeout=120
    )
    return heic.read_bytes()


def _has_package(webui: Webui, folder: Path) -> bool:
    asked = [webui.python, "-c", "import pillow_heif"]
    return subprocess.run(asked, cwd=folder, capture_output=True, timeout=120, check=False).returncode == 0
