"""The background look at the images of a dataset, and the facts that the decoder process tells of an image."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageFilter, ImageOps

from lib_lora.data import dataset as dataset_room
from lib_lora.data import decoder_process
from lib_lora.data.captions import CaptionSource
from lib_lora.data.dataset import scan
from lib_lora.data.decoder_main import READY, answer_to
from lib_lora.data.decoder_process import Look, Reader
from lib_lora.data.image_facts import ImageFacts, deep_as_rgb, difference_hash, save_thumbnail, sharpness, small_grey
from lib_lora.data.image_files import NotNowError
from lib_lora.data.sizes import Size
from lib_lora.datasets import looked, looked_index
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.decoders import Decoders
from lib_lora.datasets.image_set import ImageSet
from lib_lora.datasets.looked import Looks, Progress
from lib_lora.errors import DatasetError
from tests.conftest import write_picture

SECONDS = 60


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_room, "_checked", {})


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """A dataset with six pictures."""
    dataset = Catalogue(tmp_path / "sets").create("cats")
    for number in range(6):
        dataset.add(f"{number}.png", write_picture(tmp_path / f"{number}.png", 96 + number, 64, seed=number))
    return dataset


class Told(Reader):
    """A reader without a process, which notes what it is asked, and can wait or fail."""

    asked: list[tuple[str, str]]
    going: threading.Event
    fails: Callable[[Path], None]

    def __init__(self, asked: list[tuple[str, str]], going: threading.Event, fails: Callable[[Path], None]) -> None:
        super().__init__()
        self.asked, self.going, self.fails = asked, going, fails

    def size(self, path: Path) -> Size:
        self.asked.append(("size", path.name[0]))
        return Size(64, 96 + int(path.name[0]))

    def look(self, path: Path, thumbnail: Path, side: int) -> Look:
        assert self.going.wait(SECONDS)
        self.asked.append(("look", path.name[0]))
        self.fails(path)
        save_thumbnail(Image.new("RGB", (8, 8)), thumbnail, side)
        return Look(ImageFacts(Size(64, 96 + int(path.name[0])), "0" * 64, False, False, 5, 1.5), "")


class Scripted:
    """Decoders of `Told` readers."""

    def __init__(self, most: int = 1) -> None:
        self.asked: list[tuple[str, str]] = []
        self.going = threading.Event()
        self.going.set()
        self.fails: Callable[[Path], None] = lambda path: None
        self.decoders = Decoders(lambda: Told(self.asked, self.going, lambda path: self.fails(path)), most)

    def looks(self, dataset: ImageSet) -> Looks:
        return Looks(dataset, self.decoders, linger_s=0.05)

    def decoded(self) -> list[str]:
        return [name for kind, name in self.asked if kind == "look"]


def answered(path: Path, tmp_path: Path, side: int = 64) -> dict[str, object]:
    return answer_to({"path": str(path), "thumbnail": str(tmp_path / "t.jp_"), "side": side})


def grey_of(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return small_grey(image.convert("RGB"))


# --- the decoder process


def test_a_process_answers_paths_as_before_and_objects_with_facts(tmp_path: Path) -> None:
    """Line for line, through the real process: path, header, facts, a damaged one, and a path again."""
    path = write_picture(tmp_path / "a.png", 200, 100)
    bad = tmp_path / "bad.png"
    bad.write_bytes(path.read_bytes()[:-400])
    thumbnail = {"thumbnail": str(tmp_path / "t.jp_"), "side": 64}
    asked = [
        str(path),
        {"path": str(path), "header": True},
        {"path": str(path), **thumbnail},
        {"path": str(bad), **thumbnail},
        str(path),
    ]
    child = subprocess.run(
        [*decoder_process.COMMAND, "60"],
        input="".join(json.dumps(line) + "\n" for line in asked),
        capture_output=True,
        text=True,
        check=True,
    )
    said = [json.loads(line) for line in child.stdout.split(READY)[1].strip().splitlines()]
    plain = {"size": [100, 200], "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert said[0] == said[4] == plain and said[1] == {"size": [100, 200]}
    assert said[2].items() >= plain.items()
    assert set(said[2]) - set(plain) == {"turned", "transparent", "hash", "sharpness", "unsaved"}
    assert set(said[3]) == {"problems", "for_now"} and "bad.png" in said[3]["problems"][0]


def test_the_process_needs_pillow_alone() -> None:
    """Numpy is closed to it, and nothing of the large packages is loaded."""
    listing = decoder_process.COMMAND[2].replace(
        "; main()", "; print([name for name in ('torch', 'numpy', 'cv2') if sys.modules.get(name)])"
    )
    assert subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_an_image_turned_by_exif_is_told_and_its_thumbnail_is_upright(tmp_path: Path, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    path = write_picture(tmp_path / "a.jpg", 120, 60, exif=exif, quality=95)
    said = answered(path, tmp_path)
    with Image.open(path) as image:
        wanted = ImageOps.exif_transpose(image)
    assert said["turned"] is (orientation not in (None, 1)) and said["size"] == [wanted.height, wanted.width]
    with Image.open(tmp_path / "t.jp_") as shown:
        assert shown.format == "JPEG" and max(shown.size) == 64 and not shown.getexif()
        small = wanted.resize(shown.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(shown, int) - np.asarray(small, int)).mean() < 6
    wanted.save(tmp_path / "upright.png")
    assert said["hash"] == answered(tmp_path / "upright.png", tmp_path)["hash"]


def test_transparency_is_told_where_a_pixel_has_some_and_shown_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (40, 20), (255, 0, 0, 255))
    image.save(tmp_path / "opaque.png")
    image.paste((0, 0, 0, 0), (20, 0, 40, 20))
    image.save(tmp_path / "a.png")
    assert answered(tmp_path / "opaque.png", tmp_path)["transparent"] is False
    assert answered(tmp_path / "a.png", tmp_path)["transparent"] is True
    with Image.open(tmp_path / "t.jp_") as shown:
        assert shown.size == (40, 20)  # never enlarged
        assert min(shown.getpixel((35, 10))) > 240 and shown.getpixel((5, 10))[1] < 40


def test_an_image_of_16_bits_has_a_thumbnail_that_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.abs(np.asarray(deep_as_rgb(image))[..., 0].astype(int) - ramp // 257).max() <= 1
    answered(tmp_path / "a.png", tmp_path)
    with Image.open(tmp_path / "t.jp_") as shown:
        assert np.abs(np.asarray(shown)[..., 0].astype(float) - ramp / 257).mean() < 4


def test_a_thumbnail_says_nothing_of_what_its_file_says(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.jpg", 300, 200, comment=b"secret place", quality=90)
    answered(path, tmp_path)
    assert b"secret" in path.read_bytes() and b"secret" not in (tmp_path / "t.jp_").read_bytes()


def test_facts_come_where_a_thumbnail_cannot_be_written(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    said = answer_to({"path": str(path), "thumbnail": str(tmp_path / "none" / "t.jp_"), "side": 64})
    assert said["unsaved"] == "No such file or directory" and len(str(said["hash"])) == 16
    assert not (tmp_path / "none").exists()


def test_a_thumbnail_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_thumbnail(Image.new("RGB", (9, 9)), tmp_path / "t.jp_", 64)
    assert list(tmp_path.iterdir()) == []


def test_the_hash_is_the_difference_hash(tmp_path: Path) -> None:
    """Against numpy, from the definition: is each of 9x8 areas lighter than the next?"""
    pixels = np.random.default_rng(3).integers(0, 255, (8, 9), dtype=np.uint8)
    bits = "".join(str(int(lighter)) for lighter in (pixels[:, :-1] > pixels[:, 1:]).ravel())
    image = Image.fromarray(pixels).resize((90, 80), Image.Resampling.NEAREST)
    assert difference_hash(image) == int(bits, 2) and 0 < difference_hash(image) < 2**64


def test_the_hash_survives_scaling_and_saving_and_tells_pictures_apart(tmp_path: Path) -> None:
    one, other = (difference_hash(grey_of(write_picture(tmp_path / f"{seed}.png", 800, 600, seed=seed))) for seed in (1, 2))
    with Image.open(tmp_path / "1.png") as image:
        image.resize((300, 225)).save(tmp_path / "copy.jpg", quality=60)
    assert (one ^ difference_hash(grey_of(tmp_path / "copy.jpg"))).bit_count() <= 2
    assert (one ^ other).bit_count() > 15


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    """Against numpy, where nothing is clipped."""
    grey = np.random.default_rng(0).integers(110, 140, (50, 40)).astype(np.uint8)
    wide = grey.astype(int)
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4 * wide[1:-1, 1:-1]
    assert sharpness(Image.fromarray(grey)) == pytest.approx(laplacian.var(), rel=1e-4)
    assert sharpness(Image.new("L", (2, 9))) == 0


def test_a_blurred_image_is_less_sharp_whatever_its_size() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256), dtype=np.uint8)).resize((512, 512))
    blurred = noise.filter(ImageFilter.GaussianBlur(6))
    assert sharpness(small_grey(noise)) > 20 * sharpness(small_grey(blurred))
    large = noise.resize((2048, 2048), Image.Resampling.BICUBIC)
    assert sharpness(small_grey(large)) == pytest.approx(sharpness(small_grey(noise)), rel=0.5)


# --- the look


def test_all_images_are_looked_at_by_the_real_processes(images: ImageSet, tmp_path: Path) -> None:
    """One of them is damaged, names itself, and stops nothing; no process is left."""
    bad = tmp_path / "bad.png"
    bad.write_bytes((tmp_path / "sets" / images.id / "images" / "0.pn_").read_bytes()[:-300])
    images.add("bad.png", bad)
    looks = Looks(images, Decoders(), linger_s=0.1)
    entries, _ = images.entries()
    looks.renew(entries)
    assert looks.wait(SECONDS) and looks.progress() == Progress(7, 7)
    for entry in entries[:6]:
        found = looks.of(entry)
        assert found is not None and found.facts is not None and found.problems == ()
        assert found.facts.sha256 == hashlib.sha256(entry.path.read_bytes()).hexdigest()
        shown = looks.thumbnail(entry)
        assert shown is not None and shown.suffix == ".jp_" and Image.open(shown).size == (96 + int(entry.name[0]), 64)
    found = looks.of(entries[6])
    assert found is not None and found.facts is None and "'bad.png'" in found.problems[0]
    assert looks.thumbnail(entries[6]) is None
    ended(lambda: psutil.Process().children() == [])


def ended(there: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_report_decodes_none_of_them_again(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the good nor the bad: after a look, and after another start too."""
    bad = images.folder / "bad.png"
    bad.write_bytes(b"none")
    looks = Looks(images, Decoders(), linger_s=0.05)
    looks.renew(images.entries()[0])
    assert looks.wait(SECONDS)
    monkeypatch.setattr(Reader, "picture", lambda *_: pytest.fail("decoded again"))
    for start in range(2):
        found = scan([str(images.folder)], captions=CaptionSource(trigger="x"), repeats=1)
        assert len(found.samples) == 6 and found.problems == ()
        assert len(found.notes) == 1 and "'bad.png' is not a readable" in found.notes[0]
        assert found.samples[1].size == Size(64, 97) and len(found.samples[1].sha256) == 64
        dataset_room._checked.clear()
        if not start:
            Looks(images, Decoders()).renew(images.entries()[0])


