"""Captions in the Images room, and a folder of the disk with many images, in a real browser."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.e2e.images_room import Room, dataset_of, send
from tests.e2e.tab import LOAD_MS

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.e2e

ODD = {
    "cjk.jpg": "一只猫, 女の子、고양이",
    "emoji.jpg": "🐱👩‍👩‍👧, a cat 🇨🇭",
    "rtl.jpg": "قطة, \u200fשלום\u200e, cat",
    "weights.jpg": r"(tag:1.2), \(escaped\), [[less]], {a|b}, <lora:x:1>, C:\new\table",
}
MANY = 2000
PER_PAGE = 48


def test_typed_captions_come_back_byte_for_byte(room: Room, tmp_path: Path) -> None:
    """Typing saves by itself; CJK, emoji, right to left, weights and brackets are the same on the room.server, in a new page, in the zip."""
    room.use_dataset(dataset_of(room.server, tmp_path, "odd captions", dict.fromkeys(ODD, "")))
    for name, text in ODD.items():
        room.caption(name).click()
        room.page.keyboard.insert_text(text)
    room.page.wait_for_function("count => trainLora.images.data().counts.no_caption === count", arg=0, timeout=LOAD_MS)
    assert {name: image["caption"] for name, image in room.images().items()} == ODD
    room.page.reload(wait_until="domcontentloaded")
    room.enter()
    room.wait_for_images(len(ODD))
    assert {name: room.caption(name).input_value() for name in ODD} == ODD
    assert "4 of 75 tokens" in _with_caption(room, "cjk.jpg", "a cat, sitting")  # a · cat · , · sitting
    exported = send(room.server, "POST", room.path("/export").removeprefix("/lora-train/v1"))
    content = room.server.bytes_of(f"/lora-train/v1/{exported['path']}")
    (tmp_path / "out.zip").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "out.zip") as zipped:
        texts = {Path(name).stem: zipped.read(name) for name in zipped.namelist() if name.endswith(".txt")}
    assert texts == {Path(name).stem: text.encode() for name, text in {**ODD, "cjk.jpg": "a cat, sitting"}.items()}


def _with_caption(room: Room, name: str, text: str) -> str:
    """The words below an image once its caption was replaced."""
    room.caption(name).fill(text)
    room.caption(name).blur()
    room.page.wait_for_function(
        "([name, text]) => trainLora.images.data().images.find((image) => image.name === name)?.caption === text",
        arg=[name, text],
        timeout=LOAD_MS,
    )
    return room.card(name).inner_text()


CAPTIONS = {"a.jpg": "cat, red hat, sofa", "b.jpg": "Cat, sofa (tag:1.2)", "c.jpg": "dog"}
# what is chosen and typed -> captions afterwards
CHANGES = [
    (("Find and replace", {"Find": "sofa", "Replace with": "canapé 猫"}), {"a.jpg": "cat, red hat, canapé 猫", "b.jpg": "Cat, canapé 猫 (tag:1.2)"}),
    (("Add a tag", {"Tag": "indoors", "Where": "At the end"}), {"a.jpg": "cat, red hat, sofa, indoors", "b.jpg": "Cat, sofa (tag:1.2), indoors",
                                                                "c.jpg": "dog, indoors"}),
    (("Remove a tag", {"Tag": "cat"}), {"a.jpg": "red hat, sofa", "b.jpg": "sofa (tag:1.2)"}),
    (("Move a tag", {"Tag": "sofa", "Where": "In front"}), {"a.jpg": "sofa, cat, red hat"}),
]  # fmt: skip


def test_captions_change_together_with_preview_and_undo(room: Room, tmp_path: Path) -> None:
    """Find and replace, add, remove, move: the preview changes nothing, Apply does what it told, Undo takes it back."""
    room.use_dataset(dataset_of(room.server, tmp_path, "changed together", CAPTIONS))
    part = room.open_part("Captions and tags")
    for (action, typed), expected in CHANGES:
        _choose_change(room, action, typed)
        part.get_by_role("button", name="Preview", exact=True).click()
        part.locator(".train-lora-phase", has_text=f"{len(expected)} captions change:").wait_for(timeout=LOAD_MS)
        told = part.locator(".train-lora-note li").all_inner_texts()
        assert told == [f"{name}: {CAPTIONS[name]} → {after}" for name, after in expected.items()]
        assert _captions(room) == CAPTIONS, "a preview changes nothing"
        part.get_by_role("button", name="Apply", exact=True).click()
        room.spoken(f"{len(expected)} captions changed")
        assert _captions(room) == {**CAPTIONS, **expected}
        assert {name: room.caption(name).input_value() for name in CAPTIONS} == {**CAPTIONS, **expected}
        room.room.get_by_role("button", name="Undo: ").click()
        room.spoken("Undone: ")
        assert _captions(room) == CAPTIONS
    room.room.get_by_role("searchbox").fill("dog")
    room.page.wait_for_function("() => trainLora.images.data().images.length === 1", timeout=LOAD_MS)
    _choose_change(room, "Add a tag", {"Tag": "outside", "Where": "At the end"})
    part.get_by_role("button", name="Preview", exact=True).click()
    part.get_by_role("button", name="Apply", exact=True).click()
    room.spoken("1 captions changed")
    assert _captions(room) == {**CAPTIONS, "c.jpg": "dog, outside"}, "only what is shown changes"


def _choose_change(room: Room, action: str, typed: dict[str, str]) -> None:
    room.room.get_by_label("What to do").select_option(label=action)
    for label, value in typed.items():
        field = room.open_part("Captions and tags").get_by_label(label, exact=True).first
        if label == "Where":
            field.select_option(label=value)
        else:
            field.fill(value)


def _captions(room: Room) -> dict[str, str]:
    return {name: image["caption"] for name, image in room.images().items()}


def test_folder_with_2000_images_opens_in_pages_and_is_not_touched(room: Room, tmp_path: Path) -> None:
    """Edits stay in the dataset; only the button that says so writes caption files."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(MANY):
        Image.new("RGB", (64, 64), (number % 256, number // 256 * 20, 90)).save(folder / f"{number:04}.png")
    (folder / "0000.txt").write_text("its own caption")
    before = _hashes(folder)
    room.answering(str(folder))
    room.press("Folder on the disk")
    room.page.wait_for_function("count => trainLora.images.data()?.counts.all === count", arg=MANY, timeout=LOAD_MS)
    pages = -(-MANY // PER_PAGE)
    assert room.room.get_by_text(f"Page 1 of {pages}", exact=True).first.is_visible() and len(room.names()) == PER_PAGE
    assert room.caption("0000.png").input_value() == "its own caption"
    room.press("Next")
    room.room.get_by_text(f"Page 2 of {pages}", exact=True).first.wait_for(timeout=LOAD_MS)
    assert room.names() == [f"{number:04}.png" for number in range(PER_PAGE, 2 * PER_PAGE)]
    room.press("Leave out", "0049.png")
    _with_caption(room, "0048.png", "typed here 猫")
    room.page.wait_for_function("() => trainLora.images.data().counts.left_out === 1", timeout=LOAD_MS)
    assert _hashes(folder) == before, "the folder was touched"
    room.press("Write captions to the folder")
    room.spoken("1 caption files written")
    assert (folder / "0048.txt").read_bytes() == "typed here 猫".encode()
    after = _hashes(folder)
    assert {name for name in after if after[name] != before.get(name)} == {"0048.txt"} and before.keys() <= after.keys()


def _hashes(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file."""
    return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in folder.iterdir()}
