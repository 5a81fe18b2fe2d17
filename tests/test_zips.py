"""Zips of images: what is imported, what is told, and what is refused with nothing added."""

from __future__ import annotations

import errno
import io
import random
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_lora.data.captions import CaptionSource
from lib_lora.data.dataset import MAX_IMAGES, scan
from lib_lora.data.decoder_process import Readers
from lib_lora.data.sizes import Crop
from lib_lora.datasets import zip_listing, zips
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.datasets.placing import NewImage, is_numbered
from lib_lora.datasets.zip_export import export_zip
from lib_lora.datasets.zips import Imported, import_zip
from lib_lora.errors import DatasetError


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "sets")


@pytest.fixture
def cats(catalogue: Catalogue) -> ImageSet:
    return catalogue.create("cats")


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with Readers() as pool:
        yield pool


def picture(colour: int = 0, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (colour % 256, colour // 256 % 256, 90)).save(file, kind)
    return file.getvalue()


def packed(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def imported(tmp_path: Path, files: dict[str, bytes], into: ImageSet, readers: Readers, **more: Any) -> Imported:
    return import_zip(packed(tmp_path / "a.zip", files), "a.zip", into, readers, **more)


def held(dataset: ImageSet) -> dict[str, tuple[bytes, str | None]]:
    """Place -> bytes and caption."""
    return {entry.place: (entry.path.read_bytes(), entry.caption) for entry in dataset.entries()[0]}


def all_files(dataset: ImageSet) -> list[str]:
    """What is on the disk, in parts of imports too."""
    root = dataset.folder.parent
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


EMPTY = ["images/train-lora-dataset.json"]


def refused(tmp_path: Path, archive: Path, into: ImageSet, readers: Readers) -> str:
    """The sentence, if nothing was added."""
    before = all_files(into)
    with pytest.raises(DatasetError) as error:
        import_zip(archive, "a.zip", into, readers)
    assert all_files(into) == before
    assert error.value.problems[0].endswith(".") and "\n" not in error.value.problems[0]
    return error.value.problems[0]


def test_images_and_captions_come_in_byte_for_byte(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    files = {
        "a.png": picture(1),
        "a.txt": b"a cat",
        "sub/b.JPG": picture(2, "JPEG"),
        "sub/b.caption": "猫".encode(),
        "c.webp": picture(3, "WEBP"),
    }
    done = imported(tmp_path, files, cats, readers)
    assert held(cats) == {
        "a.png": (files["a.png"], "a cat"),
        "b.JPG": (files["sub/b.JPG"], "猫"),
        "c.webp": (files["c.webp"], None),
    }
    assert (done.names, done.captions, done.told) == (("a.png", "b.JPG", "c.webp"), 2, ())
    assert not list((cats.folder.parent / "arriving").iterdir())
    assert not [path for path in cats.folder.iterdir() if path.suffix in {".png", ".JPG", ".webp"}]  # hidden names


@pytest.mark.parametrize("start", ["", "img/", "project/img/", "a/b/c/"])
def test_numbered_folders_keep_their_repeats_at_any_depth(start: str, tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    files = {f"{start}10_ohwx cat/a.png": picture(1), f"{start}3_猫/a.png": picture(2), f"{start}3_猫/a.txt": b"x"}
    done = imported(tmp_path, files, cats, readers)
    assert done.folders == ("10_ohwx cat", "3_猫") and done.told == ()
    found = scan([str(cats.folder)], captions=CaptionSource(), repeats=1)
    assert [(sample.repeats, sample.caption) for sample in found.samples] == [(10, "ohwx cat"), (3, "x")] and not found.problems
    assert [entry.place for entry in cats.entries()[0]] == ["10_ohwx cat/a.png", "3_猫/a.png"]


BOTH = {"img/10_cat/a.png": picture(1), "reg/1_animal/b.png": picture(2), "reg/1_animal/b.txt": b"an animal"}


def test_of_a_zip_with_both_kinds_a_dataset_takes_its_own(
    tmp_path: Path, catalogue: Catalogue, cats: ImageSet, readers: Readers
) -> None:
    done = imported(tmp_path, BOTH, cats, readers)
    assert held(cats) == {"10_cat/a.png": (BOTH["img/10_cat/a.png"], None)}
    assert done.told == (f"'b.png': {zip_listing.NO_REG}.",)
    animals = catalogue.create("animals")
    done = imported(tmp_path, BOTH, animals, readers, reg=True)
    assert held(animals) == {"1_animal/b.png": (BOTH["reg/1_animal/b.png"], "an animal")}
    assert (done.names, done.captions, done.folders) == (("b.png",), 1, ("1_animal",))
    assert done.told == (f"'a.png': {zip_listing.NO_LEARNED}.",)


@pytest.mark.parametrize("reg", [False, True])
@pytest.mark.parametrize("start", ["img/10_cat", "reg/10_cat"])
def test_a_zip_of_one_kind_is_taken_as_what_it_is_imported_for(
    start: str, reg: bool, tmp_path: Path, cats: ImageSet, readers: Readers
) -> None:
    done = imported(tmp_path, {f"{start}/a.png": picture(1)}, cats, readers, reg=reg)
    assert held(cats).keys() == {"10_cat/a.png"} and done.told == ()


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_not_used_is_one_sentence_for_each_kind(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    files = {
        "10_cat/a.png": picture(1), "10_cat/a.txt": b"a cat", "10_cat/a.caption": b"another", "10_cat/deep/2_x/b.png": picture(2),
        "loose.png": picture(3), "10_cat/lonely.txt": b"x", "more.zip": b"PK\x05\x06", "clip.mov": b"x", "notes.md": b"x",
        "10_cat/clip.mp4": b"x", "10_cat/fake.png": b"no image at all", "10_cat/film.png": b"\0\0\0\x18ftypisom" + bytes(60),
        "10_cat/Thumbs.db": b"x", "__MACOSX/10_cat/._a.png": b"x", "10_cat/._a.png": b"x", "10_cat/.DS_Store": b"x",
        "10_cat/con.png": picture(4), ".git/a.png": picture(5),
    }  # fmt: skip
    done = imported(tmp_path, files, cats, readers)
    assert held(cats) == {"10_cat/a.png": (files["10_cat/a.png"], "a cat")}
    told = " ".join(done.told)
    assert len(done.told) == 8 and all(sentence.endswith(".") for sentence in done.told)
    assert "'clip.mov', 'notes.md', 'clip.mp4': neither" in told and "'b.png', 'loose.png': next to the numbered" in told
    for name in ("a.caption", "lonely.txt", "more.zip", "fake.png", "film.png", "con.png"):
        assert repr(name) in told
    for name in ("Thumbs", "._a", "DS_Store", ".git"):
        assert name not in told


def test_links_and_devices_are_not_used(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(9))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", picture(1))
        for name, kind in (("link.png", stat.S_IFLNK), ("device.png", stat.S_IFCHR), ("pipe.txt", stat.S_IFIFO)):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (kind | 0o777) << 16
            archive.writestr(info, str(secret))
    done = import_zip(tmp_path / "a.zip", "a.zip", cats, readers)
    assert held(cats).keys() == {"a.png"} and done.told == (f"'link.png', 'device.png', 'pipe.txt': {zip_listing.LINKS}.",)


@pytest.mark.parametrize(
    "path", ["../a.png", "x/../../a.png", "/etc/a.png", "C:/a.png", "..\\a.png", "\\\\host\\share\\a.png", "c:\\a.png"]
)
def test_paths_that_lead_out_are_refused(path: str, tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    archive = packed(tmp_path / "a.zip", {"good.png": picture(1), path: picture(2)})
    assert "leads out of it" in refused(tmp_path, archive, cats, readers)


def encrypted(content: bytes) -> bytes:
    """The zip with the flag of encryption on all entries."""
    changed = bytearray(content)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(magic)
        while at >= 0:
            changed[at + offset] |= 1
            at = content.find(magic, at + 1)
    return bytes(changed)


def test_a_password_is_named(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    archive = packed(tmp_path / "a.zip", {"a.png": picture(1)})
    archive.write_bytes(encrypted(archive.read_bytes()))
    assert "password" in refused(tmp_path, archive, cats, readers)


def test_methods_whose_output_cannot_be_bounded_are_refused(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        archive = packed(tmp_path / "a.zip", {"a.png": picture(1)}, method)
        assert "Deflate" in refused(tmp_path, archive, cats, readers)


def test_bombs_are_refused_before_they_are_unpacked(
    tmp_path: Path, cats: ImageSet, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "unpack", lambda *_: pytest.fail("unpacked"))
    assert "times its size" in refused(tmp_path, packed(tmp_path / "a.zip", {"a.bmp": bytes(30 * 2**20)}), cats, readers)
    assert "more than 64 MB" in refused(tmp_path, packed(tmp_path / "a.zip", {"a.bmp": bytes(64 * 2**20 + 1)}), cats, readers)
    monkeypatch.setattr(zip_listing, "MAX_UNPACKED", 1000)
    noise = {f"{n}.png": random.Random(n).randbytes(600) for n in range(2)}
    monkeypatch.setattr(zip_listing, "MAX_UNPACKED", 1100)
    assert "split it" in refused(tmp_path, packed(tmp_path / "a.zip", noise), cats, readers)
    caption = {"a.png": picture(1), "a.txt": random.Random(1).randbytes(2**20 + 1)}
    assert "'a.txt'" in refused(tmp_path, packed(tmp_path / "a.zip", caption), cats, readers)


def test_a_size_that_is_a_lie_unpacks_to_no_more(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    archive = packed(tmp_path / "a.zip", {"a.bmp": bytes(10 * 2**20)})
    content = bytearray(archive.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 100)
    archive.write_bytes(content)
    assert "damaged" in refused(tmp_path, archive, cats, readers)


def many(path: Path, number: int, stated: int | None = None) -> Path:
    """A zip of empty entries, whose end may state another number."""
    local = b"PK\x03\x04" + bytes(26)
    entry = b"PK\x01\x02" + bytes(42)
    listed = entry * number
    end = b"PK\x05\x06" + struct.pack(
        "<HHHHIIH", 0, 0, *([min(number, 65535) if stated is None else stated] * 2), len(listed), len(local), 0
    )
    path.write_bytes(local + listed + end)
    return path


def test_a_long_list_of_entries_is_refused_before_it_is_held(
    tmp_path: Path, cats: ImageSet, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZipInfo", lambda *_: pytest.fail("held"))
    for number, stated in ((100_001, None), (100_001, 1), (900_000, 1)):
        assert "100,000 files" in refused(tmp_path, many(tmp_path / "a.zip", number, stated), cats, readers)


def test_more_images_than_a_dataset_may_have_are_refused(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    imported(tmp_path, {"a.png": picture(1)}, cats, readers)
    archive = packed(tmp_path / "a.zip", {f"{n}.png": b"x" for n in range(MAX_IMAGES)}, zipfile.ZIP_STORED)
    assert f"would have {MAX_IMAGES + 1} images" in refused(tmp_path, archive, cats, readers)


def test_a_broken_zip_is_one_sentence_wherever_it_breaks(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    whole = packed(tmp_path / "a.zip", {"a.png": picture(1), "b/c.png": picture(2)}).read_bytes()
    broken = tmp_path / "broken.zip"
    for cut in range(0, len(whole), 37):
        broken.write_bytes(whole[:cut])
        assert "damaged or broken off" in refused(tmp_path, broken, cats, readers)


def test_a_flipped_byte_adds_nothing_or_the_right_bytes(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    whole = packed(tmp_path / "a.zip", {"a.png": picture(1), "a.txt": b"a cat"}).read_bytes()
    outcomes = set()
    for at in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[at] ^= 0x41
        (tmp_path / "b.zip").write_bytes(damaged)
        try:
            import_zip(tmp_path / "b.zip", "b.zip", cats, readers)
            outcomes.add("read")
            for entry in cats.entries()[0]:
                assert entry.path.read_bytes() == picture(1)
                cats.remove(entry.id)
        except DatasetError:
            outcomes.add("refused")
        for path in cats.folder.iterdir():
            if path.name != "train-lora-dataset.json":
                pytest.fail(f"{path.name} is left")
        assert not list((cats.folder.parent / "arriving").iterdir())
    assert outcomes == {"read", "refused"}


def test_a_member_with_a_wrong_checksum_adds_nothing(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    archive = packed(tmp_path / "a.zip", {"a.png": picture(1), "z.png": picture(2)}, zipfile.ZIP_STORED)
    content = archive.read_bytes()
    archive.write_bytes(content.replace(picture(2), picture(2)[:-5] + b"?????", 1))
    assert "'z.png'" in refused(tmp_path, archive, cats, readers)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, cats: ImageSet, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(tmp_path / "a.zip", {"a.png": picture(1), "b.png": picture(2)})
    real = zips.unpack
    monkeypatch.setattr(
        zips, "unpack", lambda file, member, *more: real(file, member, *more) if member.name == "a.png" else full_disk()
    )
    assert "No space left on device" in refused(tmp_path, archive, cats, readers)
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 5, 5))
    assert "0.0 GB are free" in refused(tmp_path, archive, cats, readers)


def test_a_move_that_fails_takes_the_others_back(
    tmp_path: Path, cats: ImageSet, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"10_cat/a.png": picture(1), "10_cat/a.txt": b"x", "10_cat/b.png": picture(2)}
    archive = packed(tmp_path / "a.zip", files)
    real = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, target: full_disk() if str(target).endswith("b.pn_") else real(self, target)
    )
    assert "No space left" in refused(tmp_path, archive, cats, readers)
    assert not (cats.folder / "10_cat").exists()


def test_crops_that_cannot_be_written_take_the_images_back(
    tmp_path: Path, cats: ImageSet, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = b'{"name": "x", "source": null, "images": {"a.png": {"crop": [0, 0, 4, 4]}}}'
    archive = packed(tmp_path / "a.zip", {"a.png": picture(1), "train-lora-dataset.json": edits})
    monkeypatch.setattr(ImageSet, "_write", full_disk)
    assert "No space left" in refused(tmp_path, archive, cats, readers)


SCRIPTS = [
    "猫.png",
    "кот 1.png",
    "قطة.png",
    "γάτα.png",
    "बिल्ली.png",
    "แมว.png",
    "고양이.png",
    "🐱.png",
    "chat à l'été.png",
    "猫.日本.png",
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_names_in_every_script_pair_with_their_captions(name: str, tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    done = imported(tmp_path, {name: picture(1), name[:-4] + ".txt": name.encode()}, cats, readers)
    assert held(cats) == {name: (picture(1), name)} and done.told == ()


def unmarked(path: Path, names: dict[str, bytes]) -> Path:
    """A zip whose names have raw bytes, and no mark for UTF-8."""
    body, listed = b"", b""
    for raw, content in names.items():
        name = raw.encode("latin-1")
        sizes = struct.pack("<IIIHH", zlib.crc32(content), len(content), len(content), len(name), 0)
        entry = struct.pack("<HHHHH", 20, 0, 0, 0, 33)
        listed += b"PK\x01\x02" + struct.pack("<H", 20) + entry + sizes + bytes(10) + struct.pack("<I", len(body)) + name
        body += b"PK\x03\x04" + entry + sizes + name + content
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, len(names), len(names), len(listed), len(body), 0)
    path.write_bytes(body + listed + end)
    return path


def raw(name: str, encoding: str) -> str:
    return name.encode(encoding).decode("latin-1")


def test_unmarked_names_are_utf_8_or_this_machines_or_cp437(
    tmp_path: Path, cats: ImageSet, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = unmarked(tmp_path / "a.zip", {raw("猫.png", "utf-8"): picture(1), raw("猫.txt", "utf-8"): b"a cat"})
    done = import_zip(archive, "a.zip", cats, readers)
    assert held(cats) == {"猫.png": (picture(1), "a cat")} and done.told == ()
    archive = unmarked(tmp_path / "a.zip", {raw("été.png", "cp437"): picture(2), raw("été.txt", "cp437"): b"summer"})
    done = import_zip(archive, "a.zip", cats, readers)
    assert held(cats)["été.png"] == (picture(2), "summer") and "unknown encoding" in done.told[0]
    monkeypatch.setattr("locale.getpreferredencoding", lambda _: "gbk")
    archive = unmarked(tmp_path / "a.zip", {raw("10_小猫/照片.png", "gbk"): picture(3)})
    with pytest.raises(DatasetError, match="images without folders"):
        import_zip(archive, "a.zip", cats, readers)
    info = zipfile.ZipFile(archive).infolist()[0]
    assert zip_listing.decoded(info) == ("10_小猫/照片.png", True)


def test_decomposed_names_of_macos_are_composed(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    imported(tmp_path, {"e\u0301.png": picture(1), "\u00e9.txt": b"accent"}, cats, readers)
    assert held(cats) == {"\u00e9.png": (picture(1), "accent")}


def test_equal_names_get_numbers_and_keep_their_captions(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    files = {
        "x/a.png": picture(1),
        "x/a.txt": b"first",
        "y/A.png": picture(2),
        "y/A.txt": b"second",
        "z/a.jpg": picture(3, "JPEG"),
        "z/a.txt": b"third",
    }
    for _ in range(2):
        imported(tmp_path, files, cats, readers)
    found = held(cats)
    assert len(found) == 6 and len({Path(place).stem.casefold() for place in found}) == 6
    captions = {"x/a.png": "first", "y/A.png": "second", "z/a.jpg": "third"}
    assert all(captions[name] == caption for content, caption in found.values() for name in captions if files[name] == content)


def test_two_images_with_one_caption_file_both_have_it(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    imported(tmp_path, {"a.png": picture(1), "a.jpg": picture(2, "JPEG"), "a.txt": b"shared"}, cats, readers)
    assert [caption for _, caption in held(cats).values()] == ["shared", "shared"]


def test_endings_tell_the_truth_afterwards(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    done = imported(tmp_path, {f"{n}.png": picture(n, "JPEG") for n in range(3)}, cats, readers)
    assert sorted(held(cats)) == ["0.jpg", "1.jpg", "2.jpg"]
    assert done.told == ("'0.png', '1.png', '2.png': contains JPEG, so its name ends in .jpg now.",)


def test_numbered_folders_and_loose_images_are_not_mixed(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    """Next to numbered folders loose images would not be trained on."""
    imported(tmp_path, {"a.png": picture(1)}, cats, readers)
    assert "images without folders" in refused(tmp_path, packed(tmp_path / "a.zip", {"10_cat/b.png": picture(2)}), cats, readers)


def test_loose_images_go_to_the_only_folder(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    imported(tmp_path, {"10_cat/a.png": picture(1)}, cats, readers)
    imported(tmp_path, {"a.png": picture(2), "10_Cat.txt": b"x"}, cats, readers)
    imported(tmp_path, {"10_CAT/a.png": picture(3)}, cats, readers)
    assert sorted(held(cats)) == ["10_cat/a-2.png", "10_cat/a-3.png", "10_cat/a.png"]
    imported(tmp_path, {"3_dog/a.png": picture(4)}, cats, readers)
    assert "'10_cat', '3_dog'; choose" in refused(tmp_path, packed(tmp_path / "a.zip", {"b.png": picture(5)}), cats, readers)


def test_a_file_in_a_folder_can_be_removed_and_added(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    imported(tmp_path, {"10_cat/a.png": picture(1), "10_cat/a.txt": b"x"}, cats, readers)
    cats.remove(cats.entries()[0][0].id)
    assert all_files(cats) == EMPTY and cats.entries() == ([], [])
    (tmp_path / "new").write_bytes(picture(2))
    for wrong in ("10_../../x", "cat", "10_a/b", "0_cat", "10_x."):
        with pytest.raises(DatasetError, match="Folder"):
            cats.add("b.png", tmp_path / "new", wrong)
    assert cats.add("b.png", tmp_path / "new", "7_cat") == "b.png"
    assert held(cats) == {"7_cat/b.png": (picture(2), None)}


@pytest.mark.parametrize(
    ("name", "is_it"),
    [
        ("10_cat", True),
        ("1_", True),
        ("0_x", False),
        ("20240101_x", False),
        ("cat", False),
        ("10cat", False),
        ("10_a*", False),
        ("10_" + "猫" * 70, False),
    ],
)
def test_folders_with_legal_repeats_are_numbered(name: str, is_it: bool) -> None:
    assert is_numbered(name) is is_it


def test_a_dataset_of_a_folder_on_the_disk_takes_no_zip(tmp_path: Path, catalogue: Catalogue, readers: Readers) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_bytes(picture(1))
    theirs = catalogue.create("theirs", str(tmp_path / "mine"))
    assert "folder on the disk" in refused(tmp_path, packed(tmp_path / "a.zip", {"b.png": picture(2)}), theirs, readers)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["a.png"]


def test_a_file_of_crops_brings_crops_alone(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    edits = b'{"name": "evil", "source": "/etc", "images": {"10_cat/a.png": {"crop": [1, 2, 5, 6], "left_out": true}, "b.png": {"crop": [0, 0, 1, 1]}}}'
    imported(tmp_path, {"x/10_cat/a.png": picture(1), "x/train-lora-dataset.json": edits}, cats, readers)
    (entry,), problems = cats.entries()
    assert entry.edit.crop == Crop(1, 2, 5, 6) and not entry.edit.left_out and not problems
    assert cats.name == "cats" and cats.edits.source is None and set(cats.edits.images) == {"10_cat/a.png"}


@pytest.mark.parametrize(
    "edits",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"name": 1}',
        b"\xff",
        b'{"name": "", "source": null, "images": {"a.png": {"crop": [3, 3, 1, 1]}}}',
        b'{"name": "", "source": null, "images": {"a.png": 3}}',
    ],
)
def test_a_damaged_file_of_crops_costs_the_crops_alone(edits: bytes, tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    done = imported(tmp_path, {"a.png": picture(1), "train-lora-dataset.json": edits}, cats, readers)
    assert held(cats) == {"a.png": (picture(1), None)} and len(done.told) == 1 and "crops" in done.told[0]


def test_captions_that_are_no_text_are_told(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    done = imported(
        tmp_path,
        {"a.png": picture(1), "a.txt": "猫".encode("utf-16"), "b.png": picture(2), "b.txt": b"x" * 30_000},
        cats,
        readers,
    )
    assert held(cats) == {"a.png": (picture(1), None), "b.png": (picture(2), None)}
    assert len(done.told) == 2 and "UTF-8" in done.told[0] and "20000 characters" in done.told[1]


def test_a_zip_without_images_is_one_sentence(tmp_path: Path, cats: ImageSet, readers: Readers) -> None:
    for files in ({}, {"a.txt": b"x"}, {"fake.png": b"nothing"}):
        assert "contains no image that can be used" in refused(tmp_path, packed(tmp_path / "a.zip", files), cats, readers)


def test_an_error_half_way_leaves_nothing(
    tmp_path: Path, cats: ImageSet, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(Exception):
        pass

    real = zips.settled

    def stop(name: str, *more: Any) -> str:
        if name == "1.png":
            raise StoppedError
        return real(name, *more)

    monkeypatch.setattr(zips, "settled", stop)
    with pytest.raises(StoppedError):
        imported(tmp_path, {f"{n}.png": picture(n) for n in range(3)}, cats, readers)
    assert all_files(cats) == EMPTY


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(files=st.dictionaries(NAMES, st.sampled_from([b"", b"x", picture(1), picture(2, "JPEG")]), max_size=6), data=st.data())
def test_no_name_writes_outside_or_crashes(
    files: dict[str, bytes], data: st.DataObject, readers: Readers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    endings = [".png", ".txt", "/a.png", ".jpg", "/../b.png", ""]
    root = tmp_path_factory.mktemp("any")
    cats = Catalogue(root / "sets").create("cats")
    archive = packed(root / "a.zip", {name + data.draw(st.sampled_from(endings)): content for name, content in files.items()})
    try:
        import_zip(archive, "a.zip", cats, readers)
    except DatasetError as error:
        assert all(problem.endswith(".") for problem in error.problems)
    assert sorted(path.name for path in root.iterdir()) == ["a.zip", "sets"]
    entries, problems = cats.entries()
    assert problems == [] and all(entry.path.read_bytes() in (picture(1), picture(2, "JPEG")) for entry in entries)


def test_images_moved_by_hand_have_no_equal_stems(tmp_path: Path, cats: ImageSet) -> None:
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(picture(number))
    places = cats.add_all([NewImage("", "a.png", tmp_path / f"{number}") for number in range(3)])
    assert [path.name for path in places] == ["a.pn_", "a-2.pn_", "a-3.pn_"]


def test_export_and_import_is_the_identity_once(tmp_path: Path, catalogue: Catalogue, cats: ImageSet, readers: Readers) -> None:
    """More in test_zip_export."""
    files = {"10_cat/a.png": picture(1), "10_cat/a.txt": "a, 猫\nb".encode(), "3_dog/a.png": picture(2)}
    imported(tmp_path, files, cats, readers)
    export_zip(cats, tmp_path / "out.zip", readers)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    again = catalogue.create("again")
    import_zip(tmp_path / "out.zip", "out.zip", again, readers)
    assert held(again) == held(cats)