def test_what_is_known_is_not_decoded_again_after_another_start(images: ImageSet) -> None:
    """And a changed file is, a file whose thumbnail is gone is, and a new one is."""
    script = Scripted()
    first = script.looks(images)
    first.renew(images.entries()[0])
    assert first.wait(SECONDS) and sorted(script.decoded()) == list("012345")
    known = [first.of(entry) for entry in images.entries()[0]]
    script.asked.clear()
    again = script.looks(images)
    again.renew(images.entries()[0])
    assert again.progress() == Progress(6, 6) and again.wait(0) and script.asked == []
    assert [again.of(entry) for entry in images.entries()[0]] == known
    entries, _ = images.entries()
    gone = again.thumbnail(entries[1])
    assert gone is not None
    gone.unlink()
    write_picture(entries[2].path.with_suffix(".png"), 50, 50).replace(entries[2].path)
    last = script.looks(images)
    last.renew(entries)
    assert last.wait(SECONDS) and sorted(script.decoded()) == ["1", "2"]


def test_2000_images_open_again_within_2_seconds(tmp_path: Path) -> None:
    """In memory of the disk's index alone: no process is asked."""
    images = Catalogue(tmp_path).create("many")
    for number in range(2000):
        (images.folder / f"{number:04}.pn_").write_bytes(b"x" * (number + 1))
    entries, _ = images.entries()
    script = Scripted()
    looks = script.looks(images)
    looks.renew(entries)
    assert looks.wait(SECONDS)
    script.asked.clear()
    started = time.monotonic()
    again = script.looks(images)
    again.renew(entries)
    assert again.progress() == Progress(2000, 2000)
    assert time.monotonic() - started < 2
    assert script.asked == []


