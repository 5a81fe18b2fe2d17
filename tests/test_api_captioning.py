"""Captions by captioners over HTTP: progress, Stop, one at a time, sentences for what is wrong, and what is done stays."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

pytest.importorskip("gradio")

from fastapi import FastAPI  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from PIL import Image  # noqa: E402

from lib_lora.datasets import captioning  # noqa: E402
from lib_lora.datasets.captioner_fields import SENTENCE, TAGS, Field  # noqa: E402
from lib_lora.datasets.captioner_offers import Offer  # noqa: E402
from lib_lora.datasets.captionings import Captionings, Started  # noqa: E402
from lib_lora.datasets.catalogue import Catalogue  # noqa: E402
from lib_lora.datasets.crops import Autocrop  # noqa: E402
from lib_lora.datasets.image_set import ImageSet  # noqa: E402
from lib_lora.ui.api.captioning import JOB  # noqa: E402
from lib_lora.ui.api.datasets import add_dataset_routes  # noqa: E402
from lib_lora.ui.api.image_tools import ImageTools  # noqa: E402
from lib_lora.ui.guard import Guard  # noqa: E402
from tests.conftest import write_picture  # noqa: E402
from tests.folder_host import FolderHost, PlainTools  # noqa: E402
from tests.house import assert_one_sentence  # noqa: E402

ROOT = "/lora-train/v1"
WAIT_S = 30.0


class Stub:
    """A captioner of the test. `goes_on`: an image waits for it."""

    name, seconds = "Stub", 20.0

    def __init__(self, missing: str = "") -> None:
        self.missing = missing
        self.goes_on, self.asked = threading.Event(), threading.Semaphore(0)
        self.goes_on.set()
        self.answer: Callable[[], Any] = lambda: "a cat"
        self.values: dict[str, Any] = {}

    def offer(self) -> Offer:
        def make(values: Any) -> Stub:
            self.values = dict(values)
            return self

        return Offer("stub", "Stub", make, (Field("word", "Word", "cat"), Field("key", "Key", "", secret=True), *TAGS), "A note.")

    def needs(self) -> str:
        return self.missing

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def wait_for_turn(self) -> None:
        pass

    def caption(self, image: Image.Image) -> Any:
        self.asked.release()
        assert self.goes_on.wait(WAIT_S)
        return self.answer()


class Tools:
    """A host with one captioner and one that cannot even be made."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    def captioners(self) -> list[Offer]:
        def broken(_: Any) -> Any:
            raise ImportError("No module named 'modules.interrogate'")

        return [self._stub.offer(), Offer("broken", "Broken", broken, SENTENCE)]

    def autocrop(self, mode: str) -> Autocrop | None:
        return None


