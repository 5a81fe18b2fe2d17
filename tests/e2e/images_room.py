"""The Images room in a browser, in the words of a person who uses it, and what its server answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from tests.e2e.phone_photos import picture
from tests.e2e.server import Server
from tests.e2e.tab import LOAD_MS, RUN_MS, Tab

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SIZE = {"width": 1366, "height": 768}
V1 = "/lora-train/v1"
SETTLED = """() => {
    const data = trainLora.images.data();
    return !trainLora.imagesArrivals.isArriving() && data && data.looked.done === data.looked.total
        && data.looked.total > 0;
}"""
Box = dict[str, float]


class Room(Tab):
    """Drives the Images room of one page."""

    def __init__(self, page: Page, server: Server) -> None:
        page.set_viewport_size(SIZE)  # type: ignore[arg-type]
        super().__init__(page, server.url)
        self.server = server
        self.room = page.locator("#train_lora_images")

    def use_dataset(self, name: str) -> None:
        """Choose a dataset by its name, and wait until its images are there."""
        self.page.evaluate("trainLora.imagesDatasets.refresh()")  # a script may have made it since
        self.room.get_by_label("Dataset", exact=True).select_option(label=name, timeout=LOAD_MS)
        self.page.wait_for_function("name => trainLora.images.data()?.name === name", arg=name, timeout=LOAD_MS)
        self.settle()

    def data(self) -> dict[str, Any]:
        """What the page shows of the dataset."""
        found: dict[str, Any] = self.page.evaluate("trainLora.images.data()")
        return found

    def path(self, rest: str = "") -> str:
        """The address of the dataset in work."""
        return f"{V1}/datasets/{self.page.evaluate('trainLora.images.id()')}{rest}"

    def images(self) -> dict[str, dict[str, Any]]:
        """The images of the dataset's first page as the server tells them, by name."""
        return {image["name"]: image for image in self.server.get(self.path())["images"]}

    def settle(self) -> None:
        """Until everything has arrived, and has been looked at."""
        self.page.wait_for_function(SETTLED, timeout=LOAD_MS)

    def choose(self, *paths: Path, folder: bool = False) -> None:
        """Give files, or a folder, to the room by its buttons."""
        kind = "[webkitdirectory]" if folder else ":not([webkitdirectory])"
        self.room.locator(f"input[type=file]{kind}").set_input_files(paths[0] if folder else list(paths))

    def drop_on(self, target: Locator, *paths: Path) -> None:
        """Let go of files and folders over a part of the page, as from a window of files."""
        target.scroll_into_view_if_needed()
        box = target.bounding_box()
        assert box is not None
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
            session.send("Input.dispatchDragEvent", {"type": kind, **where, "data": data})
        session.detach()

    def paste(self, picture: bytes) -> None:
        """Paste a PNG that lies in the clipboard, by the keys."""
        self.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page.evaluate(
            """async (bytes) => {
                const blob = new Blob([new Uint8Array(bytes)], {type: "image/png"});
                await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
            }""",
            list(picture),
        )
        self.page.keyboard.press("Control+V")

    def wait_for_images_to_arrive(self, count: int) -> None:
        """Until the dataset has so many images, whether they have been looked at or not."""
        self.page.wait_for_function(
            "count => !trainLora.imagesArrivals.isArriving() && trainLora.images.data()?.counts.all === count",
            arg=count,
            timeout=RUN_MS,
        )

    def wait_for_frames(self, resolution: int) -> None:
        """Until the images are shown by the form with this resolution."""
        self.page.wait_for_function(
            """resolution => {
                const settings = trainLora.images.those().settings;
                return settings && JSON.parse(settings).resolution === resolution;
            }""",
            arg=resolution,
            timeout=LOAD_MS,
        )
        self.page.evaluate("() => trainLora.images.refresh()")  # the page's own may still be under way
        self.settle()

    def names(self) -> list[str]:
        """The names of the cards."""
        return self.room.locator(".train-lora-image-name").all_inner_texts()

    def wait_for_images(self, count: int) -> None:
        """Until the dataset has so many images, all looked at."""
        self.page.wait_for_function("count => trainLora.images.data()?.counts.all === count", arg=count, timeout=LOAD_MS)
        self.settle()

    def card(self, name: str) -> Locator:
        """The card of an image."""
        exactly = self.page.locator(".train-lora-image-name", has_text=re.compile(f"^{re.escape(name)}$"))
        return self.room.locator(".train-lora-image", has=exactly)

    def caption(self, name: str) -> Locator:
        """The caption field of an image."""
        return self.card(name).locator("textarea")

    def notes(self, name: str) -> str:
        """What is said of an image."""
        return " ".join(self.card(name).locator(".train-lora-note").all_inner_texts())

    def frames(self) -> dict[str, tuple[list[float], list[float]]]:
        """Left, top, width and height of every frame in shares of its image: as it is set, and as it is seen."""
        found: dict[str, tuple[list[float], list[float]]] = self.page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll("#train_lora_images .train-lora-image")].map((card) => {
                const [around, frame] = [".train-lora-picture", ".train-lora-frame"].map((name) => card.querySelector(name));
                const [whole, part] = [around, frame].map((node) => node.getBoundingClientRect());
                const told = ["left", "top", "width", "height"].map((name) => parseFloat(frame.style[name]) / 100);
                const seen = [(part.x - whole.x) / whole.width, (part.y - whole.y) / whole.height,
                              part.width / whole.width, part.height / whole.height];
                return [card.querySelector(".train-lora-image-name").innerText, [told, seen]];
            }))"""
        )
        return found

    def see_thumbnails(self) -> None:
        """Have the browser decode every thumbnail; an error if it cannot."""
        self.page.evaluate(
            """() => Promise.all([...document.querySelectorAll(".train-lora-image:not([data-broken]) img")].map((thumbnail) => {
                thumbnail.loading = "eager";
                return thumbnail.decode();
            }))"""
        )

    def problems(self) -> list[str]:
        """What the room says that went wrong, in red."""
        return self.room.locator("[role=status] .train-lora-problem li").all_inner_texts()

    def press(self, text: str, job: str | None = None) -> None:
        """Press a button of the room; `job` tells which, if there are several."""
        name = text if job is None else f"{text}: {job}"
        self.room.get_by_role("button", name=name, exact=True).first.click()  # pages are turned above and below the images

    def spoken(self, text: str) -> None:
        """Wait until a screen reader is told this."""
        self.room.locator(".train-lora-spoken", has_text=text).wait_for(state="attached", timeout=LOAD_MS)

    def open_part(self, title: str) -> Locator:
        """Open a part of the room; the part."""
        part = self.room.locator("details", has=self.page.locator("summary", has_text=title))
        if part.get_attribute("open") is None:
            part.locator("summary").click()
        return part

    def answering(self, text: str) -> None:
        """Type this into the next question of the page."""
        self.page.remove_listener("dialog", self.accept)
        self.page.once("dialog", lambda box: (box.accept(text), self.page.on("dialog", self.accept)))


def send(server: Server, method: str, path: str, body: Any = None) -> Any:
    """The answer to a request of a script."""
    answer = requests.request(method, server.url + V1 + path, json=body or {}, timeout=120)
    assert answer.ok, answer.text
    return answer.json()


def upload(server: Server, dataset: str, paths: Sequence[Path]) -> None:
    """Add files to a dataset as a script does."""
    for path in paths:
        address = f"{server.url}{V1}/datasets/{dataset}/files"
        answer = requests.post(address, data=path.read_bytes(), params={"name": path.name}, timeout=120)
        assert answer.ok, answer.text


def dataset_of(server: Server, folder: Path, name: str, captions: dict[str, str], size: tuple[int, int] = (160, 120)) -> str:
    """Make a dataset of small photos, written to a folder, with captions by their names; returns its name."""
    dataset = send(server, "POST", "/datasets", {"name": name})["id"]
    for seed, (file, caption) in enumerate(captions.items()):
        picture(seed, *size).save(folder / file)
        upload(server, dataset, [folder / file])
        if caption:
            text = (folder / file).with_suffix(".txt")
            text.write_text(caption, encoding="utf-8")
            upload(server, dataset, [text])
    return name
