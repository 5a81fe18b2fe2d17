"""Crops over HTTP: previewed, made for what is shown, one change to undo, with progress, and nothing lost meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from fastapi import FastAPI  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from PIL import Image  # noqa: E402

from lib_lora.data.sizes import Crop, Size  # noqa: E402
from lib_lora.datasets.captioner_offers import Offer  # noqa: E402
from lib_lora.datasets.captionings import Captionings  # noqa: E402
from lib_lora.datasets.catalogue import Catalogue  # noqa: E402
from lib_lora.datasets.crops import Autocrop  # noqa: E402
from lib_lora.errors import DatasetError  # noqa: E402
from lib_lora.ui.api.crops import CROPS  # noqa: E402
from lib_lora.ui.api.datasets import add_dataset_routes  # noqa: E402
from lib_lora.ui.guard import Guard  # noqa: E402
from tests.conftest import write_picture  # noqa: E402
from tests.folder_host import FolderHost  # noqa: E402
from tests.house import assert_one_sentence  # noqa: E402

ROOT = "/lora-train/v1"
WAIT_S = 30.0


class Tools:
    """A host whose search the test gives. `asked`: the images it was asked for."""

    def __init__(self) -> None:
        self.found: Callable[[int], Crop | None] = lambda number: Crop(0, 0, 20, 20)
        self.missing = ""
        self.asked: list[Size] = []

    def captioners(self) -> list[Offer]:
        return []

    def autocrop(self, mode: str) -> Autocrop | None:
        if self.missing:
            raise DatasetError([self.missing])

        def search(image: Image.Image, size: Size) -> Crop | None:
            self.asked.append(size)
            return self.found(len(self.asked) - 1)

        return search


class Room:
    """A dataset of a wide, a high and a square image, that were looked at."""

    def __init__(self, folder: Path) -> None:
        self.tools = Tools()
        catalogue = Catalogue(folder / "sets")
        app = FastAPI()
        add_dataset_routes(
            app, catalogue, Guard(trust_everybody=True), self.tools, Captionings(), hides_folders=False, host=FolderHost(folder)
        )
        self.client = TestClient(app)
        self.dataset = catalogue.create("cats")
        for name, width, height in (("a.png", 160, 100), ("b.png", 90, 150), ("c.png", 80, 80)):
            self.dataset.add(name, write_picture(folder / "in.png", width, height))
        self.path = f"{ROOT}/datasets/{self.dataset.id}"
        while self.listing()["looked"]["done"] < 3:
            pass

    def listing(self) -> Any:
        return self.client.get(self.path).json()

    def crop(self, mode: str, **body: Any) -> Any:
        return self.client.post(ROOT + CROPS.format(dataset=self.dataset.id), json={"mode": mode, **body})

    def crops(self) -> list[list[int] | None]:
        return [image["crop"] for image in self.listing()["images"]]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def told(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    (problem,) = answer.json()["problems"]
    assert_one_sentence(problem["text"])
    return str(problem["text"])


def test_a_preview_changes_nothing_and_crops_are_one_change(room: Room) -> None:
    ids = [image["id"] for image in room.listing()["images"]]
    preview = room.crop("square", preview=True).json()
    assert preview["count"] == 2 and preview["crops"] == {ids[0]: [30, 0, 130, 100], ids[1]: [0, 30, 90, 120]}
    assert room.crops() == [None] * 3
    done = room.crop("square").json()
    assert (done["count"], done["total"], done["problems"], done["stopped"]) == (2, 3, [], False)
    assert room.crops() == [[30, 0, 130, 100], [0, 30, 90, 120], None]
    parts = [image["part"] for image in room.listing()["images"]]
    assert parts[0] == pytest.approx([30 / 160, 0, 130 / 160, 1])  # frames are drawn in it
    assert room.client.post(f"{room.path}/undo").json() == {"undone": "square crops"} and room.crops() == [None] * 3


def test_buckets_and_one_image_alone_take_the_whole_again(room: Room) -> None:
    room.crop("square")
    image = room.listing()["images"][0]
    assert room.client.patch(f"{room.path}/images/{image['id']}", json={"crop": None, "cut": None}).status_code == 200
    assert room.crops() == [None, [0, 30, 90, 120], None]
    assert room.crop("buckets").json()["count"] == 1 and room.crops() == [None] * 3


def test_the_filter_says_which_images(room: Room) -> None:
    assert room.crop("square", text="b.png").json()["total"] == 1
    assert room.crops() == [None, [0, 30, 90, 120], None]


def test_a_search_gets_the_resolution_of_the_form(room: Room) -> None:
    settings = '{"resolution": 768, "resolution_height": 512}'
    assert room.crop("face", settings=settings).json()["count"] == 3
    assert room.tools.asked == [Size(512, 768)] * 3 and room.crops() == [[0, 0, 20, 20]] * 3


def test_an_image_without_a_find_is_told_and_stays(room: Room) -> None:
    room.tools.found = lambda number: None if number == 1 else Crop(0, 0, 20, 20)
    done = room.crop("face").json()
    assert done["count"] == 2 and "'b.png'" in done["problems"][0] and room.crops() == [[0, 0, 20, 20], None, [0, 0, 20, 20]]


def test_a_missing_tool_and_a_mode_that_is_none_are_told(room: Room) -> None:
    room.tools.missing = "Crop: face needs OpenCV's face model; put it there."
    assert told(room.crop("face"), 422) == room.tools.missing
    assert "'round'" in told(room.crop("round"), 422)
    assert room.crop("square", show="secrets").status_code == 422 and room.client.post(f"{room.path}/crops").status_code == 422


def test_progress_stop_and_a_caption_that_is_typed_meanwhile(room: Room) -> None:
    """The search takes a while: another is refused, Stop keeps what was found, and edits meanwhile stay."""
    at_work, goes_on = threading.Event(), threading.Event()

    def slow(number: int) -> Crop:
        if number == 1:
            at_work.set()
            assert goes_on.wait(WAIT_S)
        return Crop(0, 0, 20, 20)

    room.tools.found = slow
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(room.crop("focal")))
    thread.start()
    assert at_work.wait(WAIT_S)
    assert room.client.get(f"{room.path}/crops").json() == {"running": True, "done": 1, "total": 3}
    told(room.crop("square"), 409)
    first, second, _ = room.listing()["images"]
    room.client.patch(f"{room.path}/images/{first['id']}", json={"caption": "typed"})
    room.client.patch(f"{room.path}/images/{second['id']}", json={"crop": [1, 2, 30, 40]})
    assert room.client.delete(f"{room.path}/crops").status_code == 200
    goes_on.set()
    thread.join(WAIT_S)
    assert answers[0].json() == {"count": 1, "total": 3, "stopped": True, "problems": [], "crops": {}}
    assert room.crops() == [[0, 0, 20, 20], [1, 2, 30, 40], None] and room.listing()["images"][0]["caption"] == "typed"
    assert room.client.get(f"{room.path}/crops").json()["running"] is False
    assert room.crop("square").status_code == 200


def test_a_dataset_that_is_deleted_ends_the_search(room: Room) -> None:
    def deletes(number: int) -> Crop:
        if number == 0:
            assert room.client.delete(room.path).status_code == 200
        return Crop(0, 0, 20, 20)

    room.tools.found = deletes
    answer = room.crop("focal")
    assert answer.status_code == 404 and "was deleted meanwhile" in answer.json()["problems"][0]["text"]
    assert len(room.tools.asked) == 1 and not room.dataset.folder.exists()


def test_a_search_that_breaks_frees_the_next(room: Room) -> None:
    def breaks(number: int) -> Crop:
        raise RuntimeError("broken")

    room.tools.found = breaks
    assert room.crop("focal").status_code == 500
    assert room.crop("square").status_code == 200
