"""Cases 8 to 21: broken, unusual and missing image files."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import torch
from PIL import Image, ImageOps

from lib_lora.data import decoder_main
from lib_lora.data.captions import CaptionSource
from lib_lora.data.dataset import scan
from lib_lora.data.image_files import image_size
from lib_lora.data.images import load_pixels
from lib_lora.errors import DatasetError
from lib_lora.events import Encoded, Finished, Planned
from lib_lora.files.lora_file import read
from lib_lora.paths import missing_problem, pasted, path_problem
from tests.conftest import write_picture
from tests.house import House

Figure = Callable[[str], None]


def png(mode: str, width: int, height: int) -> bytes:
    content = io.BytesIO()
    Image.new(mode, (width, height)).save(content, "PNG")
    return content.getvalue()


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    content = io.BytesIO()
    frames[0].save(content, kind, save_all=True, append_images=frames[1:], duration=100)
    return content.getvalue()


def cut(kind: str, bytes_away: int | None) -> bytes:
    rng, content = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(content, kind)
    whole = content.getvalue()
    return whole[: len(whole) // 2] if bytes_away is None else whole[:-bytes_away]


UNREADABLE = r"'bad\.\w+' (is not a readable|cannot be read)"
REFUSED: list[Any] = [
    pytest.param("bad.png", lambda: b"", UNREADABLE, marks=pytest.mark.case(8), id="zero bytes"),
    pytest.param("bad.jpg", lambda: cut("JPEG", None), UNREADABLE, marks=pytest.mark.case(9), id="half a JPEG"),
    pytest.param("bad.png", lambda: cut("PNG", 30), UNREADABLE, marks=pytest.mark.case(9), id="PNG without its end"),
    pytest.param("bad.jpg", lambda: b"<html>not here</html>", UNREADABLE, marks=pytest.mark.case(10), id="text"),
    pytest.param("bad.png", lambda: png("1", 12000, 12000), "million pixels", marks=pytest.mark.case(11), id="144 MP"),
    pytest.param("bad.png", lambda: png("1", 20000, 10000), "bad.png", marks=pytest.mark.case(11), id="200 MP"),
    pytest.param("bad.webp", lambda: animation("WEBP"), "is animated", marks=pytest.mark.case(12), id="animated WEBP"),
    pytest.param("bad.png", lambda: animation("PNG"), "is animated", marks=pytest.mark.case(12), id="animated PNG"),
    pytest.param("bad.png", lambda: animation("GIF"), UNREADABLE, marks=pytest.mark.case(12), id="GIF named PNG"),
    pytest.param("bad.png", lambda: tiff(), UNREADABLE, marks=pytest.mark.case(18), id="TIFF named PNG"),
]  # fmt: skip


def tiff() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (64, 64)).save(content, "TIFF")
    return content.getvalue()


@pytest.mark.parametrize(("name", "content", "said"), REFUSED)
def test_a_bad_file_is_named_before_the_start(
    name: str, content: Callable[[], bytes], said: str, house: House, quick: Any, photos: Path
) -> None:
    """A bad file is named before a model is touched; the run begins once it is taken away."""
    bad = photos / "3_blob" / name
    bad.write_bytes(content())
    failed = house.run(quick())
    assert len(failed.told) == 1 and not failed.events, failed.told
    assert re.search(said, failed.told[0]), failed.told
    bad.unlink()
    assert house.run(quick(steps=1)).of(Finished)[0].path


@pytest.mark.case(11)
@pytest.mark.parametrize("size", [(12000, 12000), (20000, 10000)])
def test_bombs_are_refused_by_their_header_alone(size: tuple[int, int], tmp_path: Path, figure: Figure) -> None:
    """Refused by the header: memory of the process grows by less than 100 MB, in less than a second of processor time."""
    (tmp_path / "a.png").write_bytes(png("1", *size))
    process, started = psutil.Process(), time.process_time()
    before = process.memory_info().rss
    with pytest.raises(DatasetError):
        image_size(tmp_path / "a.png")
    assert process.memory_info().rss - before < 100 * 2**20 and time.process_time() - started < 1
    figure(f"{(tmp_path / 'a.png').stat().st_size // 1000} KB file of {size[0] * size[1] // 10**6} million pixels")


def jpeg_of_inks(picture: Image.Image, *, adobe: bool) -> bytes:
    """CMYK: as Adobe writes it (inverted, and marked), or plain and without the mark."""
    content = io.BytesIO()
    inks = picture.convert("CMYK")
    if adobe:
        inks.save(content, "JPEG", quality=95)
        assert b"Adobe" in content.getvalue()
        return content.getvalue()
    Image.eval(inks, lambda value: 255 - value).save(content, "JPEG", quality=95)
    marked = content.getvalue()
    place = marked.index(b"\xff\xee")
    length = int.from_bytes(marked[place + 2 : place + 4], "big")
    return marked[:place] + marked[place + 2 + length :]


@pytest.mark.case(13)
@pytest.mark.parametrize("adobe", [True, False])
def test_inks(adobe: bool, tmp_path: Path) -> None:
    """CMYK with Adobe's mark (inverted) and without: the mean colour is within 10 of 255 of the picture it was made of."""
    path = write_picture(tmp_path / "a.png", 96, 96)
    with Image.open(path) as picture:
        wanted = np.asarray(picture).mean(axis=(0, 1))
        (tmp_path / "a.jpg").write_bytes(jpeg_of_inks(picture, adobe=adobe))
    assert np.abs(load_pixels(tmp_path / "a.jpg").mean(axis=(0, 1)) - wanted).max() < 10


