"""Arriving files: what each is by its content, what becomes of it, and that what is not used names itself."""

from __future__ import annotations

import importlib.util
import io
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from lib_lora.data import conversion
from lib_lora.data.conversion import UnusedError
from lib_lora.data.decoder_process import Reader, Readers
from lib_lora.data.images import load_pixels
from lib_lora.datasets import kinds
from lib_lora.datasets.arrivals import Arrival, Arrivals, Told
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.errors import DatasetError


@pytest.fixture
def cats(tmp_path: Path) -> ImageSet:
    return Catalogue(tmp_path / "sets").create("cats")


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with Readers() as pool:
        yield pool


@pytest.fixture
def arrivals(cats: ImageSet, readers: Readers) -> Arrivals:
    return Arrivals(cats, readers)


def smooth(width: int = 48, height: int = 32) -> Image.Image:
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)
    red, green = np.meshgrid(across, down)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 90)], axis=-1).astype(np.uint8))


def saved(kind: str, image: Image.Image | None = None, **more: Any) -> bytes:
    file = io.BytesIO()
    (image or smooth()).save(file, kind, **more)
    return file.getvalue()


def take(arrivals: Arrivals, tmp_path: Path, name: str, content: bytes) -> Arrival:
    (tmp_path / "new").write_bytes(content)
    return arrivals.take(name, tmp_path / "new")


def only(dataset: ImageSet) -> Path:
    (entry,), problems = dataset.entries()
    assert problems == []
    return entry.path


@pytest.mark.parametrize(("kind", "ending"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("BMP", ".bmp")])
@pytest.mark.parametrize("name", ["a.png", "a.JPEG", "a.bmp", "a.webp", "a", "a.mov", "a.jfif"])
def test_an_image_is_what_its_content_is(kind: str, ending: str, name: str, arrivals: Arrivals, tmp_path: Path) -> None:
    content = saved(kind)
    done = take(arrivals, tmp_path, name, content)
    truthful = {"PNG": {".png"}, "JPEG": {".jpg", ".jpeg"}, "WEBP": {".webp"}, "BMP": {".bmp"}}[kind]
    is_right = Path(name).suffix.lower() in truthful
    assert done.images == ((name,) if is_right else ("a" + ending,))
    assert done.told == (() if is_right else (f"{name!r}: contains {kind}, so its name ends in {ending} now.",))
    assert only(arrivals.dataset).read_bytes() == content


def test_pillow_agrees_on_the_kind(tmp_path: Path) -> None:
    for kind, ours in (
        ("PNG", kinds.PNG),
        ("JPEG", kinds.JPEG),
        ("WEBP", kinds.WEBP),
        ("BMP", kinds.BMP),
        ("GIF", kinds.GIF),
        ("TIFF", kinds.TIFF),
    ):
        content = saved(kind)
        assert kinds.kind_of("x", content[: kinds.START]) is ours and Image.open(io.BytesIO(content)).format == kind
    for kind in ("ICO", "TGA", "PPM", "JPEG2000", "PDF"):
        if kind != "JPEG2000" or features.check("jpg_2000"):
            assert not kinds.kind_of("x.png", saved(kind)[: kinds.START]).is_image


