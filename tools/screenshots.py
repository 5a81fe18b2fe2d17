"""`make screenshots`: every state of the tab, as pictures in build/screenshots/: light, dark, on a phone, and in Chinese.

`python -m tools.screenshots [LOOK...]` takes those of some looks. With WEBUI_DIR they are taken in that webui, else on gradio
alone (`tests/light_server.py`).
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from tests.e2e.browser import launch, missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

BUILD = Path("build/screenshots")
WAIT_MS = 300_000
STEPS = 30  # of the run


class Look(NamedTuple):
    """How the tab is looked at."""

    width: int
    height: int
    theme: str = "light"
    language: str = ""


LOOKS = {
    "light": Look(1366, 768),
    "dark": Look(1366, 768, "dark"),
    "phone": Look(390, 844),
    "zh_CN": Look(1366, 768, language="zh_CN"),
}
CAPTIONS = {
    "IMG_0001": "ohwx, a cat looks at you, (whiskers:1.2), indoors", "IMG_0002": "a cat, close-up, indoors",
    "IMG_0003": "a woman in a space suit, indoors, flag", "IMG_0005": "a cup of coffee, table",
    "tiny": "a rocket, a cup, a cat, indoors, " * 12,
}  # fmt: skip


def photos() -> dict[str, bytes]:
    """Photos as from a phone: a duplicate, a turned one, a tiny one, a panorama and a truncated one among them; and captions."""
    from skimage import data

    cat, woman, cup, rocket = (Image.fromarray(make()) for make in (data.chelsea, data.astronaut, data.coffee, data.rocket))
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation
    files = {
        "IMG_0001.jpg": _jpeg(cat.resize((1350, 900))), "IMG_0002.jpg": _jpeg(cat.crop((90, 20, 330, 260)).resize((1000, 1000))),
        "IMG_0003.jpg": _jpeg(woman.crop((40, 0, 400, 512)).resize((1080, 1536))),
        "IMG_0004.jpg": _jpeg(woman.resize((1200, 1200))),
        "IMG_0005.jpg": _jpeg(cup.resize((1500, 1000))), "IMG_0006.jpg": _jpeg(cup.crop((150, 0, 450, 400)).resize((900, 1200))),
        "IMG_0007.jpg": _jpeg(rocket.resize((1280, 854))), "IMG_0008 turned.jpg": _jpeg(rocket.resize((1200, 800)), exif=turned),
        "IMG_0001 (copy with a very long name that does not fit).jpg": _jpeg(cat.resize((1350, 900)).resize((900, 600))),
        "panorama.jpg": _jpeg(rocket.resize((2400, 400))), "tiny.jpg": _jpeg(cup.resize((120, 90))),
    }  # fmt: skip
    torn = _jpeg(woman.resize((800, 800)))
    files["torn.jpg"] = torn[: len(torn) // 2]
    return {**files, **{f"{name}.txt": text.encode() for name, text in CAPTIONS.items()}}


def _jpeg(image: Image.Image, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **more)
    return file.getvalue()


class Photographer:
    """A page in one look, and its pictures."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self._folder, self._count = page, folder, 0
        page.set_default_timeout(WAIT_MS)
        page.on("dialog", lambda box: box.accept())

    @property
    def room(self) -> Locator:
        return self.page.locator("#train_lora_images")

    def open(self, url: str, theme: str) -> None:
        self.page.goto(f"{url}/?__theme={theme}", wait_until="domcontentloaded")
        self.page.locator("#tabs > .tab-nav button", has_text="LoRA").last.click()
        self.room.locator(".train-lora-drop").wait_for()

    def take(self, name: str, at: Locator | None = None, *, whole: bool = False) -> None:
        """Take a picture, with a part of the page at its top; of the whole page with `whole`."""
        if at is not None:
            at.first.evaluate("node => node.scrollIntoView({block: 'start'})")
        else:
            self.page.evaluate("scrollTo(0, 0)")
        self.page.wait_for_timeout(400)
        self._count += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self._folder / f"{self._count:02}-{name}.png", full_page=whole)
        wider = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wider > 0:
            print(f"{self._folder.name}, {name}: the page scrolls sideways, by {wider} px")

    def choose(self, files: dict[str, bytes]) -> None:
        payload: list[Any] = [{"name": name, "mimeType": "", "buffer": content} for name, content in files.items()]
        self.room.locator("input[type=file]").first.set_input_files(payload)

    def wait_until_looked_at(self) -> None:
        self.page.wait_for_function(
            """() => {
                const data = trainLora.images.data();
                return !trainLora.imagesArrivals.isArriving() && data && data.looked.total > 0
                    && data.looked.done === data.looked.total;
            }"""
        )
        self.page.locator("#train_lora_report table").first.wait_for()
        self.page.wait_for_timeout(500)

    def card(self, name: str) -> Locator:
        return self.room.locator("article").filter(has=self.page.locator(f"img[alt='{name}']"))

    def details(self, number: int) -> Locator:
        """Open one of the parts of the room that open."""
        part = self.room.locator("details").nth(number)
        part.locator("summary").click()
        return part