def test_what_is_asked_for_last_comes_first_and_sizes_come_before_decoding(images: ImageSet) -> None:
    script = Scripted()
    script.going.clear()
    looks = script.looks(images)
    entries, _ = images.entries()
    looks.renew(entries)
    ended(lambda: len(script.asked) == 6)
    assert script.asked == [("size", name) for name in "012345"] and looks.progress() == Progress(0, 6)
    sizes = [looks.of(entry) for entry in entries]
    assert [found.size.width for found in sizes if found and found.size and not found.done] == [96, 97, 98, 99, 100, 101]
    looks.first([entries[4], entries[2]])
    script.going.set()
    assert looks.wait(SECONDS)
    assert script.decoded() == list("042135") and len(script.asked) == 12


def test_sizes_do_not_keep_one_process_from_the_first_thumbnail(tmp_path: Path) -> None:
    images = Catalogue(tmp_path).create("many")
    for number in range(100):
        (images.folder / f"{number % 10}{number}.pn_").write_bytes(b"x")
    script = Scripted()
    looks = script.looks(images)
    looks.renew(images.entries()[0])
    assert looks.wait(SECONDS)
    assert [kind for kind, _ in script.asked].index("look") == looked.IN_A_ROW


def test_no_more_images_are_decoded_at_once_than_there_are_processes(images: ImageSet, tmp_path: Path) -> None:
    """By two datasets together; and by default no more than 4, and no more than cores."""
    script = Scripted(most=2)
    at_once, most, guard = [0], [0], threading.Lock()

    def count(path: Path) -> None:
        with guard:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        with guard:
            at_once[0] -= 1

    script.fails = count
    other = Catalogue(tmp_path / "others").create("others")
    for number in range(6):
        write_picture(other.folder / f"{number}.png").replace(other.folder / f"{number}.pn_")
    looks = [script.looks(images), script.looks(other)]
    for look, dataset in zip(looks, (images, other)):
        look.renew(dataset.entries()[0])
    assert all(look.wait(SECONDS) for look in looks) and most == [2]
    assert Decoders().most <= min(4, psutil.cpu_count() or 1)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_look_ends_with_its_dataset_and_does_not_bring_it_back(
    images: ImageSet, photos: Path, tmp_path: Path, on_disk: bool
) -> None:
    """Although the files of a folder on the disk are still there."""
    sets = Catalogue(tmp_path / "sets")
    if on_disk:
        sets.delete(images.id)
        images = sets.create("mine", str(photos))
    script = Scripted()
    script.going.clear()
    looks = script.looks(images)
    looks.renew(images.entries()[0])
    ended(lambda: {kind for kind, _ in script.asked} == {"size"} and looks._busy != set())
    sets.delete(images.id)
    script.going.set()
    assert looks.wait(SECONDS)
    ended(lambda: not [thread for thread in threading.enumerate() if thread.name == "train-lora looks"])
    assert len(script.decoded()) <= 1 and list((tmp_path / "sets").iterdir()) == []