@pytest.mark.case(14)
def test_sixteen_bits_of_colour(tmp_path: Path) -> None:
    """A 16-bit RGB ramp keeps at least 200 levels of every channel."""
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    cv2.imwrite(str(tmp_path / "a.png"), np.stack([ramp, ramp.T, ramp[::-1]], axis=-1))
    pixels = load_pixels(tmp_path / "a.png")
    assert all(len(np.unique(pixels[..., channel])) >= 200 for channel in range(3))


@pytest.mark.case(15)
@pytest.mark.parametrize("mode", ["P", "1", "LA", "PA"])
def test_odd_modes(mode: str, tmp_path: Path) -> None:
    """Opaque palette, 1 bit, grey and palette with alpha come out as Pillow converts them."""
    path = write_picture(tmp_path / "a.png", 40, 20)
    with Image.open(path) as picture:
        made = picture.convert("P").convert("PA") if mode == "PA" else picture.convert(mode)
    if mode == "PA":
        made = made.convert("RGBA")  # PNG has no such mode
    made.save(path)
    with Image.open(path) as picture:
        assert np.array_equal(load_pixels(path), np.asarray(picture.convert("RGBA").convert("RGB")))


def gradient(width: int, height: int, top: int) -> np.ndarray:
    """From 0 to `top` across, and down in the second channel."""
    across, down = np.meshgrid(np.linspace(0, top, width), np.linspace(0, top, height))
    return np.stack([across, down, across[:, ::-1]], axis=-1).astype(np.uint16 if top > 255 else np.uint8)


def inks(path: Path, picture: Image.Image) -> None:
    path.with_suffix(".jpg").write_bytes(jpeg_of_inks(picture, adobe=True))


def plain_inks(path: Path, picture: Image.Image) -> None:
    path.with_suffix(".jpg").write_bytes(jpeg_of_inks(picture, adobe=False))


def sixteen_bits(path: Path, picture: Image.Image) -> None:
    cv2.imwrite(str(path), np.asarray(picture)[..., ::-1].astype(np.uint16) * 257)


def sixteen_bits_of_grey(path: Path, picture: Image.Image) -> None:
    cv2.imwrite(str(path), np.asarray(picture.convert("L")).astype(np.uint16) * 257)


def palette(path: Path, picture: Image.Image) -> None:
    picture.quantize(16).save(path)


def one_bit(path: Path, picture: Image.Image) -> None:
    picture.convert("1").save(path)


def hidden_colour(path: Path, picture: Image.Image) -> None:
    """Red below alpha 0."""
    clear = Image.new("RGBA", picture.size, (255, 0, 0, 0))
    clear.paste(picture, (0, 0), Image.linear_gradient("L").resize(picture.size).point(lambda value: 255 if value > 99 else 0))
    clear.save(path)


