"""A captioning run: what it writes, what it survives, and what it leaves when it is stopped."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest
from PIL import Image

from lib_lora.data.decoder_process import Readers
from lib_lora.data.sizes import Crop
from lib_lora.datasets import captioner_calls, captioning
from lib_lora.datasets.captioner_calls import HangsError, StoppedError, called
from lib_lora.datasets.captioners.captioner import CaptionerError, Tags, legal_answer
from lib_lora.datasets.captioning import MOST_FAILURES, Captioning, CaptioningProgress, picture_of
from lib_lora.datasets.captioning_options import CaptioningOptions, written
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import ImageSet
from lib_lora.errors import DatasetError
from tests.conftest import write_picture
from tests.house import assert_one_sentence, sentences

ROOT = Path(__file__).parent.parent


class Told:
    """A captioner that answers what the test says, by the number of the image, from 0."""

    name, seconds = "Told", 20.0

    def __init__(self, answer: Callable[[int], object], missing: str = "") -> None:
        self._answer, self._missing = answer, missing
        self.images: list[Image.Image] = []
        self.entered = self.left = 0

    def needs(self) -> str:
        return self._missing

    def __enter__(self) -> Told:
        self.entered += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.left += 1

    def wait_for_turn(self) -> None:
        pass

    def caption(self, image: Image.Image) -> str | Tags:
        self.images.append(image)
        return self._answer(len(self.images) - 1)  # type: ignore[return-value]


def make(folder: Path, count: int = 4) -> ImageSet:
    found = Catalogue(folder / "sets").create("cats")
    for number in range(count):
        found.add(f"{number}.png", write_picture(folder / "in" / "new.png", 64, 48, seed=number))
    return found


@pytest.fixture
def dataset(tmp_path: Path) -> ImageSet:
    return make(tmp_path)


def captions(dataset: ImageSet) -> list[str | None]:
    return [entry.caption for entry in dataset.entries()[0]]


def run(dataset: ImageSet, answer: Callable[[int], object], **options: object) -> CaptioningProgress:
    job = Captioning(dataset, Told(answer), dataset.entries()[0], CaptioningOptions(**options))  # type: ignore[arg-type]
    job.start()
    assert job.join(60)
    for text in (*job.progress.problems, *filter(None, [job.progress.ended])):
        assert_one_sentence(text)
    return job.progress


def test_every_image_gets_its_caption_and_one_undo_takes_all_back(dataset: ImageSet) -> None:
    progress = run(dataset, lambda number: f"caption {number}")
    assert captions(dataset) == ["caption 0", "caption 1", "caption 2", "caption 3"]
    assert progress == CaptioningProgress(4, 4, 4, "", False)
    assert dataset.undo() == "captions of Told" and captions(dataset) == [None] * 4 and dataset.undo() == ""


def test_the_captioner_sees_the_part_that_is_trained(tmp_path: Path) -> None:
    dataset = make(tmp_path, 1)
    (entry,) = dataset.entries()[0]
    dataset.change({entry.place: replace(entry.edit, crop=Crop(5, 6, 25, 16))}, "crop")
    captioner = Told(lambda _: "a cat")
    job = Captioning(dataset, captioner, dataset.entries()[0], CaptioningOptions())
    job.start()
    assert job.join(60) and dataset.entries()[0][0].edit.crop == Crop(5, 6, 25, 16)
    with Image.open(entry.path) as image:
        expected = image.convert("RGB").crop((5, 6, 25, 16))
    assert captioner.images[0].mode == "RGB" and np.array_equal(np.asarray(captioner.images[0]), np.asarray(expected))
    assert (captioner.entered, captioner.left) == (1, 1)


def test_an_image_smaller_than_its_crop_is_told(tmp_path: Path) -> None:
    dataset = make(tmp_path, 1)
    (entry,) = dataset.entries()[0]
    with Readers() as readers, pytest.raises(DatasetError) as caught:
        picture_of(replace(entry, edit=replace(entry.edit, crop=Crop(0, 0, 65, 10))), readers)
    assert len(sentences(caught.value)) == 1


@pytest.mark.parametrize(("mode", "expected"), [
    ("missing", ["mine", "new"]), ("replace", ["new", "new"]), ("append", ["mine, new", "new"]),
])  # fmt: skip
def test_modes(tmp_path: Path, mode: str, expected: list[str]) -> None:
    dataset = make(tmp_path, 2)
    dataset.change_image(dataset.entries()[0][0].id, {"caption": "mine"})
    progress = run(dataset, lambda _: "new", mode=mode)
    assert captions(dataset) == expected and progress.total == (1 if mode == "missing" else 2)


def test_appending_keeps_every_line() -> None:
    assert written("new", CaptioningOptions("append"), "a\nb") == "a, new\nb, new"


TAGS = [("1girl", 0.9), ("hat_(red)", 0.5), ("^_^", 0.5), ("tree", 0.95), ("rain", 0.2), ("\\(x\\)", 0.4)]


@pytest.mark.parametrize(("options", "expected"), [
    ({}, "tree, 1girl, hat (red), ^_^, (x)"),
    ({"threshold": 0.5}, "tree, 1girl, hat (red), ^_^"),
    ({"spaces": False, "unescape": False}, "tree, 1girl, hat_(red), ^_^, \\(x\\)"),
    ({"most_tags": 2}, "tree, 1girl"),
    ({"unwanted": ("Hat (red)", "tree", "(x)")}, "1girl, ^_^"),
    ({"prefix": "ohwx cat", "suffix": "photo", "most_tags": 1}, "ohwx cat, tree, photo"),
    ({"prefix": "a photo of ", "suffix": " at night", "most_tags": 1}, "a photo of tree at night"),
    ({"prefix": "ohwx, ", "most_tags": 1}, "ohwx, tree"),
    ({"threshold": 0.99, "prefix": "ohwx"}, ""),
])  # fmt: skip
def test_tags_become_a_caption(options: dict[str, object], expected: str) -> None:
    assert written(TAGS, CaptioningOptions(**options), None) == expected  # type: ignore[arg-type]


def test_a_sentence_stays_as_it_is_said() -> None:
    said = "a cat ,  with a hat, \\(x\\) snake_case"
    assert written(said, CaptioningOptions(spaces=False, unescape=False), None) == said
    assert written(said, CaptioningOptions(), None) == "a cat ,  with a hat, (x) snake case"
    assert written("a, b, c", CaptioningOptions(unwanted=("B",)), None) == "a, c"


def test_options_are_checked() -> None:
    bad = CaptioningOptions("all", "x" * 2000, "\n", float("nan"), True, True, ("x" * 2000,), -1)  # type: ignore[arg-type]
    with pytest.raises(DatasetError) as caught:
        bad.require()
    assert len(sentences(caught.value)) == 6
    assert CaptioningOptions().problems() == []


NONSENSE = {
    "a number": 7, "nothing": None, "bytes": b"a cat", "an empty text": "", "signs": "...", "a megabyte": "cat " * 2**18,
    "control characters": "a \x1b[31m cat", "a zero": "a\0cat", "half a character": "a \ud83d", "an error": "a cat<error>",
    "a web page": "<!DOCTYPE html><html><body>502</body></html>", "markup": "502 Bad Gateway</h1>", "no tags": [1, 2],
    "a probability above 1": [("cat", 1.5)], "no probability": [("cat", float("nan"))], "a tag with a line": [("a\x07", 0.5)],
    "a tag of 1 MB": [("a" * 2**20, 0.5)], "a million tags": [("a", 0.5)] * 10**6,
}  # fmt: skip


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_told_for_its_image_and_the_others_go_on(dataset: ImageSet, answer: object) -> None:
    progress = run(dataset, lambda number: answer if number == 1 else f"caption {number}")
    assert captions(dataset) == ["caption 0", None, "caption 2", "caption 3"]
    assert len(progress.problems) == 1 and progress.problems[0].startswith("Image '1.png'") and progress.ended == ""
    assert len(progress.problems[0]) < 300


@pytest.mark.parametrize("text", ["猫、🐈‍⬛", "שלום עולם", "a cat (old:1.2) <3", "a\n cat\tsits", "🫨 newest"])
def test_captions_in_every_script_are_taken(text: str) -> None:
    assert legal_answer(text, "x") == " ".join(text.split())


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), CaptionerError("it broke; mend it."), MemoryError()])
def test_an_error_is_told_for_its_image_and_the_others_go_on(dataset: ImageSet, error: Exception) -> None:
    def answer(number: int) -> str:
        if number == 0:
            raise error
        return "a cat"

    progress = run(dataset, answer)
    assert captions(dataset) == [None, "a cat", "a cat", "a cat"] and len(progress.problems) == 1


def test_a_captioner_that_hangs_is_told_for_its_image_and_the_others_go_on(
    dataset: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Told, "seconds", 0.3)
    progress = run(dataset, lambda number: time.sleep(60) if number == 1 else "a cat")
    assert captions(dataset) == ["a cat", None, "a cat", "a cat"]
    assert "0.3 seconds" in progress.problems[0] and progress.ended == ""


def test_after_several_failures_in_a_row_it_stops(tmp_path: Path) -> None:
    dataset = make(tmp_path, MOST_FAILURES + 3)
    progress = run(dataset, lambda number: "a cat" if number == 1 else "")
    assert captions(dataset) == [None, "a cat", *[None] * (MOST_FAILURES + 1)]
    assert "in a row" in progress.ended and progress.done == MOST_FAILURES + 2 and not progress.running


def test_an_unreadable_image_is_no_failure_of_the_captioner(tmp_path: Path) -> None:
    dataset = make(tmp_path, MOST_FAILURES + 1)
    for entry in dataset.entries()[0][:-1]:
        entry.path.write_bytes(entry.path.read_bytes()[:60])
    progress = run(dataset, lambda _: "a cat")
    assert captions(dataset)[-1] == "a cat" and progress.ended == "" and len(progress.problems) == MOST_FAILURES


def test_no_tag_above_the_threshold_is_told(dataset: ImageSet) -> None:
    progress = run(dataset, lambda _: [("cat", 0.1)])
    assert captions(dataset) == [None] * 4 and len(progress.problems) == 4 and progress.done == 4


def test_stop_keeps_what_is_done(dataset: ImageSet) -> None:
    reached = threading.Event()

    def answer(number: int) -> str:
        if number == 2:
            reached.set()
            time.sleep(0.2)
        return f"caption {number}"

    captioner = Told(answer)
    job = Captioning(dataset, captioner, dataset.entries()[0], CaptioningOptions())
    job.start()
    assert reached.wait(30) and job.progress.current == "2.png" and job.progress.running
    job.stop()
    assert job.join(20)
    assert captions(dataset)[:2] == ["caption 0", "caption 1"] and captions(dataset)[3] is None
    assert_one_sentence(job.progress.ended)
    assert captioner.left == 1 and dataset.undo() == "captions of Told" and captions(dataset) == [None] * 4


def test_stop_does_not_wait_for_a_captioner_that_hangs(dataset: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioner_calls, "GRACE_S", 0.1)
    reached = threading.Event()

    def answer(number: int) -> str:
        if number == 1:
            reached.set()
            time.sleep(60)
        return "a cat"

    job = Captioning(dataset, Told(answer), dataset.entries()[0], CaptioningOptions())
    job.start()
    assert reached.wait(30)
    job.stop()
    assert job.join(10) and captions(dataset) == ["a cat", None, None, None]


def test_stop_while_it_waits_for_its_turn(dataset: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(Told, "wait_for_turn", lambda self: (waiting.set(), time.sleep(60)))
    job = Captioning(dataset, Told(lambda _: "a cat"), dataset.entries()[0], CaptioningOptions())
    job.start()
    assert waiting.wait(30)
    job.stop()
    assert job.join(10)


def test_captions_are_on_the_disk_while_the_next_image_is_at_work(dataset: ImageSet) -> None:
    reached, seen = threading.Event(), threading.Event()

    def answer(number: int) -> str:
        if number == 2:
            reached.set()
            seen.wait(30)
        return f"caption {number}"

    job = Captioning(dataset, Told(answer), dataset.entries()[0], CaptioningOptions())
    job.start()
    assert reached.wait(30)
    deadline = time.monotonic() + 10
    while captions(dataset)[1] is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert captions(dataset) == ["caption 0", "caption 1", None, None]
    seen.set()
    assert job.join(20) and dataset.undo() and captions(dataset) == [None] * 4 and dataset.undo() == ""


KILLED = """
import os, sys, threading
from pathlib import Path
from lib_lora.datasets.captioning import Captioning
from lib_lora.datasets.captioning_options import CaptioningOptions
from tests.test_captioning import Told, make, captions
import time
dataset = make(Path(sys.argv[1]))
def answer(number):
    if number == 2:
        while captions(dataset)[1] is None:
            time.sleep(0.05)
        os._exit(9)
    return f"caption {number}"
