"""The mask editor and the switch to regularisation images, in a browser: what is sent is what was painted."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.test_page import ROOMS, Host, browser  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

URL = "http://page.test/"
WIDTH, HEIGHT = 300, 200
PATH = "lora-train/v1/datasets/set-1"
IMAGE: dict[str, Any] = {
    "place": "a.png", "caption": "", "tokens": 1, "limit": 75, "size": [WIDTH, HEIGHT], "left_out": False, "crop": None, "cut": None,
    "frame": None, "part": [0, 0, 1, 1], "notices": [], "problem": "", "removable": True, "has_mask": False, "covered": None,
    "mask": None,
}  # fmt: skip
COUNTS = {"all": 2, "no_caption": 0, "problem": 0, "duplicate": 0, "small": 0, "left_out": 0}


def png(mask: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG")
    return content.getvalue()


class Room(Host):
    """The page with a dataset of two images, whose masks it keeps."""

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.masks: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.refusal = ""
        self.is_used = True

    def button(self, job: str, text: str = "Mask") -> Locator:
        return self.page.get_by_role("button", name=f"{text}: {job}.png", exact=True)

    def press(self, text: str) -> None:
        self.page.locator("dialog").get_by_role("button", name=text, exact=True).click()

    def edit(self, name: str) -> None:
        self.button(name).click()
        self.page.locator("dialog[open] .train-lora-main:not([aria-disabled])").wait_for()

    def line(self, *points: tuple[float, float]) -> None:
        """A stroke through points, as shares of the image."""
        box = self.page.locator(".train-lora-stage canvas").bounding_box()
        assert box is not None
        for number, (across, down) in enumerate(points):
            self.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
            if number == 0:
                self.page.mouse.down()
        self.page.mouse.up()

    def saved(self, name: str) -> Any:
        """The mask that was sent for an image, once the editor has closed."""
        self.press("Save")
        self.page.wait_for_function("() => !document.querySelector('dialog[open]')")
        with Image.open(io.BytesIO(self.masks[f"id-{name}"])) as mask:
            return np.asarray(mask.convert("RGB")).astype(int)

    def _listing(self) -> dict[str, Any]:
        images = [{**IMAGE, "id": f"id-{name}", "name": f"{name}.png", "thumbnail": "thumbnail?of=1"} for name in "ab"]
        for image in images:
            if image["id"] in self.masks:
                image |= {"has_mask": True, "covered": 0.5, "mask": f"datasets/set-1/images/{image['id']}/mask"}
        unused = "" if self.is_used or not self.masks else "Masks are not used: Mask images (masked_loss) is off."
        return {
            "id": "set-1", "name": "cats", "folder": None, "undo": "", "looked": {"done": 2, "total": 2}, "counts": COUNTS,
            "duplicates": 0, "folders": [], "page": 1, "pages": 1, "images": images, "tags": [], "problems": [],
            "masks": {"count": len(self.masks), "covered": 0.5, "unused": unused},
        }  # fmt: skip

    def _answer(self, route: Route) -> None:
        path, method = route.request.url.removeprefix(URL).split("?")[0], route.request.method
        image = path.split("/")[-2] if "/images/" in path else ""
        if path == "lora-train/v1/datasets":
            route.fulfill(json={"datasets": [{"id": "set-1", "name": "cats"}, {"id": "set-2", "name": "cat"}], "folders": True})
        elif path in (PATH, PATH.replace("set-1", "set-2")):
            route.fulfill(json=self._listing())
        elif path.endswith("/view") or "thumbnail" in path:
            route.fulfill(content_type="image/png", body=png(np.full((HEIGHT, WIDTH, 3), 200, dtype=np.uint8)))
        elif path.endswith("/mask") and method == "GET":
            route.fulfill(content_type="image/png", body=self.masks[image])
        elif path.endswith("/mask") and self.refusal:
            route.fulfill(status=422, json={"problems": [{"option": "", "text": self.refusal}]})
        elif path.endswith("/mask"):
            self.sent.append(method)
            self.masks.pop(image, None)
            if method == "PUT":
                self.masks[image] = route.request.post_data_buffer or b""
            route.fulfill(json={})
        else:
            super()._answer(route)


@pytest.fixture
def room(browser: Browser) -> Iterator[Room]:  # noqa: F811
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.on("pageerror", lambda error: errors.append(str(error)))
    made = Room(page)
    made.open(ROOMS)
    page.evaluate("localStorage.setItem('train_lora_dataset', 'set-1')")
    made.open(ROOMS)
    made.button("a").wait_for()
    yield made
    page.close()
    assert errors == []


def test_what_is_painted_is_white_in_the_size_of_the_image(room: Room) -> None:
    room.edit("a")
    room.line((0.25, 0.5), (0.5, 0.5), (0.75, 0.5))
    mask = room.saved("a")
    assert mask.shape == (HEIGHT, WIDTH, 3) and (mask[..., 0] == mask[..., 1]).all() and (mask[..., 0] == mask[..., 2]).all()
    radius = 0.08 * WIDTH / 2
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    ahead = np.maximum(np.abs(columns - WIDTH / 2) - WIDTH / 4, 0)
    away = np.hypot(ahead, rows - HEIGHT / 2)
    assert (mask[away < radius - 1.5, 0] == 255).all() and (mask[away > radius + 1.5, 0] == 0).all()


def test_eraser_undo_fill_invert_and_clear(room: Room) -> None:
    room.edit("a")
    room.press("Fill")
    room.press("Eraser")
    room.line((0.5, 0.5))
    room.line((0.1, 0.1))
    room.press("Undo")
    mask = room.saved("a")[..., 0]
    assert mask[HEIGHT // 2, WIDTH // 2] == 0 and mask[HEIGHT // 10, WIDTH // 10] == 255
    room.edit("a")
    room.press("Invert")
    assert np.array_equal(room.saved("a")[..., 0], 255 - mask), "every grey of the edge too"
    room.edit("a")
    room.press("Clear")
    room.page.keyboard.press("Control+z")
    assert np.array_equal(room.saved("a")[..., 0], 255 - mask)


def test_a_stored_mask_comes_back_as_it_was(room: Room) -> None:
    greys = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    room.masks["id-a"] = png(greys)
    room.page.evaluate("trainLora.images.refresh()")
    room.page.locator(".train-lora-masked").wait_for()
    room.edit("a")
    room.page.wait_for_timeout(300)
    assert np.array_equal(room.saved("a")[..., 0], greys)


def test_keys_alone_paint_save_and_leave(room: Room) -> None:
    """The focus is on what is painted on, and goes back to the button; Escape asks where something would be lost."""
    asked: list[str] = []
    answers = iter([False, True])
    room.page.on("dialog", lambda box: (asked.append(box.message), box.accept() if next(answers) else box.dismiss()))
    room.button("b").focus()
    room.page.keyboard.press("Enter")
    room.page.locator("dialog[open]").wait_for()
    assert "arrow keys move the brush" in (room.focused() or "")
    for key in ["ArrowDown"] * 8 + ["Shift+ArrowRight"] * 8 + [" "]:
        room.page.keyboard.press(key)
    mask = room.saved("b")[..., 0]
    assert room.focused() == "Mask: b.png" and room.sent == ["PUT"]
    moved = 8 * 0.25 * 0.08 * WIDTH
    assert mask[round(HEIGHT / 2 + moved), round(WIDTH / 2 + moved / 2)] == 255 and mask[HEIGHT // 2, WIDTH // 2 - 20] == 0
    room.edit("b")
    room.page.keyboard.press("Escape")
    assert asked == [] and room.page.locator("dialog[open]").count() == 0
    room.edit("b")
    room.page.keyboard.press(" ")
    room.page.keyboard.press("Escape")
    assert room.page.locator("dialog[open]").count() == 1 and asked == ["Discard what was painted?"]
    room.page.keyboard.press("Escape")
    room.page.wait_for_function("() => !document.querySelector('dialog[open]')")
    assert len(asked) == 2 and room.sent == ["PUT"] and room.focused() == "Mask: b.png"


def test_a_finger_and_a_turned_pen(room: Room) -> None:
    room.edit("a")
    room.press("Fill")
    room.page.evaluate("""() => {
        const canvas = document.querySelector(".train-lora-stage canvas"), box = canvas.getBoundingClientRect();
        canvas.setPointerCapture = () => {};
        const send = (kind, pointerType, across, more) => canvas.dispatchEvent(new PointerEvent(kind, {
            bubbles: true, isPrimary: true, pointerType, clientX: box.left + across * box.width, clientY: box.top + 0.5 * box.height, ...more,
        }));
        for (const kind of ["pointerdown", "pointerup"]) send(kind, "pen", 0.25, {button: 5, buttons: 32});
        document.querySelectorAll("dialog button")[1].click();
        for (const kind of ["pointerdown", "pointerup"]) send(kind, "touch", 0.75, {button: 0, buttons: 1});
        for (const kind of ["pointerdown", "pointerup"]) send(kind, "touch", 0.5, {button: 0, buttons: 1, isPrimary: false});
    }""")
    row = room.saved("a")[HEIGHT // 2, :, 0]
    assert [row[WIDTH // 4], row[WIDTH // 2], row[3 * WIDTH // 4]] == [0, 255, 0]


def test_a_refused_mask_is_told_in_the_editor_and_stays(room: Room) -> None:
    room.refusal = "The mask does not fit."
    room.edit("a")
    room.line((0.5, 0.5))
    room.press("Save")
    room.page.locator("dialog .train-lora-problem", has_text="The mask does not fit.").wait_for()
    room.refusal = ""
    assert room.saved("a")[HEIGHT // 2, WIDTH // 2, 0] == 255


def test_the_room_tells_of_masks_shows_them_and_removes_them(room: Room) -> None:
    room.is_used = False
    room.edit("a")
    room.press("Fill")
    room.saved("a")
    told = room.page.locator("#train_lora_images [role=status]", has_text="Masks are not used: Mask images (masked_loss) is off.")
    told.wait_for()
    assert room.page.get_by_text("Masks: 1 of 2 images, covering 50 % on average.").is_visible()
    shown = room.page.locator(".train-lora-masked")
    assert shown.count() == 1 and "/mask" in (shown.get_attribute("src") or "")
    room.page.get_by_role("button", name="Show masks").click()
    assert shown.count() == 0
    room.edit("a")
    room.press("Remove the mask")
    room.page.wait_for_function("() => !document.querySelector('dialog[open]')")
    told.wait_for(state="detached")
    assert room.sent == ["PUT", "DELETE"] and room.focused() == "Mask: a.png"


def test_both_datasets_are_kept_and_sent(room: Room) -> None:
    """The switch works with arrow keys, each kind has its own dataset, and a reload finds both."""
    tabs = room.page.get_by_role("tablist", name="Kind of images").get_by_role("tab")
    assert tabs.all_inner_texts() == ["Images", "Regularisation"]
    assert room.page.evaluate("trainLora.images.ids()") == "set-1"
    tabs.first.focus()
    room.page.keyboard.press("ArrowRight")
    room.page.locator("[role=tab][aria-selected=true]", has_text="Regularisation").wait_for()
    assert room.page.evaluate("document.activeElement.textContent") == "Regularisation"
    assert room.page.locator(".train-lora-image").count() == 0
    room.page.get_by_label("Dataset", exact=True).select_option("cat")
    room.page.locator(".train-lora-image").first.wait_for()
    assert room.page.evaluate("trainLora.images.ids()") == "set-1|set-2"
    assert room.page.evaluate("trainLora.report.withKey('', '', 'x')") == ["the key", "set-1|set-2", "x"]
    assert room.button("a").count() == 0, "regularisation images are learned whole"
    assert room.page.get_by_text("Those without a caption are trained as 'cat'").is_visible()
    room.open(ROOMS)
    room.button("a").wait_for()
    assert room.page.evaluate("trainLora.images.ids()") == "set-1|set-2"
    assert room.page.evaluate("trainLora.train.withKey('', '', 'x')") == ["the key", "set-1|set-2", "x"]