def turned(orientation: int) -> Callable[[Path, Image.Image], None]:
    def save(path: Path, picture: Image.Image) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(path, exif=exif)

    return save


def as_pillow(path: Path) -> Image.Image:
    """Upright, on white, in 8 bits, by Pillow alone."""
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I"):
            return Image.fromarray((np.asarray(upright) // 257).astype(np.uint8)).convert("RGB")
        colours = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")


ODD_PICTURES: list[Any] = [
    *(pytest.param(save, marks=pytest.mark.case(13)) for save in (inks, plain_inks)),
    *(pytest.param(save, marks=pytest.mark.case(14)) for save in (sixteen_bits, sixteen_bits_of_grey)),
    *(pytest.param(save, marks=pytest.mark.case(15)) for save in (palette, one_bit, hidden_colour)),
    *(pytest.param(turned(number), marks=pytest.mark.case(16), id=f"turned {number}") for number in range(1, 9)),
]  # fmt: skip


@pytest.mark.parametrize("save", ODD_PICTURES)
def test_odd_pictures_are_trained_on(save: Callable[[Path, Image.Image], None], house: House, quick: Any, photos: Path) -> None:
    """A run on them gives, bit for bit, the LoRA of the same pictures as plain PNG, made by Pillow."""
    for path in photos.rglob("*.png"):
        path.unlink()
    folder = photos / "3_blob"
    save(folder / "0.png", Image.fromarray(gradient(120, 90, 255)))
    (odd,) = (path for path in folder.iterdir() if path.suffix != ".txt")
    run = house.run(quick(steps=1))
    assert run.of(Encoded)[-1].done == 1
    plain = load_pixels(odd) if "jpg" in odd.suffix else np.asarray(as_pillow(odd))  # inks: `test_inks` holds the colours
    odd.unlink()
    Image.fromarray(plain).save(folder / "0.png")
    again = house.run(quick(steps=1, name="plain"))
    odd_lora, plain_lora = (read(found.of(Finished)[0].path)[0] for found in (run, again))
    assert all(torch.equal(value, plain_lora[key]) for key, value in odd_lora.items())


@pytest.mark.case(17)
@pytest.mark.parametrize("size", [(1, 1), (8, 4096), (10000, 40)])
def test_extreme_sizes(size: tuple[int, int], house: House, quick: Any, photos: Path) -> None:
    """1×1, 8×4096 and 10000×40 are scaled and cut to the bucket of the rule."""
    Image.new("RGB", size, "red").save(photos / "3_blob" / "one.png")
    assert house.run(quick(steps=1)).of(Finished)[0].path


@pytest.mark.case(18)
def test_other_kinds_are_told(house: House, quick: Any, photos: Path) -> None:
    """HEIC, AVIF, TIFF, PSD, SVG, ICO, GIF are not used, and a note says so and what to save them as."""
    for suffix in ("heic", "avif", "tiff", "psd", "svg", "ico", "gif"):
        (photos / "3_blob" / f"other.{suffix}").write_bytes(b"whatever")
    notes = scan([str(photos)], captions=CaptionSource("x"), repeats=1).notes
    assert len(notes) == 1 and ".heic" in notes[0] and "save them as PNG, JPEG" in notes[0]
    run = house.run(quick(steps=1))
    assert run.of(Planned)[0].plan.steps == 1 and run.of(Encoded)[-1].done == 4


@pytest.mark.case(19)
@pytest.mark.parametrize(
    ("change", "said"), [("delete", "cannot be read"), ("exchange", "has changed since"), ("lock", "cannot be read")]
)
def test_a_file_that_changes_after_the_check(change: str, said: str, house: House, quick: Any, photos: Path) -> None:
    """Deleted, exchanged or locked between check and encoding: one sentence with its name, and no half run."""
    victim = photos / "3_blob" / "0.png"
    real = Path.open

    def locked(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == victim:
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    def at(event: object, _: object) -> None:
        if isinstance(event, Planned):
            if change == "delete":
                victim.unlink()
            elif change == "exchange":
                write_picture(victim, 40, 90)
            else:
                patch.setattr(Path, "open", locked)

    with pytest.MonkeyPatch.context() as patch:
        run = house.run(quick(), at)
    assert len(run.told) == 1 and "'0.png'" in run.told[0] and not run.of(Finished), run.told
    assert re.search(said, run.told[0]), run.told


@pytest.mark.case(19)
def test_a_locked_file_is_named(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read is named before the start."""

    def locked(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)
    answered = decoder_main.answer(photos / "3_blob" / "0.png")
    told = "Image '0.png' cannot be read (Permission denied); restore it or check permissions."
    assert answered == {"problems": [told], "for_now": True}


NAMES = ["猫.png", "🐱.png", "🐶.png", "e\u0301te\u0301.png", "été.png", "a\u202egpj.png", "x" * 251 + ".png", "two  spaces .png"]


@pytest.mark.case(20)
def test_names_of_every_kind(house: House, quick: Any, tmp_path: Path, photos: Path) -> None:
    """Every script, emoji, composed and decomposed, turned around, 255 bytes, spaces: all trained, each with its own caption."""
    folder = photos / "3_blob"
    for number, name in enumerate(NAMES):
        write_picture(folder / name, 64, 64, seed=number)
        (folder / name).with_suffix(".txt").write_text(f"caption {number}", encoding="utf-8")
    found = scan([str(folder)], captions=CaptionSource(), repeats=1)
    assert found.problems == ()
    captions = {sample.path.name: sample.caption for sample in found.samples}
    assert {name: captions[name] for name in NAMES} == {name: f"caption {number}" for number, name in enumerate(NAMES)}
    run = house.run(quick(steps=1))
    assert run.of(Encoded)[-1].done == 4 + len(NAMES) and run.of(Finished)[0].path


@pytest.mark.case(21)
def test_quotes_around_a_pasted_path(photos: Path) -> None:
    """Quotation marks that a file manager puts around a path are taken off."""
    assert len(scan([f'"{photos}"'], captions=CaptionSource("x"), repeats=1).samples) == 4


@pytest.mark.case(21)
def test_paths_of_windows() -> None:
    """UNC, devices, mixed slashes, quotes left behind, 260 letters: taken as meant, or refused with the reason."""
    for text in ("C:\\a b\\", '"C:\\a b\\"', 'C:\\a b\\"', ' "C:\\a b\\" '):
        assert pasted(text) == "C:\\a b\\" and path_problem(pasted(text), windows=True) is None
    for text in ("C:/a\\b/c", "C:\\console\\confetti.png", "D:", "..\\x", "C:\\a.con"):
        assert path_problem(text, windows=True) is None
    for text in ("\\\\host\\share", "//host/share", "/\\host/share", "\\\\?\\C:\\a", "\\\\.\\PhysicalDrive0"):
        assert "another computer or of a device" in str(path_problem(text, windows=True))
    for text, part in (("C:\\a\\CON.png", "CON.png"), ("C:/nul/x", "nul"), ("com1", "com1"), ("C:\\aux .x\\y", "aux .x")):
        assert path_problem(text, windows=True) == f"contains {part!r}, which Windows reserves for a device; rename it."
        assert path_problem(text, windows=False) is None
    assert path_problem("//host/share", windows=False) is None and path_problem("\\\\host", windows=False)
    assert "has 260 characters where Windows allows 259" in missing_problem("C:\\" + "x" * 257, windows=True)
    assert missing_problem("C:\\" + "x" * 256, windows=True) == missing_problem("/" + "x" * 500, windows=False)


@pytest.mark.case(21)
def test_quotes_around_a_path_with_repeats(photos: Path) -> None:
    """The same where the number of repeats stands behind the quotation marks."""
    found = scan([f' "{photos / "3_blob"}"|2 '], captions=CaptionSource("x"), repeats=1)
    assert found.problems == () and [sample.repeats for sample in found.samples] == [2] * 4


@pytest.mark.case(20)
def test_names_with_a_dot_in_front_are_told(photos: Path) -> None:
    """Images that begin with a dot are not used, which a note says; what macOS leaves beside every file is passed over."""
    for name in (".hidden.png", "._0.png"):
        write_picture(photos / "3_blob" / name)
    found = scan([str(photos)], captions=CaptionSource("x"), repeats=1)
    assert len(found.samples) == 4 and len(found.notes) == 1
    assert found.notes[0].startswith("3_blob: '.hidden.png': names that start with a dot") and "rename" in found.notes[0]