class Room:
    """The routes on one app, with a dataset of three images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalogue, self.captionings, self.stub = Catalogue(folder / "sets"), Captionings(), Stub()
        self.client = self.open()
        self.dataset = self.new("cats", 3)

    def open(self) -> TestClient:
        """The routes on a new app, as after "Reload UI"."""
        app = FastAPI()
        add_dataset_routes(
            app,
            self.catalogue,
            Guard(trust_everybody=True),
            Tools(self.stub),
            self.captionings,
            hides_folders=False,
            host=FolderHost(self.folder),
        )
        return TestClient(app)

    def new(self, name: str, count: int) -> ImageSet:
        found = self.catalogue.create(name)
        for number in range(count):
            found.add(f"{name} {number}.png", write_picture(self.folder / "in.png", seed=number))
        return found

    def path(self, dataset: ImageSet | None = None) -> str:
        return ROOT + JOB.format(dataset=(dataset or self.dataset).id)

    def start(self, dataset: ImageSet | None = None, **body: Any) -> Any:
        return self.client.post(self.path(dataset), json={"captioner": "stub", **body})

    def at_work(self) -> Started:
        """The captioning, started and held at its first image."""
        self.stub.goes_on.clear()
        self.start()
        assert self.stub.asked.acquire(timeout=WAIT_S)
        started = self.captionings.running
        assert started is not None
        return started

    def progress(self) -> dict[str, Any]:
        return dict(self.client.get(self.path()).json())

    def ended(self) -> dict[str, Any]:
        end = time.monotonic() + WAIT_S
        while self.progress()["running"]:
            assert time.monotonic() < end
            time.sleep(0.02)
        return self.progress()

    def captions(self) -> list[str | None]:
        return [entry.caption for entry in self.dataset.entries()[0]]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.stub.goes_on.set()
    if made.captionings.running is not None:
        made.captionings.running.job.stop()
        made.captionings.running.job.join(WAIT_S)


def told(answer: Any, status: int) -> list[str]:
    assert answer.status_code == status, answer.text
    found = [problem["text"] for problem in answer.json()["problems"]]
    for text in found:
        assert_one_sentence(text)
    return found


def test_captioners_are_listed_with_needs_and_options(room: Room) -> None:
    """One that cannot be made in this webui hides no other. A secret has no value to show."""
    first, second = room.client.get(f"{ROOT}/captioners").json()["captioners"]
    assert (first["id"], first["name"], first["needs"], first["note"]) == ("stub", "Stub", "", "A note.")
    options = {option["name"]: option for option in first["options"]}
    assert [*options] == ["word", "key", "mode", "prefix", "suffix", "threshold", "most_tags", "unwanted", "spaces", "unescape"]
    assert options["word"] == {"name": "word", "label": "Word", "kind": "text", "default": "cat", "help": ""}
    assert options["key"]["kind"] == "secret" and options["spaces"]["kind"] == "flag"
    assert [choice["value"] for choice in options["mode"]["choices"]] == ["missing", "replace", "append"]
    assert (options["threshold"]["kind"], options["threshold"]["least"], options["threshold"]["most"]) == ("number", 0, 1)
    assert "modules.interrogate" in second["needs"]
    assert_one_sentence(second["needs"])
    room.stub.missing = "Stub needs a file."
    assert room.client.get(f"{ROOT}/captioners").json()["captioners"][0]["needs"] == "Stub needs a file."


def test_progress_is_told_and_one_undo_takes_all_back(room: Room) -> None:
    nothing = {"captioner": "", "running": False, "elsewhere": ""}
    assert room.progress() == nothing
    room.stub.goes_on.clear()
    begun = room.start()
    assert begun.status_code == 200 and begun.json()["running"] and begun.json()["total"] == 3
    assert room.stub.asked.acquire(timeout=WAIT_S)
    at_work = room.progress()
    assert at_work["captioner"] == "Stub" and at_work["current"] == "cats 0.png" and not at_work["stopping"]
    room.stub.goes_on.set()
    done = room.ended()
    assert (done["done"], done["written"], done["problems"], done["ended"]) == (3, 3, [], "")
    assert room.captions() == ["a cat"] * 3
    assert room.client.post(f"{ROOT}/datasets/{room.dataset.id}/undo").json() == {"undone": "captions of Stub"}
    assert room.captions() == [None] * 3


def test_options_reach_the_captioner_and_the_captions(room: Room) -> None:
    room.dataset.change_image(room.dataset.entries()[0][0].id, {"caption": "mine"})
    room.stub.answer = lambda: [("hat", 0.9), ("red_hat", 0.8), ("tree", 0.7), ("rain", 0.2)]
    options = {"mode": "append", "prefix": "ohwx", "threshold": 0.5, "most_tags": 2.0, "unwanted": "Tree, Hat", "key": "secret"}
    assert room.start(options=options).status_code == 200
    assert room.ended()["written"] == 3
    assert room.captions() == ["mine, ohwx, red hat", "ohwx, red hat", "ohwx, red hat"]
    assert room.stub.values["key"] == "secret" and room.stub.values["word"] == "cat"
    assert "secret" not in room.client.get(room.path()).text


def test_only_the_images_that_are_shown_are_captioned(room: Room) -> None:
    """The same filter and text as of the listing."""
    first, second, _ = room.dataset.entries()[0]
    room.dataset.change_image(first.id, {"caption": "mine"})
    room.dataset.change_image(second.id, {"left_out": True})
    room.start(show="left_out", options={"mode": "replace"})
    assert room.ended()["total"] == 1 and room.captions() == ["mine", "a cat", None]
    room.start(text="cats 2", options={"mode": "replace"})
    assert room.ended()["total"] == 1 and room.captions() == ["mine", "a cat", "a cat"]


def test_stop_keeps_what_is_done(room: Room) -> None:
    room.stub.goes_on.clear()
    room.start()
    assert room.stub.asked.acquire(timeout=WAIT_S)
    assert room.client.delete(room.path()).json()["stopping"]
    room.stub.goes_on.set()
    done = room.ended()
    assert done["done"] == 1 and done["written"] == 1 and not done["stopping"]
    assert_one_sentence(done["ended"])
    assert room.captions() == ["a cat", None, None]


def test_a_second_start_is_refused_and_told_elsewhere(room: Room) -> None:
    """Also on a page that was made anew, which finds the captioning that runs."""
    other = room.new("dogs", 1)
    room.stub.goes_on.clear()
    room.start()
    room.client = room.open()
    for dataset in (room.dataset, other):
        assert "'cats'" in told(room.start(dataset), 409)[0]
    assert room.client.get(room.path(other)).json() == {"captioner": "", "running": False, "elsewhere": "cats"}
    room.client.delete(room.path(other))  # stops nothing
    assert not room.progress()["stopping"]
    room.stub.goes_on.set()
    assert room.ended()["written"] == 3
    assert room.start(other).status_code == 200


def test_a_deleted_dataset_ends_the_captioning_and_stays_deleted(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioning, "WRITE_S", 0.05)
    started = room.at_work()
    assert room.client.delete(f"{ROOT}/datasets/{room.dataset.id}").status_code == 200
    room.stub.goes_on.set()
    assert started.job.join(WAIT_S) and not started.job.progress.problems
    assert "deleted" in started.job.progress.ended
    assert_one_sentence(started.job.progress.ended)
    assert told(room.client.get(room.path()), 404) and not room.dataset.folder.exists()
    other = room.new("dogs", 1)
    assert room.start(other).status_code == 200


def test_a_captioner_that_hangs_is_left_with_its_dataset(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image at work never ends; the captioning does."""
    monkeypatch.setattr(captioning, "WRITE_S", 0.05)
    monkeypatch.setattr(captioning, "LEAVE_S", 0.1)
    started = room.at_work()
    room.client.delete(f"{ROOT}/datasets/{room.dataset.id}")
    assert started.job.join(Stub.seconds / 2) and "deleted" in started.job.progress.ended