def images_room(shots: Photographer) -> None:
    """The states of the Images room."""
    shots.take("empty")
    shots.choose(photos())
    shots.room.locator("article").first.wait_for()
    shots.take("arriving")
    shots.wait_until_looked_at()
    shots.take("full")
    shots.take("full-page", whole=True)
    shots.take("cards", shots.room.locator("article"))
    shots.choose({"notes.docx": b"no image"})
    shots.room.locator(".train-lora-problem li").first.wait_for()
    shots.take("problems")
    shots.take("problem-of-an-image", shots.card("torn.jpg"))
    captions = shots.details(0)
    fields = captions.locator("input[type=text]")
    fields.first.fill("indoors")
    fields.last.fill("in a house")
    captions.get_by_role("button").nth(0).click()
    captions.locator("ul li").first.wait_for()
    shots.take("captions-previewed", captions)
    captions.get_by_role("button").nth(1).click()
    shots.page.wait_for_function("trainLora.images.data().undo !== ''")
    captions.locator("summary").click()
    frame = shots.card("IMG_0003.jpg").locator(".train-lora-frame")
    frame.focus()
    for _ in range(3):
        shots.page.keyboard.press("ArrowUp")
    shots.page.wait_for_timeout(800)
    shots.take("cut-moved", shots.card("IMG_0003.jpg"))
    mask(shots)
    captioners = shots.details(1)
    choice = captioners.locator("select").first
    choice.locator("option").nth(1).wait_for(state="attached")
    shots.take("captioner-that-lacks-a-file", captioners)
    choice.select_option("openai")
    shots.page.wait_for_timeout(300)
    shots.take("captioners", captioners)
    captioners.locator("summary").click()
    shots.room.locator("[role=tab]").nth(1).click()
    shots.page.wait_for_timeout(800)
    shots.take("regularisation")
    shots.room.locator("[role=tab]").first.click()
    shots.room.locator("article").first.wait_for()


def mask(shots: Photographer) -> None:
    """A mask is painted, and seen."""
    shots.card("IMG_0002.jpg").get_by_role("button").nth(1).click()
    canvas = shots.page.locator("dialog[open] canvas")
    canvas.wait_for()
    shots.page.wait_for_timeout(800)
    box = canvas.bounding_box()
    assert box is not None
    shots.page.locator("dialog[open] input[type=range]").evaluate(
        "node => { node.value = 25; node.dispatchEvent(new Event('input', {bubbles: true})); }"
    )
    for number, (across, down) in enumerate([(0.3, 0.3), (0.6, 0.35), (0.7, 0.6), (0.4, 0.7)]):
        shots.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"], steps=5)
        if number == 0:
            shots.page.mouse.down()
    shots.page.mouse.up()
    shots.take("mask-painted")
    shots.page.locator("dialog[open] .train-lora-main").click()
    shots.page.wait_for_function("() => !document.querySelector('dialog[open]')")
    shots.page.wait_for_timeout(800)
    shots.take("mask", shots.card("IMG_0002.jpg"))


def run(shots: Photographer, name: str) -> None:
    """The states of a run."""
    page = shots.page
    for field, value in {"name": name, "trigger": "ohwx", "steps": STEPS, "resolution": 256}.items():
        page.locator(f"#train_lora_{field} :is(textarea, input)").first.fill(str(value))
    page.keyboard.press("Tab")
    shots.card("torn.jpg").get_by_role("button").first.click()  # leave it out
    page.wait_for_timeout(2500)
    shots.take("ready", page.locator("#train_lora_buttons"))
    page.locator("#train_lora_train").click()
    page.wait_for_timeout(5000)
    shots.take("starting", page.locator("#train_lora_buttons"))
    page.wait_for_function("(document.querySelector('#train_lora_progress progress') || {value: 0}).value >= 5")
    shots.take("running", page.locator("#train_lora_buttons"))
    page.locator("#train_lora_name :is(textarea, input)").first.fill(f"{name}_2")
    page.keyboard.press("Tab")
    page.wait_for_timeout(1500)
    page.locator("#train_lora_train").click()
    page.wait_for_timeout(2500)
    shots.take("queue", page.locator("#train_lora_queue_box"))
    page.locator("#train_lora_progress[data-state=done]").first.wait_for(timeout=900_000)
    shots.take("done", page.locator("#train_lora_buttons"))
    page.locator("#train_lora_queue tr.train-lora-job button").first.click()
    page.wait_for_timeout(1500)
    shots.take("job", page.locator("#train_lora_queue_box"))


@contextmanager
def served(folder: Path, language: str) -> Iterator[str]:
    """The address of a webui, or of the light server, while it serves the tab."""
    if os.environ.get("WEBUI_DIR"):
        from tests.e2e.server import Server, Webui, make_data_folder

        webui = Path(os.environ["WEBUI_DIR"]).resolve()
        make_data_folder(folder / "data")
        (folder / "data" / "config.json").write_text(json.dumps({"localization": language or "None"}))
        server: Any = Server(Webui(webui, Path(os.environ.get("WEBUI_PYTHON") or webui / "venv/bin/python")), folder / "data")
    else:
        from tests.light_server import LightServer

        server = LightServer(folder, language)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def photographed(browser: Browser, url: str, name: str) -> None:
    """Take all pictures of a look."""
    look = LOOKS[name]
    page = browser.new_page(viewport={"width": look.width, "height": look.height})
    page.route("**/*", lambda route: (route.continue_ if route.request.url.startswith(url) else route.abort)())
    shots = Photographer(page, BUILD / name)
    shots.open(url, look.theme)
    images_room(shots)
    run(shots, f"my_{name}")
    page.close()


def main(wanted: list[str]) -> str | None:
    """Take the pictures of the wanted looks; a sentence if that is not possible."""
    if why := missing():
        return why
    for language in sorted({LOOKS[name].language for name in wanted}):
        with tempfile.TemporaryDirectory() as folder, served(Path(folder), language) as url, launch() as browser:
            for name in wanted:
                if LOOKS[name].language == language:
                    photographed(browser, url, name)
                    print(f"{BUILD / name}: {len(list((BUILD / name).glob('*.png')))} pictures", flush=True)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(LOOKS)))
