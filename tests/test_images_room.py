"""The Images room of the real tab, on gradio alone and our own routes, in Chromium."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.api import packed, picture, until
from tests.light_server import LightServer
from tests.test_page import browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

__all__ = ["browser"]  # the fixture

WAIT_MS = 30_000
PHOTOS = {"cat.png": picture(600, 400, 1), "dog.png": picture(400, 600, 2), "owl.png": picture(500, 500, 3)}
FOCUS = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
SAID = "#train_lora_images [role=status] .train-lora-spoken"


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LightServer]:  # noqa: F811 - the fixture of test_page
    made = LightServer(tmp_path_factory.mktemp("light"))
    made.start()
    yield made
    made.stop()


class Room:
    """A page with the tab, in words of a person who uses it."""

    def __init__(self, page: Page, server: LightServer) -> None:
        self.page, self.server = page, server
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.route("**/*", self._only_ours)
        page.set_default_timeout(WAIT_MS)

    def open(self) -> None:
        self.page.goto(self.server.url, wait_until="domcontentloaded")
        self.page.get_by_role("button", name="Choose images").wait_for()
        self.page.wait_for_load_state("networkidle")  # gradio builds its page in parts

    def _only_ours(self, route: Route) -> None:
        (route.continue_ if route.request.url.startswith(self.server.url) else route.abort)()

    def choose(self, files: dict[str, bytes]) -> None:
        """Give files by the button."""
        payload: list[Any] = [{"name": name, "mimeType": "", "buffer": content} for name, content in files.items()]
        with self.page.expect_file_chooser() as chosen:
            self.button("Choose images").click()
        chosen.value.set_files(payload)

    def drop(self, files: dict[str, bytes], where: str) -> None:
        """Drop files on a part of the tab."""
        given = {name: base64.b64encode(content).decode() for name, content in files.items()}
        data = self.page.evaluate_handle(
            """files => {
                const data = new DataTransfer();
                for (const [name, content] of Object.entries(files)) {
                    data.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
                }
                return data;
            }""",
            given,
        )
        for kind in ("dragover", "drop"):
            self.page.dispatch_event(where, kind, {"dataTransfer": data})

    def wait_for_cards(self, count: int) -> None:
        """Until so many images are shown, all with what the server knows of them."""
        self.page.wait_for_function(
            """count => {
                const data = trainLora.images.data();
                return !trainLora.imagesArrivals.isArriving() && data && data.looked.total > 0
                    && data.looked.done === data.looked.total && data.images.length === count;
            }""",
            arg=count,
        )

    def card(self, name: str) -> Locator:
        return self.page.locator("article.train-lora-image").filter(
            has=self.page.get_by_role("textbox", name=f"Caption of {name}")
        )

    def caption(self, name: str) -> Locator:
        return self.page.get_by_role("textbox", name=f"Caption of {name}", exact=True)

    def button(self, name: str) -> Locator:
        return self.page.locator("#train_lora_images").get_by_role("button", name=name, exact=True).first

    def said(self, text: str) -> None:
        """Wait until this is announced."""
        self.page.locator(SAID).filter(has_text=re.compile(f"^{re.escape(text)}$")).wait_for(state="attached")

    def focused(self) -> str:
        return str(self.page.evaluate(FOCUS)).strip()

    def tab_to(self, name: str, *, back: bool = False) -> None:
        """Press Tab until the control of this name has the focus."""
        for _ in range(80):
            self.page.keyboard.press("Shift+Tab" if back else "Tab")
            if self.focused() == name:
                return
        raise AssertionError(f"Tab does not reach {name!r}")

    @property
    def dataset(self) -> str:
        return str(self.page.evaluate("trainLora.images.id()"))

    def listing(self, **query: Any) -> Any:
        """The dataset as scripts get it."""
        more = "&".join(f"{name}={value}" for name, value in query.items())
        return self.server.ask("GET", f"datasets/{self.dataset}?{more}")

    def image(self, name: str) -> Any:
        return next(image for image in self.listing()["images"] if image["name"] == name)


@pytest.fixture
def room(browser: Browser, server: LightServer) -> Iterator[Room]:  # noqa: F811
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    made = Room(page, server)
    made.open()
    yield made
    page.close()
    assert made.errors == []


@pytest.fixture
def filled(room: Room) -> Room:
    room.choose(PHOTOS)
    room.wait_for_cards(len(PHOTOS))
    return room


def test_train_stays_in_sight_however_far_the_images_reach(room: Room) -> None:
    room.choose({f"{number}.png": picture(300, 200, number) for number in range(20)})
    room.wait_for_cards(20)
    room.page.evaluate("scrollTo(0, document.querySelector('.train-lora-images').getBoundingClientRect().bottom - innerHeight)")
    name, train = room.page.locator("#train_lora_name").bounding_box(), room.page.locator("#train_lora_train").bounding_box()
    assert room.page.evaluate("scrollY") > 768 and name is not None and train is not None
    assert 0 < name["y"] < train["y"] and train["y"] + train["height"] < 768


@pytest.mark.parametrize("where", ["#train_lora_images", "#train_lora_report", "#train_lora_queue"])
def test_photos_dropped_anywhere_on_the_tab_become_cards(room: Room, where: str) -> None:
    """What is cut off by half names itself and stops nothing; the report comes by itself."""
    broken = PHOTOS["owl.png"][: len(PHOTOS["owl.png"]) // 2]
    room.drop({**PHOTOS, "torn.png": broken, "cat.txt": "a cat, 猫 (tag:1.2)".encode()}, f"{where} >> nth=0")
    room.wait_for_cards(4)
    assert room.card("cat.png").get_by_text("600×400").is_visible()
    assert room.caption("cat.png").input_value() == "a cat, 猫 (tag:1.2)"
    torn = room.card("torn.png")
    assert torn.get_attribute("data-broken") and "truncated" in torn.inner_text()
    report = room.page.locator("#train_lora_report.prose")
    report.get_by_text("3 images × ").wait_for()
    assert "torn.png" in report.inner_text()


def test_the_frame_of_a_card_is_the_cut_that_the_server_tells(filled: Room) -> None:
    for name in PHOTOS:
        around, frame = (filled.card(name).locator(f".train-lora-{part}").bounding_box() for part in ("picture", "frame"))
        assert around is not None and frame is not None
        left, top, right, bottom = filled.image(name)["frame"]
        shares = [
            (frame["x"] - around["x"]) / around["width"], (frame["y"] - around["y"]) / around["height"],
            frame["width"] / around["width"], frame["height"] / around["height"],
        ]  # fmt: skip
        assert shares == pytest.approx([left, top, right - left, bottom - top], abs=0.01), name


def test_a_caption_saves_by_itself_and_a_reload_finds_it(filled: Room) -> None:
    filled.caption("dog.png").click()
    filled.page.keyboard.type("a dog, \\(brown\\), 🐶")
    filled.said("Done: caption of dog.png")
    assert filled.image("dog.png")["caption"] == "a dog, \\(brown\\), 🐶"
    assert filled.focused() == "Caption of dog.png"
    filled.page.reload(wait_until="domcontentloaded")
    filled.wait_for_cards(len(PHOTOS))
    assert filled.caption("dog.png").input_value() == "a dog, \\(brown\\), 🐶"


def test_undo_takes_changes_back_one_by_one(filled: Room) -> None:
    filled.button("Leave out: cat.png").click()
    filled.said("Done: leave out cat.png")
    filled.caption("dog.png").fill("a dog")
    filled.button("Undo: caption of dog.png").click()
    filled.said("Undone: caption of dog.png")
    assert filled.caption("dog.png").input_value() == "" and not filled.image("dog.png")["caption"]
    filled.button("Undo: leave out cat.png").click()
    filled.said("Undone: leave out cat.png")
    assert not filled.image("cat.png")["left_out"]
    assert filled.focused() == "Undo" and filled.button("Undo").is_disabled()


def test_one_click_leaves_duplicates_out(room: Room) -> None:
    room.choose({**PHOTOS, "copy of cat.png": PHOTOS["cat.png"]})
    room.wait_for_cards(4)
    room.button("Leave out duplicates (1)").click()
    room.said("Done: leave out 1 duplicates")
    assert [image["left_out"] for image in room.listing()["images"]].count(True) == 1
    assert room.page.locator("article[data-left-out]").count() == 1
    room.button("Left out 1").click()
    room.wait_for_cards(1)
    room.page.locator("#train_lora_report.prose").get_by_text("3 images × ").wait_for()


def test_what_was_done_is_said_although_another_request_overtakes_the_look_at_it(filled: Room) -> None:
    filled.page.evaluate(
        """() => {
            const {send} = trainLora.api;
            trainLora.api.send = async (...sent) => {
                const answer = await send(...sent);
                setTimeout(trainLora.images.refresh, 0);
                return answer;
            };
        }"""
    )
    filled.card("cat.png").get_by_role("button", name="Leave out").click()
    filled.said("Done: leave out cat.png")
    assert filled.image("cat.png")["left_out"] and filled.card("cat.png").get_attribute("data-left-out") is not None


def test_many_images_come_in_pages(room: Room) -> None:
    """Those of a zip; the button that turns a page keeps the focus, also where there is no further page."""
    room.choose({"many.zip": packed({f"{number:02}.png": picture(64, 64, number) for number in range(50)})})
    room.wait_for_cards(48)
    room.tab_to("Next")
    room.page.keyboard.press("Enter")
    room.said("Page 2 of 2")
    room.wait_for_cards(2)
    assert room.focused() == "Next" and room.button("Next").is_disabled()
    room.page.keyboard.press("Enter")
    room.page.wait_for_timeout(300)
    assert room.page.locator("article.train-lora-image").count() == 2
    room.tab_to("Previous", back=True)
    room.page.keyboard.press("Enter")
    room.said("Page 1 of 2")
    room.wait_for_cards(48)


def test_of_a_zip_with_both_kinds_each_side_of_the_switch_takes_its_own(room: Room) -> None:
    both = {"both.zip": packed({"img/10_cat/a.png": picture(64, 64), "reg/1_animal/b.png": picture(64, 64, 1)})}
    room.choose(both)
    room.page.get_by_text("'b.png': regularisation images, so not used here; drop the zip under Regularisation too.").wait_for()
    room.wait_for_cards(1)
    assert [image["name"] for image in room.listing()["images"]] == ["a.png"]
    room.page.get_by_role("tab", name="Regularisation").click()
    room.choose(both)
    room.page.get_by_text("'a.png': images to learn from, so not used here; drop the zip under Images too.").wait_for()
    room.wait_for_cards(1)
    assert [image["name"] for image in room.listing()["images"]] == ["b.png"]


def test_a_new_image_goes_to_the_folder_that_is_chosen(room: Room) -> None:
    folders = room.page.get_by_role("combobox", name="Folder for new images")
    room.choose({"one.zip": packed({"10_cat/a.png": picture(64, 64)})})
    room.wait_for_cards(1)
    assert not folders.is_visible(), "there is no choice"
    room.choose({"two.zip": packed({"3_dog/a.png": picture(64, 64, 1)})})
    room.wait_for_cards(2)
    folders.select_option("3_dog")
    room.choose({"new.png": picture(64, 64, 2)})
    room.wait_for_cards(3)
    assert [path.parent.name for path in room.server.folder.rglob("*new.p*")] == ["3_dog"]
    assert folders.input_value() == "3_dog", "it stays chosen"


def test_the_keyboard_alone_is_enough(room: Room) -> None:
    """Photos are chosen, a caption typed, a cut moved, an image left out, and all of it undone."""
    room.page.locator("body").press("Tab")
    room.tab_to("Choose images")
    with room.page.expect_file_chooser() as chosen:
        room.page.wait_for_timeout(500)  # the browser is told without an answer that a chooser is waited for
        room.page.keyboard.press("Enter")
    chosen.value.set_files([{"name": name, "mimeType": "", "buffer": content} for name, content in PHOTOS.items()])
    room.wait_for_cards(3)
    room.tab_to("Cut of cat.png: move it with the arrow keys")
    before = room.image("cat.png")["frame"]
    room.page.keyboard.press("ArrowDown")
    room.page.keyboard.press("ArrowRight")
    room.said("Done: crop of cat.png")
    until(lambda: room.image("cat.png"), lambda image: image["frame"] != before)
    assert room.focused() == "Cut of cat.png: move it with the arrow keys"
    room.tab_to("Caption of cat.png")
    room.page.keyboard.type("a cat")
    room.tab_to("Leave out: cat.png")
    room.said("Done: caption of cat.png")
    room.page.keyboard.press("Space")
    room.said("Done: leave out cat.png")
    assert room.focused() == "Use: cat.png"
    for _ in range(4):
        done = room.listing()["undo"]
        room.page.keyboard.press("Control+z")
        if not done:
            break
        room.said(f"Undone: {done}")
    until(lambda: room.image("cat.png"), lambda now: (now["left_out"], now["caption"], now["cut"]) == (False, None, None))


def test_in_a_text_ctrl_z_is_the_browsers_own(filled: Room) -> None:
    filled.button("Leave out: cat.png").click()
    filled.said("Done: leave out cat.png")
    filled.caption("dog.png").click()
    filled.page.keyboard.type("a dog")
    filled.page.keyboard.press("Control+z")
    filled.page.wait_for_timeout(1200)
    assert filled.image("cat.png")["left_out"] and filled.focused() == "Caption of dog.png"


def test_an_update_keeps_focus_text_and_nodes(filled: Room) -> None:
    """While somebody else changes the same dataset: what is typed stays, and its cursor."""
    caption = filled.caption("cat.png")
    caption.fill("a cat on a mat")
    filled.said("Done: caption of cat.png")
    caption.evaluate("node => { window.kept = node; node.setSelectionRange(2, 5); }")
    path = f"datasets/{filled.dataset}/images"
    filled.server.ask("PATCH", f"{path}/{filled.image('dog.png')['id']}", {"caption": "a dog", "left_out": True})
    filled.server.ask("POST", f"datasets/{filled.dataset}/files?name=ant.png", picture(300, 200, 9))  # now the first card
    until(lambda: filled.listing(), lambda page: page["looked"]["done"] == 4)
    filled.page.evaluate("trainLora.images.refresh()")
    filled.wait_for_cards(4)
    assert filled.caption("dog.png").input_value() == "a dog"
    same = "window.kept === document.activeElement && [window.kept.selectionStart, window.kept.selectionEnd].join()"
    assert filled.page.evaluate(same) == "2,5" and filled.focused() == "Caption of cat.png"


def test_the_focus_goes_on_where_its_image_goes(filled: Room) -> None:
    filled.button("Remove: cat.png").focus()
    filled.page.keyboard.press("Enter")
    filled.wait_for_cards(2)
    assert filled.focused() == "Leave out: dog.png"


def test_every_control_has_a_name_for_screen_readers(filled: Room) -> None:
    filled.page.locator("#train_lora_images details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    filled.page.get_by_role("combobox", name="Captioner").locator("option").first.wait_for(state="attached")
    seen = filled.page.locator("#train_lora_images").aria_snapshot()
    controls = re.findall(r"- (button|textbox|searchbox|combobox|spinbutton|checkbox|img|group|tab|tabpanel|tablist)\b(.*)", seen)
    assert len(controls) > 40
    # a part that opens is named by its summary, which is its first child
    assert [f"{role}{rest}" for role, rest in controls if not rest.startswith(' "') and (role, rest) != ("group", ":")] == []
    assert filled.page.get_by_role("region", name="Images").count() == 1
    for name in PHOTOS:
        assert filled.page.get_by_role("img", name=name).count() == 1
        assert filled.page.get_by_role("button", name=f": {name}").count() == 3  # leave out, mask, remove


def test_a_problem_is_announced_and_loses_nothing(filled: Room) -> None:
    filled.choose({"notes.docx": b"no image"})
    told = filled.page.locator("#train_lora_images [role=status] .train-lora-problem")
    told.get_by_text("notes.docx").wait_for()
    filled.wait_for_cards(len(PHOTOS))
    assert {image["name"] for image in filled.listing()["images"]} == set(PHOTOS) and told.count() == 1


def test_what_was_dropped_is_what_is_trained_on(filled: Room, server: LightServer) -> None:
    """Train takes the dataset that the room shows; the run is seen on the page until it is done."""
    page = filled.page
    page.locator("#train_lora_name textarea, #train_lora_name input").fill("blob")
    page.locator("#train_lora_trigger textarea, #train_lora_trigger input").fill("ohwx")
    page.locator("#train_lora_steps input").first.fill("2")
    page.locator("#train_lora_resolution input").first.fill("256")
    page.locator("#train_lora_report.prose").get_by_text("ohwx").first.wait_for()
    page.locator("#train_lora_train").click()
    page.locator("#train_lora_progress[data-state=done]").wait_for(timeout=300_000)
    assert (server.folder / "loras" / "blob.safetensors").is_file()
    page.locator("#train_lora_queue tr.train-lora-job", has_text="blob").filter(has_text="Done").wait_for()  # a poll later


def test_the_server_serves_what_lies_in_the_repository(server: LightServer) -> None:
    import requests

    root = Path(__file__).parent.parent
    page = requests.get(server.url, timeout=60).text
    assert all(f"/light/javascript/{room.name}?" in page for room in (root / "javascript").glob("*.js"))
    assert requests.get(f"{server.url}/light/style.css", timeout=60).text == (root / "style.css").read_text()