def test_nothing_is_written_for_a_dataset_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        looked_index.write(tmp_path / "set-0" / "looked", {})
    assert list(tmp_path.iterdir()) == []


def test_close_ends_it(images: ImageSet) -> None:
    script = Scripted()
    script.going.clear()
    looks = script.looks(images)
    looks.renew(images.entries()[0])
    ended(lambda: len(script.asked) == 6)
    looks.close()
    script.going.set()
    assert looks.wait(SECONDS) and script.decoded() == ["0"]
    looks.renew(images.entries()[0])
    assert looks.wait(0) and script.decoded() == ["0"]


def test_a_problem_that_may_pass_is_tried_again_and_one_of_the_file_is_not(images: ImageSet) -> None:
    script = Scripted()

    def fail(path: Path) -> None:
        if path.name[0] in "12":
            raise (NotNowError if path.name[0] == "1" else DatasetError)([f"{path.name} is bad."])

    script.fails = fail
    entries, _ = images.entries()
    for tries in range(2):
        looks = script.looks(images)
        looks.renew(entries)
        assert looks.wait(SECONDS) and looks.progress() == Progress(6, 6)
        assert [found.problems for entry in entries if (found := looks.of(entry))][1:3] == [
            ("1.pn_ is bad.",),
            ("2.pn_ is bad.",),
        ]
        assert script.decoded().count("1") == tries + 1 and script.decoded().count("2") == 1


def test_a_program_that_does_not_start_blames_no_file_and_is_asked_once(images: ImageSet) -> None:
    starts: list[int] = []

    class Broken(Reader):
        def _started(self) -> subprocess.Popen[str]:
            starts.append(1)
            return super()._started()

    looks = Looks(images, Decoders(lambda: Broken(("/no/such/python",)), 1), linger_s=0.05)
    entries, _ = images.entries()
    looks.renew(entries)
    assert looks.wait(SECONDS) and len(starts) == 1
    told = {found.problems for entry in entries if (found := looks.of(entry))}
    assert len(told) == 1 and "does not start" in told.pop()[0]
    assert dataset_room._checked == {}
    mended = Looks(images, Decoders(), linger_s=0.05)
    mended.renew(entries)
    assert mended.wait(SECONDS) and all(found.facts for entry in entries if (found := mended.of(entry)))