@pytest.mark.parametrize(("options", "named"), [
    ({"threshold": 2}, "Threshold"), ({"threshold": "much"}, "Threshold"),
    ({"threshold": True}, "Threshold"), ({"most_tags": 1.5}, "Most tags"), ({"most_tags": 10**29}, "Most tags"), ({"threshold": float("nan")}, "NaN is no number"), ({"most_tags": 10**400}, "digits"),
    ({"mode": "guess"}, "Captions"), ({"mode": []}, "Captions"), ({"spaces": "yes"}, "Spaces"), ({"prefix": 3}, "Prefix"),
    ({"prefix": "x" * 1001}, "Prefix"), ({"prefix": "a\nb"}, "Prefix"), ({"unwanted": ",".join("x" * 2000)}, "Unwanted tags"),
    ({"volume": 11}, "'volume'"),
])  # fmt: skip
def test_illegal_options_are_told_and_start_nothing(room: Room, options: dict[str, Any], named: str) -> None:
    answer = room.client.post(room.path(), data=json.dumps({"captioner": "stub", "options": options}))
    (text,) = told(answer, 422)
    assert named in text and not room.progress()["running"]


def test_all_problems_are_told_at_once_and_a_secret_is_not_repeated(room: Room) -> None:
    found = told(room.start(options={"threshold": -1, "prefix": 5, "key": ["secret"]}), 422)
    assert len(found) == 3 and "secret" not in "".join(found)


def test_what_is_missing_is_told(room: Room) -> None:
    room.stub.missing = "Stub needs the file 'x', which is not there; put it there."
    assert told(room.start(), 422) == [room.stub.missing]


def test_nothing_to_caption_is_told(room: Room) -> None:
    assert "filter" in told(room.start(show="left_out"), 422)[0]
    for entry in room.dataset.entries()[0]:
        room.dataset.change_image(entry.id, {"caption": "mine"})
    assert "replace" in told(room.start(), 422)[0]


@pytest.mark.parametrize("body", [{"captioner": "nobody"}, {"captioner": 3}, {"captioner": "stub", "options": []},
                                  {"captioner": "stub", "show": "secrets"}])  # fmt: skip
def test_what_does_not_exist_is_refused(room: Room, body: dict[str, Any]) -> None:
    assert room.client.post(room.path(), json=body).status_code == 422
    assert room.client.post(f"{ROOT}/datasets/set-0000000000000000/captioning", json={"captioner": "stub"}).status_code == 404


def test_a_stranger_neither_starts_nor_stops(tmp_path: Path) -> None:
    catalogue, stub = Catalogue(tmp_path / "sets"), Stub()
    dataset = catalogue.create("cats")
    dataset.add("a.png", write_picture(tmp_path / "a.png"))
    app = FastAPI()
    add_dataset_routes(app, catalogue, Guard(), Tools(stub), Captionings(), hides_folders=False, host=FolderHost(tmp_path))
    client = TestClient(app)  # it is not at the webui's computer
    path = f"{ROOT}/datasets/{dataset.id}/captioning"
    assert client.post(path, json={"captioner": "stub"}).status_code == 403 and client.delete(path).status_code == 403
    assert not stub.asked.acquire(blocking=False)


def test_a_failing_captioner_is_told_and_the_list_is_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = room.dataset = room.new("many", 60)
    monkeypatch.setattr(captioning, "MOST_FAILURES", 1000)

    def fails() -> str:
        raise RuntimeError("CUDA out of memory")

    room.stub.answer = fails
    assert room.start(dataset).status_code == 200
    done = room.ended()
    assert done["written"] == 0 and len(done["problems"]) == 51 and "more" in done["problems"][40]
    assert_one_sentence(done["problems"][0])


def test_a_host_without_code_of_its_own_gives_two_captioners(tmp_path: Path) -> None:
    tools: ImageTools = PlainTools(tmp_path / "WD14", may_choose=True)
    assert [offer.id for offer in tools.captioners()] == ["wd14", "openai"] and tools.autocrop("face") is None