@pytest.mark.parametrize(
    ("start", "name", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a.jpg", kinds.HEIC), (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miaf", "a", kinds.HEIC),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf", "a.heic", kinds.AVIF), (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "a", kinds.AVIF),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "a.heic", kinds.VIDEO), (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a.png", kinds.VIDEO),
        (b"RIFF\0\0\0\0AVI LIST", "a.png", kinds.VIDEO), (b"\x1a\x45\xdf\xa3", "a", kinds.VIDEO),
        (b"PK\x03\x04", "a.zip", kinds.ZIP), (b"PK\x03\x04", "a.docx", kinds.DOCUMENT), (b"PK\x03\x04", "a.png", kinds.ZIP),
        (b"%PDF-1.7", "a.jpg", kinds.DOCUMENT), (b"Rar!\x1a", "a.zip", kinds.ARCHIVE), (b"7z\xbc\xaf\x27\x1c", "a", kinds.ARCHIVE),
        (b"BMW in red", "a.txt", kinds.TEXT), (b"a cat", "a.caption", kinds.TEXT), (b"a cat", "a.png", kinds.UNKNOWN),
        (b"\xff\xd8\xff", "a.txt", kinds.JPEG), (b"", "a.png", kinds.EMPTY), (b"8BPS", "a.psd", kinds.OTHER_IMAGE),
    ],
)  # fmt: skip
def test_kinds(start: bytes, name: str, kind: kinds.Kind) -> None:
    assert kinds.kind_of(name, start) is kind


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("film.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "videos"), ("film.png", b"\x1a\x45\xdf\xa3" + bytes(90), "videos"),
        ("text.pdf", b"%PDF-1.7", "documents"), ("text.docx", b"PK\x03\x04", "documents"), ("none.png", b"", "empty"),
        ("what.png", b"<html>", "neither an image"), ("all.rar", b"Rar!\x1a\7", "zips"), ("a.psd", b"8BPS", "PNG or JPEG"),
    ],
)  # fmt: skip
def test_what_is_not_used_names_itself_and_its_remedy(
    name: str, content: bytes, word: str, arrivals: Arrivals, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError) as error:
        take(arrivals, tmp_path, name, content)
    (said,) = error.value.problems
    assert said.startswith(f"{name!r}: ") and word in said and said.endswith(".")
    assert arrivals.dataset.entries() == ([], [])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_broken_image_is_added_and_named(kind: str, arrivals: Arrivals, tmp_path: Path) -> None:
    """It appears on the page, where it can be removed; the others are trained on meanwhile."""
    exif = {"exif": b"Exif\0\0" + saved("JPEG")} if kind == "JPEG" else {}  # a preview with an end of its own
    content = saved(kind, **exif)
    assert not kinds.ends_early(kinds.kind_of("x", content[:64]), content + b"more behind it")
    done = take(arrivals, tmp_path, f"a.{kind.lower()}", content[:-40])
    assert len(done.told) == 1 and "ends too early" in done.told[0] and len(arrivals.dataset.entries()[0]) == 1
    for cut in range(64, len(content) - 2, 29):
        assert kinds.ends_early(kinds.kind_of("x", content[:64]), content[:cut]), cut


def test_an_image_that_is_too_large_is_named(arrivals: Arrivals, tmp_path: Path) -> None:
    with pytest.raises(UnusedError, match="larger than 64 MB"):
        take(arrivals, tmp_path, "a.png", saved("PNG") + bytes(64 * 2**20))


@pytest.mark.parametrize(("kind", "image"), [
    ("GIF", smooth().convert("P")), ("TIFF", smooth()), ("TIFF", smooth().convert("CMYK")), ("TIFF", smooth().convert("L")),
    ("TIFF", smooth().convert("RGBA")), ("TIFF", Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)),
])  # fmt: skip
def test_single_pictures_of_other_kinds_become_png(kind: str, image: Image.Image, arrivals: Arrivals, tmp_path: Path) -> None:
    content = saved(kind, image)
    done = take(arrivals, tmp_path, "a." + kind.lower(), content)
    assert done.images == ("a.png",) and done.told == (
        f"'a.{kind.lower()}': {kind}, which training does not read; it was saved as PNG.",
    )
    by_pillow = Image.open(io.BytesIO(content))
    ours = Image.open(only(arrivals.dataset))
    assert ours.format == "PNG"
    if image.mode.startswith("I"):
        assert np.array_equal(np.asarray(ours), np.asarray(by_pillow))
    else:
        assert np.array_equal(
            np.asarray(ours.convert("RGBA")),
            np.asarray(by_pillow.convert("RGB").convert("RGBA") if image.mode == "CMYK" else by_pillow.convert("RGBA")),
        )


