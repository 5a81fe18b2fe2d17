"""Pixels of unusual image files, compared with Pillow's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lib_lora.data.buckets import Placement
from lib_lora.data.image_files import image_size
from lib_lora.data.images import fit, load_pixels
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError
from tests.conftest import write_picture


@pytest.mark.case(16)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_honoured(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_picture(tmp_path / "a.jpg", 64, 32, exif=exif, quality=95)
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(load_pixels(path), wanted)
    assert image_size(path) == Size(*wanted.shape[:2])
    assert image_size(path) == (Size(64, 32) if orientation > 4 else Size(32, 64))


@pytest.mark.case(15)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(tmp_path: Path, mode: str) -> None:
    hidden_red = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    hidden_red.paste((0, 0, 255, 255), (0, 0, 4, 8))
    hidden_red.convert(mode).save(tmp_path / "a.png")
    pixels = load_pixels(tmp_path / "a.png")
    assert (pixels[:, 4:] == 255).all() and pixels[0, 0, 0] < 128


@pytest.mark.case(15)
def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.info["transparency"] = 0
    image.save(tmp_path / "a.png", transparency=0)
    assert (load_pixels(tmp_path / "a.png") == 255).all()


@pytest.mark.case(14)
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    values = load_pixels(tmp_path / "a.png")[..., 0]
    assert len(np.unique(values)) >= 200
    assert np.abs(values.astype(int) - ramp // 257).max() <= 1


@pytest.mark.case(10)
def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    jpeg = write_picture(tmp_path / "a.jpg")
    jpeg.rename(tmp_path / "a.png")
    assert load_pixels(tmp_path / "a.png").shape == (96, 96, 3)


@pytest.mark.case(15)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_bmp(tmp_path: Path, mode: str) -> None:
    path = write_picture(tmp_path / "a.png", 40, 20)
    with Image.open(path) as image:
        converted = image.convert(mode)
    converted.save(tmp_path / "a.bmp")
    assert np.array_equal(load_pixels(tmp_path / "a.bmp"), np.asarray(converted.convert("RGB")))


def test_inks_become_colours(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", 40, 20)
    with Image.open(path) as image:
        image.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
        wanted = np.asarray(image).astype(int)
    assert np.abs(load_pixels(tmp_path / "a.jpg") - wanted).mean() < 4


def test_webp(tmp_path: Path) -> None:
    assert load_pixels(write_picture(tmp_path / "a.webp", 40, 20)).shape == (20, 40, 3)


@pytest.mark.parametrize("content", [b"", b"<html>no picture</html>", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"])
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"'a\.png' is not a readable PNG, JPEG, WEBP or BMP"):
        image_size(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_half_a_file_is_found(tmp_path: Path, suffix: str) -> None:
    path = write_picture(tmp_path / f"a.{suffix}", 200, 200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match="cannot be read"):
        load_pixels(path)


def test_bombs_are_refused_by_their_header(tmp_path: Path) -> None:
    Image.new("1", (12000, 12000)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match="million pixels"):
        image_size(tmp_path / "a.png")


def test_fit_cuts_the_centre(tmp_path: Path) -> None:
    pixels = np.arange(40 * 20 * 3, dtype=np.uint8).reshape(40, 20, 3)
    cut = fit(pixels, Placement(Size(16, 16), Size(40, 20)))
    assert np.array_equal(cut, pixels[12:28, 2:18])