def test_a_full_disk_costs_thumbnails_alone_and_is_told(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    images.looked.write_bytes(b"in the way")
    looks = Looks(images, Decoders(), linger_s=0.05)
    entries, _ = images.entries()
    looks.renew(entries)
    assert looks.wait(SECONDS)
    assert all(found.facts for entry in entries if (found := looks.of(entry)))
    assert "Thumbnails cannot be written (" in looks.unsaved()
    images.looked.unlink()
    looks.renew(entries)
    assert looks.wait(SECONDS) and looks.unsaved() == "" and all(looks.thumbnail(entry) for entry in entries)


def test_what_is_gone_leaves_no_thumbnail(images: ImageSet) -> None:
    script = Scripted()
    looks = script.looks(images)
    looks.renew(images.entries()[0])
    assert looks.wait(SECONDS) and len(list(images.looked.iterdir())) == 7
    images.remove(images.entries()[0][3].id)
    looks.renew(images.entries()[0])
    assert looks.progress() == Progress(5, 5) and len(list(images.looked.iterdir())) == 6
    assert len(looked_index.read(images.looked)) == 5


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"version": 1, "images": {"0.png": [1]}}', b'{"version": 1, "images": 3}', b"[" * 10**5, b'{"version": 9}'])  # fmt: skip
def test_a_damaged_index_is_made_again(images: ImageSet, content: bytes) -> None:
    images.looked.mkdir(exist_ok=True)
    (images.looked / looked_index.INDEX).write_bytes(content)
    script = Scripted()
    looks = script.looks(images)
    looks.renew(images.entries()[0])
    assert looks.wait(SECONDS) and len(script.decoded()) == 6
    assert len(looked_index.read(images.looked)) == 6


def test_an_index_that_is_too_large_is_not_read(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted()
    looks = script.looks(images)
    looks.renew(images.entries()[0])
    assert looks.wait(SECONDS) and len(looked_index.read(images.looked)) == 6
    monkeypatch.setattr(looked_index, "MAX_BYTES", 100)
    assert looked_index.read(images.looked) == {}


def test_no_thumbnail_has_the_suffix_of_an_image(images: ImageSet) -> None:
    """A webui serves every file that has one."""
    script = Scripted()
    looks = script.looks(images)
    looks.renew(images.entries()[0])
    assert looks.wait(SECONDS)
    assert {path.suffix for path in images.looked.iterdir()} == {".jp_", ".json"}


def test_files_of_a_folder_on_the_disk_stay_as_they_are(photos: Path, tmp_path: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos.rglob("*") if path.is_file()}
    images = Catalogue(tmp_path / "sets").create("mine", str(photos))
    looks = Looks(images, Decoders(), linger_s=0.05)
    looks.renew(images.entries()[0])
    assert looks.wait(SECONDS) and looks.progress() == Progress(4, 4)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos.rglob("*") if path.is_file()} == before


def test_a_process_can_be_started_before_the_first_image(tmp_path: Path) -> None:
    """An image on its way does not wait for Python; a program that does not start is told with the first image."""
    dataset = Catalogue(tmp_path / "sets").create("cats")
    started = threading.Event()

    class Early(Reader):
        def start(self) -> None:
            super().start()
            started.set()

    reader = Early()
    looks = Looks(dataset, Decoders(lambda: reader, 1), linger_s=SECONDS)
    looks.prepare()
    looks.prepare()
    assert started.wait(SECONDS) and reader._process is not None and looks.progress() == Progress(0, 0)
    process = reader._process
    dataset.add("0.png", write_picture(tmp_path / "0.png"))
    looks.first(dataset.entries()[0])
    assert looks.wait(SECONDS) and looks.progress() == Progress(1, 1) and reader._process is process
    looks.close()
    broken = Looks(dataset, Decoders(lambda: Reader(("/no/such/python",)), 1), linger_s=0.05)
    broken.prepare()
    broken.renew(dataset.entries()[0])
    assert broken.wait(SECONDS)


def test_a_thumbnail_is_found_by_its_id_as_long_as_its_image_is_there(images: ImageSet) -> None:
    looks = Scripted().looks(images)
    entries, _ = images.entries()
    looks.renew(entries)
    assert looks.wait(SECONDS)
    assert looks.thumbnail_of(entries[0].id) == looks.thumbnail(entries[0]) is not None
    entries[0].path.unlink()
    assert looks.thumbnail_of(entries[0].id) is None and looks.thumbnail_of("0" * 16) is None
