"""The Images room by the keyboard alone, and while two hundred photos arrive, in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.images_room import Room, dataset_of
from tests.e2e.phone_photos import picture
from tests.e2e.tab import LOAD_MS

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.e2e

COUNT = 49  # two pages
MOST_TABS = 400
NAME = """node => {
    const text = (one) => (one ? one.innerText || one.textContent || "" : "");
    const labelled = (node.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean).map((id) => text(document.getElementById(id)));
    return (node.getAttribute("aria-label") || labelled.join(" ") || [...(node.labels || [])].map(text).join(" ")
        || (["BUTTON", "SUMMARY", "A"].includes(node.tagName) ? text(node) : "") || node.title || "").trim();
}"""
NOW = f"() => (document.activeElement === document.body ? '' : ({NAME})(document.activeElement))"
NAMELESS = f"""() => [...document.querySelectorAll(
    "#train_lora_images :is(button, input, select, textarea, summary, [tabindex], [role=tab])")]
    .filter((node) => node.offsetParent && !({NAME})(node)).map((node) => node.outerHTML.slice(0, 120))"""
MANY = 200


def test_keyboard_alone(room: Room, tmp_path: Path) -> None:
    """Reach, edit, turn the page, undo; everything has a name, no update takes the focus, and what happened is announced."""
    room.use_dataset(dataset_of(room.server, tmp_path, "by keys", {f"{number:02}.jpg": "" for number in range(COUNT)}, (96, 72)))
    assert room.page.evaluate(NAMELESS) == []
    assert room.room.locator("img:not([alt])").count() == 0
    room.page.locator("#tabs > .tab-nav button", has_text="Train LoRA").focus()
    passed = _tab_to(room, "Caption of 00.jpg")
    needed = ["Images", "Dataset", "Folder on the disk", "Rename", "Duplicate", "Export", "Delete", "Choose images", "Choose a folder",
              f"All {COUNT}", "Find a text or tag", "Sort by", "Crop", "Apply: crop", "Captions and tags", "Write captions automatically"]  # fmt: skip
    assert [name for name in passed if name in needed] == needed
    room.page.keyboard.insert_text("written by keys 猫")
    _an_update_takes_nothing(room)
    _tab_to(room, "Leave out: 00.jpg")
    room.page.wait_for_function("() => trainLora.images.data().images[0].caption === 'written by keys 猫'", timeout=LOAD_MS)
    assert room.page.evaluate(NOW) == "Leave out: 00.jpg", "saving took the focus"
    room.page.keyboard.press("Enter")
    room.page.wait_for_function("() => trainLora.images.data().images[0].left_out", timeout=LOAD_MS)
    assert room.page.evaluate(NOW) == "Use: 00.jpg"
    _tab_to(room, "Next")
    room.page.keyboard.press("Enter")
    room.page.wait_for_function("() => trainLora.images.data().page === 2", timeout=LOAD_MS)
    assert room.names() == ["48.jpg"]
    assert room.page.evaluate(NOW) == "Next", "the last page takes the focus away"
    for _ in range(2):
        _tab_to(room, "Undo: ", back=True)
        room.page.keyboard.press("Enter")
        room.spoken("Undone: ")
        room.page.evaluate("trainLora.imagesPanel.say('')")
    assert room.images()["00.jpg"]["caption"] is None and not room.images()["00.jpg"]["left_out"]
    room.page.wait_for_function("() => !trainLora.images.data().undo", timeout=LOAD_MS)
    assert room.page.evaluate(NOW) != "", "with nothing left to undo the focus is lost"


def _tab_to(room: Room, name: str, *, back: bool = False) -> list[str]:
    """Press Tab until what has this name has the focus; the names on the way."""
    passed: list[str] = []
    for _ in range(MOST_TABS):
        now = str(room.page.evaluate(NOW))
        if now == name or (name.endswith(": ") and now.startswith(name)):
            return passed
        passed.append(now)
        room.page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"{name!r} is not reached: {passed}")


def _an_update_takes_nothing(room: Room) -> None:
    """The room is shown anew while something is being typed: focus, selection, text and scrolling stay."""
    state = """() => {
        const field = document.activeElement;
        return [field.getAttribute("aria-label"), field.value, field.selectionStart, field.selectionEnd, Math.round(scrollY)];
    }"""
    room.page.keyboard.press("Home")
    room.page.keyboard.press("Shift+End")
    before = room.page.evaluate(state)
    room.page.evaluate("() => trainLora.images.refresh()")
    assert room.page.evaluate(state) == before and before[0] == "Caption of 00.jpg" and before[3] > before[2]


def test_two_hundred_photos_arrive_behind_the_page(room: Room, tmp_path: Path) -> None:
    """12 MP each: a count and thumbnails while they arrive, and the page does what it is told meanwhile."""
    folder = tmp_path / "many"
    folder.mkdir()
    for seed in range(4):
        picture(seed, 1000, 750).resize((4000, 3000)).save(tmp_path / f"{seed}.jpg", quality=60)
    for number in range(MANY):
        shutil.copy(tmp_path / f"{number % 4}.jpg", folder / f"{number:03}.jpg")
    room.room.locator("input[type=file]:not([webkitdirectory])").set_input_files(sorted(folder.iterdir()), timeout=LOAD_MS)
    arriving = room.room.locator(".train-lora-phase", has_text=f"of {MANY} files")
    arriving.wait_for(timeout=LOAD_MS)
    room.page.wait_for_function(
        """() => [...document.querySelectorAll(".train-lora-image img")].some((img) => img.complete && img.naturalWidth)
            && trainLora.imagesArrivals.isArriving()""",
        timeout=LOAD_MS,
    )
    assert room.page.locator("#train_lora_train").is_disabled()
    room.caption(room.names()[0]).fill("typed meanwhile")
    room.fill(name="while they arrive")
    room.wait_for_images_to_arrive(MANY)
    assert room.page.locator("#train_lora_train").is_enabled()
    assert room.caption("000.jpg").input_value() == "typed meanwhile" and room.problems() == []
    room.page.wait_for_function("() => trainLora.images.data().images[0].caption === 'typed meanwhile'", timeout=LOAD_MS)
    looked = room.data()["looked"]
    room.page.wait_for_function(
        "before => trainLora.images.data().looked.done > before", arg=min(looked["done"], MANY - 1), timeout=LOAD_MS
    )
    room.press("Delete")
    room.page.wait_for_function("() => trainLora.images.id() === ''", timeout=LOAD_MS)