Captioning(dataset, Told(answer), dataset.entries()[0], CaptioningOptions()).start()
time.sleep(60)
"""


def test_what_is_done_stays_when_the_process_is_killed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, timeout=120)
    (found,) = Catalogue(tmp_path / "sets").all()
    assert ended.returncode == 9 and captions(found) == ["caption 0", "caption 1", None, None]


def test_a_caption_typed_meanwhile_is_kept(dataset: ImageSet) -> None:
    def answer(number: int) -> str:
        if number == 2:
            dataset.change_image(dataset.entries()[0][3].id, {"caption": "mine"})
            dataset.remove(dataset.entries()[0][2].id)
        return "a cat"

    progress = run(dataset, answer)
    assert captions(dataset) == ["a cat", "a cat", "mine"] and len(progress.problems) == 2
    assert any("'3.png'" in text for text in progress.problems) and progress.written == 2


def test_a_change_in_between_is_undone_by_itself(dataset: ImageSet) -> None:
    """The last change is taken back first, whoever made it."""

    def answer(number: int) -> str:
        if number == 2:
            while captions(dataset)[1] is None:
                time.sleep(0.05)
            dataset.change_image(dataset.entries()[0][0].id, {"caption": "mine"})
        return "a cat"

    run(dataset, answer)
    assert captions(dataset) == ["mine", "a cat", "a cat", "a cat"]
    assert dataset.undo() == "captions of Told" and captions(dataset) == ["mine", "a cat", None, None]
    assert dataset.undo() == "caption of 0.png" and captions(dataset) == ["a cat", "a cat", None, None]
    assert dataset.undo() == "captions of Told" and captions(dataset) == [None] * 4


def test_a_full_disk_ends_it_with_a_sentence(dataset: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib_lora.datasets.image_set.write_atomically", full)
    progress = run(dataset, lambda _: "a cat")
    assert "No space left" in progress.ended and captions(dataset) == [None] * 4


def test_what_is_missing_is_told_at_once(dataset: ImageSet) -> None:
    captioner = Told(lambda _: "a cat", missing="Told needs the file x; put it there.")
    with pytest.raises(DatasetError, match="Told needs the file x"):
        Captioning(dataset, captioner, dataset.entries()[0], CaptioningOptions())
    assert captioner.entered == 0


@pytest.mark.parametrize("error", [DatasetError(["The model 'x' cannot be loaded; use another."]), ValueError("no model")])
def test_a_captioner_that_does_not_start_is_told(dataset: ImageSet, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def enter(self: Told) -> Told:
        raise error

    monkeypatch.setattr(Told, "__enter__", enter)
    progress = run(dataset, lambda _: "a cat")
    assert progress.ended.startswith("Told does not start") and progress.done == 0


def test_a_captioner_that_does_not_end_is_left(dataset: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioning, "LEAVE_S", 0.2)
    monkeypatch.setattr(Told, "__exit__", lambda self, *_: time.sleep(60))
    assert run(dataset, lambda _: "a cat").ended == "" and captions(dataset) == ["a cat"] * 4


def test_no_images_are_no_work(dataset: ImageSet) -> None:
    job = Captioning(dataset, Told(lambda _: 1), [], CaptioningOptions())
    job.start()
    assert job.join(10) and job.progress == CaptioningProgress(0, running=False)


def test_calls_pass_on_what_they_return_and_raise() -> None:
    assert called(lambda: 3, 5.0) == 3
    with pytest.raises(KeyError):
        called(lambda: {}[1], 5.0)
    with pytest.raises(HangsError):
        called(lambda: time.sleep(30), 0.1)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StoppedError):
        called(lambda: time.sleep(30), None, stopped)
    assert called(lambda: 3, 5.0, stopped) == 3  # a call that is nearly done may end