def test_the_rotation_of_a_tiff_is_applied_and_its_profile_kept(arrivals: Arrivals, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved("TIFF", exif=exif, icc_profile=b"a profile" * 20)
    take(arrivals, tmp_path, "a.tif", content)
    upright = np.asarray(smooth().transpose(Image.Transpose.ROTATE_270))
    ours = Image.open(only(arrivals.dataset))
    assert upright.shape[:2] == (48, 32) and np.array_equal(np.asarray(ours), upright)
    assert ours.info["icc_profile"] == b"a profile" * 20 and not ours.getexif()


def test_several_pictures_in_a_file_are_refused(arrivals: Arrivals, tmp_path: Path) -> None:
    for kind in ("GIF", "TIFF"):
        content = saved(kind, save_all=True, append_images=[Image.new("RGB", (48, 32), "red")])
        with pytest.raises(UnusedError, match=f"'a.{kind.lower()}': more than one picture"):
            take(arrivals, tmp_path, f"a.{kind.lower()}", content)


def test_pictures_that_cannot_be_converted_name_themselves(arrivals: Arrivals, tmp_path: Path) -> None:
    for content, why in (
        (saved("TIFF")[:-3000], "damaged"), (b"GIF89a" + bytes(100), "damaged"), (saved("TIFF", Image.new("F", (4, 4))), "32 bits"),
        (saved("GIF", Image.new("1", (9000, 9000))), "64 million"),
    ):  # fmt: skip
        with pytest.raises(UnusedError, match=f"'a.tif': .*{why}"):
            take(arrivals, tmp_path, "a.tif", content)
    assert [path.name for path in tmp_path.iterdir() if "converted" in path.name] == []


def test_a_converter_that_hangs_or_crashes_is_ended(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    stuck = "import sys, time; print('train-lora reader', flush=True); sys.stdin.readline(); time.sleep(60)"
    for command, seconds, why in (
        (stuck, 0.3, "takes longer than 0.3 s"),
        (stuck.replace("time.sleep(60)", "sys.exit()"), 30, "crashes"),
    ):
        reader = Reader((sys.executable, "-c", command), seconds)
        began = time.monotonic()
        with pytest.raises(DatasetError, match=why):
            reader.written(tmp_path / "a", tmp_path / "b", "a.heic", "HEIF")
        assert time.monotonic() - began < 20
        reader.close()


FAKE_HEIF = """
import io
from PIL import Image, ImageFile
class Heif(ImageFile.ImageFile):
    format = "HEIF"
    def _open(self):
        picture = Image.open(io.BytesIO(self.fp.read()[64:]))
        self._size = picture.size
        setattr(self, "_mode" if isinstance(getattr(Image.Image, "mode", None), property) else "mode", picture.mode)
        self.info["icc_profile"] = b"P3" * 50
        self.fp = io.BytesIO(picture.tobytes())
        self.tile = [("raw", (0, 0, *picture.size), 0, (picture.mode, 0, 1))]
def register_heif_opener():
    Image.register_open("HEIF", Heif, lambda start: start[4:12] == b"ftypheic")
"""
HEIC_START = (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").ljust(64, b"\0")
pillow_heif = pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="pillow-heif is not installed")


@pytest.fixture
def standing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Readers]:
    """Readers with a plugin that finds a PNG behind the start of a HEIC."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "pillow_heif.py").write_text(FAKE_HEIF)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plugins"))
    with Readers() as pool:
        yield pool


def test_heic_without_its_package_is_one_sentence_with_the_remedy(
    cats: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "pillow_heif.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "none"))
    with Readers() as pool, pytest.raises(UnusedError) as error:
        take(Arrivals(cats, pool), tmp_path, "IMG_1.HEIC", HEIC_START)
    (said,) = error.value.problems
    assert said.startswith("'IMG_1.HEIC': ") and "pillow-heif==0.16.0" in said and "save them as JPEG" in said


def test_heic_with_its_package_becomes_jpeg_or_png(cats: ImageSet, standing_in: Readers, tmp_path: Path) -> None:
    arrivals = Arrivals(cats, standing_in)
    done = take(arrivals, tmp_path, "IMG_1.HEIC", HEIC_START + saved("PNG"))
    assert done.images == ("IMG_1.jpg",) and "saved as JPEG" in done.told[0]
    ours = Image.open(only(cats))
    assert ours.format == "JPEG" and ours.info["icc_profile"] == b"P3" * 50
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(smooth()))
    assert difference.mean() < 1 and difference.max() <= 6
    seen = smooth().convert("RGBA")
    seen.putalpha(90)
    assert take(arrivals, tmp_path, "b.heic", HEIC_START + saved("PNG", seen)).images == ("b.png",)


@pillow_heif
def test_real_heic_is_upright_and_close(arrivals: Arrivals, tmp_path: Path) -> None:
    import pillow_heif as plugin

    exif = Image.Exif()
    exif[0x0112] = 6
    plugin.register_heif_opener()
    content = saved("HEIF", smooth(640, 480), quality=-1, exif=exif.tobytes())
    assert take(arrivals, tmp_path, "a.heic", content).images == ("a.jpg",)
    ours = load_pixels(only(arrivals.dataset)).astype(int)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    assert upright.shape == ours.shape == (640, 480, 3) and np.abs(ours - upright).mean() < 1
    with pytest.raises(UnusedError, match="damaged"):
        take(arrivals, tmp_path, "b.heic", content[: len(content) // 2])


def test_conversion_answers_in_words(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(saved("PNG"))
    asked = {
        "source": str(tmp_path / "a"),
        "target": str(tmp_path / "b"),
        "name": "a.png",
        "format": None,
        "crop": [1, 2, 30, 20],
    }
    assert conversion.written(asked) == {"suffix": ".png"}
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b")), np.asarray(smooth())[2:20, 1:30])
    full = conversion.written({**asked, "target": "/dev/full"}) if Path("/dev/full").exists() else {"for_now": True}
    assert full["for_now"] is True
    missing = conversion.written({**asked, "source": str(tmp_path / "none")})
    assert missing["for_now"] is True and "No such file" in str(missing["problems"])


def test_captions_arrive_and_follow_their_images(cats: ImageSet, readers: Readers, tmp_path: Path) -> None:
    for number in range(2):
        drop = Arrivals(cats, readers)
        take(drop, tmp_path, "a.png", saved("PNG"))
        assert take(drop, tmp_path, "A.txt", f"caption {number}".encode()).captions == 1
    assert {entry.name: entry.caption for entry in cats.entries()[0]} == {"a.png": "caption 0", "a-2.png": "caption 1"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("x".encode("utf-16"), "UTF-8"),
        (b"\xff\xfe", "UTF-8"),
        (b"a\0b", "UTF-8"),
        (b"x" * 20_001, "20000"),
        (b"x" * (2**20 + 1), "1 MB"),
    ],
)
def test_captions_that_are_no_text_name_themselves(content: bytes, why: str, arrivals: Arrivals, tmp_path: Path) -> None:
    with pytest.raises(UnusedError, match=f"'a.txt': .*{why}"):
        take(arrivals, tmp_path, "a.txt", content)


def test_a_zip_is_no_image(arrivals: Arrivals, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    with pytest.raises(UnusedError, match="'a.png'"):
        take(arrivals, tmp_path, "a.png", (tmp_path / "a.zip").read_bytes())


@pytest.mark.parametrize("name", ["../../a.png", "/etc/a.png", "..\\a.png"])
def test_paths_in_names_lead_nowhere(name: str, arrivals: Arrivals, tmp_path: Path) -> None:
    assert take(arrivals, tmp_path, name, saved("PNG")).images == ("a.png",)
    assert only(arrivals.dataset).parent == arrivals.dataset.folder


def test_remarks_are_gathered() -> None:
    told = Told()
    for number in range(7):
        told.add(f"{number}.png", "empty")
    told.refused(UnusedError("x.mov", "a video"))
    for _ in range(2):
        told.refused(DatasetError(["No reader."]))
    assert told.sentences() == (
        "'0.png', '1.png', '2.png', '3.png', '4.png' and 2 more: empty.",
        "'x.mov': a video.",
        "No reader.",
    )
