"""Two pages at once, in a browser without a webui: of two captions none is lost, two drops make one dataset, Undo is of what is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.test_page import ROOMS, URL, browser
from tests.test_page_captioners import API, DATASET, Room

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

__all__ = ["browser"]  # the fixture
NOW = "their text, 猫"
STALE = {
    "problems": [{"option": "", "text": "The caption was changed on another page meanwhile; yours was not saved."}],
    "now": NOW,
}
DROP = """names => {
    const transfer = new DataTransfer();
    for (const name of names) transfer.items.add(new File([name], name));
    const event = new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
    document.querySelector("#train_lora_images").dispatchEvent(event);
}"""


class Shared(Room):
    """A stub whose captions another page changes. `files`: name -> the dataset that it was sent to; `gone`: datasets that are not."""

    def __init__(self, page: Any) -> None:
        self.theirs: str | None = None
        self.files: dict[str, str] = {}
        self.gone: set[str] = set()
        self.made = 0
        self.waiting: list[Route] = []  # requests for a new dataset, answered by `create`
        super().__init__(page)

    def _answer(self, route: Route) -> None:
        asked = urlsplit(route.request.url)
        path, method = asked.path.removeprefix(f"/{API}"), route.request.method
        if method == "POST" and path == "datasets":
            self.waiting.append(route)
        elif method == "POST" and path.endswith("/files"):
            dataset, (name,) = path.split("/")[1], parse_qs(asked.query)["name"]
            self.files[name] = dataset
            gone = {"problems": [{"option": "", "text": "This dataset does not exist any more; choose another."}]}
            found: dict[str, Any] = {"images": [name], "captions": 0, "problems": []}
            route.fulfill(status=404 if dataset in self.gone else 200, json=gone if dataset in self.gone else found)
        elif method == "PATCH":
            body = json.loads(route.request.post_data or "{}")
            self.asked.append((method, path, body))
            image = next(one for one in self.images if path.endswith(one["id"]))
            if self.theirs is not None and body["was"] != self.theirs:
                image["caption"] = self.theirs
                route.fulfill(status=409, json=STALE)
                return
            image["caption"] = body["caption"]
            route.fulfill(json={})
        elif method == "GET" and path == "datasets/other":
            route.fulfill(json={**DATASET, "id": "other", "images": []})
        else:
            super()._answer(route)

    def create(self) -> None:
        """Answer all requests for a new dataset."""
        for route in self.waiting:
            self.made += 1
            route.fulfill(json={"id": "set", "name": "cats"})
        self.waiting.clear()


@pytest.fixture
def room(browser: Browser) -> Iterator[Shared]:  # noqa: F811 - the fixture of test_page
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.set_default_timeout(5000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    made = Shared(page)
    made.images = [dict(image) for image in made.images]
    made.open(ROOMS)
    page.locator(".train-lora-image").nth(1).wait_for()
    yield made
    page.close()
    assert errors == []


def typed(room: Shared, text: str) -> Any:
    """The first caption field, in which a text was typed and left, and refused."""
    room.theirs = NOW
    field = room.page.get_by_label("Caption of one.png", exact=True)
    field.fill(text)
    field.blur()
    room.see("On another page it was changed to:")
    return field


def test_both_texts_are_shown_and_nothing_is_saved_until_one_is_chosen(room: Shared) -> None:
    field = typed(room, "mine")
    room.see(NOW)
    room.see("was changed on another page meanwhile")
    assert field.input_value() == "mine" and len(room.asked) == 1
    field.fill("mine, longer")
    field.blur()
    room.page.wait_for_timeout(1000)  # longer than a pause after which a caption is saved
    assert len(room.asked) == 1, "and theirs is not replaced by leaving the field"


def test_mine_is_kept_on_top_of_theirs(room: Shared) -> None:
    field = typed(room, "mine")
    room.press("Keep mine: one.png")
    room.page.wait_for_function("!document.querySelector('.train-lora-theirs')")
    assert room.asked[-1] == ("PATCH", "datasets/set/images/one", {"caption": "mine", "was": NOW})
    assert field.input_value() == "mine" and room.images[0]["caption"] == "mine"
    assert room.focused() == "Caption of one.png"


def test_theirs_is_taken(room: Shared) -> None:
    field = typed(room, "mine")
    room.press("Take theirs: one.png")
    room.page.wait_for_function("!document.querySelector('.train-lora-theirs')")
    assert field.input_value() == NOW and len(room.asked) == 1 and room.images[0]["caption"] == NOW


def test_an_unsaved_text_survives_another_page_of_images(room: Shared) -> None:
    field = typed(room, "mine")
    first, room.images = room.images, [{**room.images[1], "id": "three", "name": "three.png"}]
    room.page.evaluate("trainLora.images.refresh()")
    room.page.wait_for_function("document.querySelectorAll('.train-lora-image').length === 1")
    room.images = first
    room.page.evaluate("trainLora.images.refresh()")
    room.see("On another page it was changed to:")
    assert field.input_value() == "mine"


def test_what_is_typed_while_it_is_saved_is_no_conflict(room: Shared) -> None:
    """The second text is based on the first, which the server may not have answered yet."""
    room.theirs = None
    field = room.page.get_by_label("Caption of one.png", exact=True)
    room.page.evaluate("""() => {
        const sent = window.fetch;
        window.fetch = async (...given) => {
            const answer = await sent(...given);
            if (given[1]?.method === "PATCH") await new Promise((resolve) => setTimeout(resolve, 1500));
            return answer;
        };
    }""")
    field.fill("one")
    field.blur()
    field.fill("one two")
    field.blur()
    room.page.wait_for_function("trainLora.images.data().images[0].caption === 'one two'")
    assert [body for _, _, body in room.asked] == [{"caption": "one", "was": ""}, {"caption": "one two", "was": "one"}]


def test_two_drops_at_once_make_one_dataset(room: Shared) -> None:
    room.page.evaluate("trainLora.images.choose('')")
    room.page.wait_for_function("!document.querySelector('.train-lora-image')")
    for name in ("a.png", "b.png"):
        room.page.evaluate(DROP, [name])
    room.page.wait_for_timeout(300)
    room.create()
    room.page.wait_for_function("!trainLora.imagesArrivals.isArriving()")
    room.page.wait_for_timeout(300)
    room.create()
    assert room.made == 1 and room.files == {"a.png": "set", "b.png": "set"}


def test_files_go_to_the_dataset_that_they_were_dropped_into(room: Shared) -> None:
    """Whichever is chosen while they wait."""
    room.page.evaluate(
        """async () => {
        const all = (start) => Array.from({length: 12}, (_, number) => `${start}${number}.png`);
        const files = (names) => names.map((name) => new File([name], name));
        const first = trainLora.imagesArrivals.send(files(all("a")));
        await Promise.resolve();
        trainLora.images.choose("other");
        await Promise.all([first, trainLora.imagesArrivals.send(files(all("b")))]);
    }"""
    )
    assert {(name[0], dataset) for name, dataset in room.files.items()} == {("a", "set"), ("b", "other")}


def test_a_dataset_that_is_gone_is_told_once_and_gets_no_more(room: Shared) -> None:
    room.gone = {"set"}
    room.page.evaluate(DROP, [f"{number}.png" for number in range(30)])
    room.see("does not exist any more")
    room.page.wait_for_function("!trainLora.imagesArrivals.isArriving()")
    assert len(room.files) <= 6
    assert room.page.locator("#train_lora_images .train-lora-problem li").count() == 1


def test_undo_names_the_change_that_it_shows(room: Shared) -> None:
    room.page.route(
        f"{URL}{API}datasets/set?*",
        lambda route: route.fulfill(json={**dataset(room), "undo": "crop of one.png", "undo_number": 7}),
    )
    room.page.evaluate("trainLora.images.refresh()")
    room.page.get_by_role("button", name="Undo: crop of one.png").click()
    room.page.wait_for_timeout(300)
    assert ("POST", "datasets/set/undo", {"number": 7}) in room.asked


def dataset(room: Shared) -> dict[str, Any]:
    """The page of images that the stub gives."""
    return {**DATASET, "images": room.images}
