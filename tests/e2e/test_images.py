"""A pile of photos becomes a dataset in the Images room, in a real browser."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lib_lora.config.groups import build_config
from lib_lora.data.buckets import cut_offset
from lib_lora.data.sizes import Size
from lib_lora.plan import placement_of
from tests.e2e import client
from tests.e2e.images_room import Room
from tests.e2e.phone_photos import AS_JPEG, HEIC, TWELVE, picture, shown_size
from tests.e2e.server import Server
from tests.e2e.tab import LOAD_MS

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.e2e

RUN = {**client.SMALL_RUN, "resolution": 256, "bucket_reso_steps": 32}
PLUGGED = "no-gradio-queue"  # and with pillow-heif


@pytest.mark.parametrize("kind", ["gradio-queue", PLUGGED])
def test_twelve_photos_of_a_phone(kind: str, page: Page, request: pytest.FixtureRequest, twelve: list[Path]) -> None:
    """Every one appears with what is true of it and the cut that training makes; the duplicates leave by one click; it trains."""
    server: Server = request.getfixturevalue("heic_server" if kind == PLUGGED else "images_server")
    room = Room(page, server)
    room.open()
    room.fill(name=f"phone {kind}", **{**RUN, "trigger": ""})
    room.choose(*twelve)
    expected = TWELVE - {HEIC} | ({AS_JPEG} if kind == PLUGGED else set())
    room.wait_for_images(len(expected))
    assert {*room.names()} == expected
    room.wait_for_frames(RUN["resolution"])
    _heic_is_told(room, kind)
    _each_says_what_is_true(room)
    _frames_are_the_cuts_of_training(room, {path.name: path for path in twelve})
    room.shot(f"20-twelve-{kind}")
    _one_click_leaves_the_duplicates_out(room)
    _photos_without_captions_are_one_sentence(room, len(expected) - 4)  # the unreadable, two duplicates, and one has a caption
    room.wait_for_report("stopped at 6 steps")
    room.fill(trigger="ohwx")
    room.wait_for_report("ohwx, a cat, sitting")
    room.train_and_wait_for_job()
    room.wait_for_state("done")
    assert client.lists(server, f"phone {kind}")


def _heic_is_told(room: Room, kind: str) -> None:
    (told,) = [problem for problem in room.problems() if HEIC in problem]
    if kind == PLUGGED:
        assert "saved as JPEG" in told
        assert room.images()[AS_JPEG]["size"] == [1200, 1600]
    else:
        assert "pillow-heif" in told and "save them as JPEG" in told


def _each_says_what_is_true(room: Room) -> None:
    assert "same file as 'IMG_0001 (1).jpg'" in room.notes("IMG_0001.jpg")
    assert "same file as 'IMG_0001.jpg'" in room.notes("IMG_0001 (1).jpg")
    assert "almost the same as 'IMG_0002.jpg'" in room.notes("smaller.jpg")
    assert "EXIF" in room.notes("turned.jpg") and room.images()["turned.jpg"]["size"] == [1200, 1600]
    assert "60x40 and is enlarged" in room.notes("tiny.png")
    assert "6000x250, so wide that" in room.notes("panorama.jpg")
    assert "'truncated.jpg'" in room.notes("truncated.jpg")
    assert room.card("truncated.jpg").get_attribute("data-broken") == "true"
    for name in ("IMG_0003.jpg", "IMG_0004.jpg", "IMG_0005.jpg"):
        assert room.notes(name) == ""
    assert room.caption("IMG_0001.jpg").input_value() == "a cat, sitting"
    room.see_thumbnails()


def _frames_are_the_cuts_of_training(room: Room, files: dict[str, Path]) -> None:
    config = build_config({"data": ["x"], "out": "x", "name": "x", **RUN})
    checked, frames = 0, room.frames()
    for name, path in files.items():
        if path.suffix == ".txt" or name in {"truncated.jpg", HEIC}:
            continue
        width, height = shown_size(path)
        placed = placement_of(Size(height, width), config)
        top, left = cut_offset(placed, None)
        resized, bucket = placed.resized, placed.bucket
        share = [left / resized.width, top / resized.height, bucket.width / resized.width, bucket.height / resized.height]
        told, seen = frames[name]
        assert told == pytest.approx(share, abs=1e-4), name
        assert seen == pytest.approx(share, abs=0.012), f"{name}: it is drawn elsewhere"  # a pixel of the thumbnail
        checked += share != [0, 0, 1, 1]
    assert checked > 6, "frames that are the whole image compare nothing"


def _one_click_leaves_the_duplicates_out(room: Room) -> None:
    room.press("Leave out duplicates (2)")
    room.page.wait_for_function("() => trainLora.images.data().counts.left_out === 2")
    left = {name for name, image in room.images().items() if image["left_out"]}
    assert len(left & {"IMG_0001.jpg", "IMG_0001 (1).jpg"}) == 1 and "smaller.jpg" in left
    for name in left:
        assert room.card(name).get_attribute("data-left-out") == "true"


def _photos_without_captions_are_one_sentence(room: Room, count: int) -> None:
    problems = room.page.locator("#train_lora_report.prose li")
    problems.filter(has_text=f"{count} images have no captions").wait_for(timeout=LOAD_MS)
    assert problems.filter(has_text="caption").count() == 1, problems.all_inner_texts()
    assert problems.filter(has_text="truncated.jpg").count() == 1, "what is skipped is named"


def test_photos_come_and_go_in_every_way(room: Room, tmp_path: Path) -> None:
    """By the buttons, as a folder, as a zip, from the clipboard, dropped anywhere on the room; single ones are removed."""
    files = {name: _photo(tmp_path / name, seed) for seed, name in enumerate(("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"))}
    room.choose(files["a.jpg"], files["b.jpg"])
    room.wait_for_images(2)
    room.press("Remove", "a.jpg")
    room.wait_for_images(1)
    assert room.names() == ["b.jpg"]
    below = tmp_path / "folder" / "below"
    below.mkdir(parents=True)
    shutil.copy(files["c.jpg"], tmp_path / "folder")
    shutil.copy(files["d.jpg"], below)
    (below / "d.txt").write_text("in a folder")
    room.choose(tmp_path / "folder", folder=True)
    room.wait_for_images(3)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as zipped:
        zipped.write(files["e.jpg"], "e.jpg")
        zipped.writestr("e.txt", "in a zip")
    room.choose(tmp_path / "more.zip")
    room.wait_for_images(4)
    assert room.names() == ["b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    assert room.caption("d.jpg").input_value() == "in a folder" and room.caption("e.jpg").input_value() == "in a zip"
    _a_picture_is_pasted(room)
    _files_and_folders_are_dropped_anywhere(room, tmp_path)


def _a_picture_is_pasted(room: Room) -> None:
    content = io.BytesIO()
    picture(30, 300, 200).save(content, "PNG")
    room.page.locator("#tab_train_lora").click(position={"x": 3, "y": 3})  # the keys go to no field
    room.paste(content.getvalue())
    room.wait_for_images(5)
    (new,) = {*room.names()} - {"b.jpg", "c.jpg", "d.jpg", "e.jpg"}
    assert room.images()[new]["size"] == [300, 200]


def _files_and_folders_are_dropped_anywhere(room: Room, tmp_path: Path) -> None:
    """On the field, on a card, and beside the room, where the browser would open the file in place of the webui."""
    address = room.page.url
    dropped = tmp_path / "dropped" / "inner"
    dropped.mkdir(parents=True)
    places = (room.room.locator(".train-lora-drop"), room.card("b.jpg"), room.page.locator("#train_lora_name"))
    for number, place in enumerate(places):
        room.drop_on(place, _photo(tmp_path / f"dropped {number}.jpg", 40 + number))
        room.wait_for_images(6 + number)
    for number in range(3):
        _photo(dropped / f"inside {number}.jpg", 50 + number)
    room.drop_on(room.room.locator(".train-lora-drop"), dropped.parent)
    room.wait_for_images(11)
    assert {f"dropped {number}.jpg" for number in range(3)} | {f"inside {number}.jpg" for number in range(3)} <= {*room.names()}
    assert room.page.url == address
    assert "over-room" not in (room.room.get_attribute("class") or ""), "it looks as if something were held over it"


def _photo(path: Path, seed: int) -> Path:
    picture(seed, 400, 300).save(path)
    return path
