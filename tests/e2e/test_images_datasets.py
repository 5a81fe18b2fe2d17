"""Datasets by name in the Images room: used again, copied, exported, imported, deleted, kept over reloads and restarts."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lib_lora.data.hidden_names import given_name
from tests.e2e import client
from tests.e2e.images_room import Room, dataset_of
from tests.e2e.server import Server
from tests.e2e.tab import LOAD_MS, RUN_MS

if TYPE_CHECKING:
    from playwright.sync_api import Dialog, Page

pytestmark = pytest.mark.e2e

CAPTIONS = {"a.jpg": "a cat 猫", "b.jpg": r"\(b\), (tag:1.2)"}


def test_datasets_are_renamed_copied_exported_imported_deleted(room: Room, tmp_path: Path) -> None:
    """By name; the zip is kohya's layout with the files byte for byte, and comes back as the same dataset; deleting asks."""
    room.use_dataset(dataset_of(room.server, tmp_path, "cats", CAPTIONS))
    room.answering("tigers")
    room.press("Rename")
    _chosen(room, "tigers")
    room.press("Duplicate")
    room.page.wait_for_function("() => !['tigers', ''].includes(trainLora.imagesDatasets.current())", timeout=LOAD_MS)
    copy = room.page.evaluate("trainLora.imagesDatasets.current()")
    room.wait_for_images(2)
    room.press("Remove", "a.jpg")
    room.wait_for_images(1)
    room.use_dataset("tigers")
    room.wait_for_images(2)
    with room.page.expect_download(timeout=LOAD_MS) as download:
        room.press("Export")
    download.value.save_as(tmp_path / "tigers.zip")
    _is_in_kohyas_layout(tmp_path)
    room.room.get_by_label("Dataset", exact=True).select_option(label="New dataset")
    room.room.get_by_text("Drop images, folders or a zip here").wait_for(timeout=LOAD_MS)
    room.choose(tmp_path / "tigers.zip")
    room.wait_for_images(2)
    assert {name: image["caption"] for name, image in room.images().items()} == CAPTIONS
    room.use_dataset(copy)
    _deleting_asks(room, copy)
    assert copy not in _names(room) and "tigers" in _names(room)


def _chosen(room: Room, name: str) -> None:
    room.page.wait_for_function("name => trainLora.imagesDatasets.current() === name", arg=name, timeout=LOAD_MS)
    field = room.room.get_by_label("Dataset", exact=True)
    assert field.evaluate("field => field.selectedOptions[0].label") == name


def _is_in_kohyas_layout(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tigers.zip") as zipped:
        found = {Path(name): zipped.read(name) for name in zipped.namelist()}
    folders = {path.parts[0] for path in found if path.suffix in {".jpg", ".txt"}}
    assert folders == {"10_tigers"}
    for name, caption in CAPTIONS.items():
        assert found[Path("10_tigers") / name] == (tmp_path / name).read_bytes()
        assert found[(Path("10_tigers") / name).with_suffix(".txt")] == caption.encode()


def _deleting_asks(room: Room, name: str) -> None:
    asked: list[str] = []

    def refuse(box: Dialog) -> None:
        asked.append(box.message)
        box.dismiss()

    room.page.remove_listener("dialog", room.accept)
    room.page.once("dialog", refuse)
    room.press("Delete")
    assert len(asked) == 1 and name in asked[0] and name in _names(room)
    room.page.on("dialog", room.accept)
    room.press("Delete")
    room.page.wait_for_function("() => trainLora.images.id() === ''", timeout=LOAD_MS)


def _names(room: Room) -> set[str]:
    return {dataset["name"] for dataset in room.server.get("/lora-train/v1/datasets")["datasets"]}


def test_a_queued_job_keeps_its_images_when_the_dataset_goes(room: Room, photos: Path, tmp_path: Path) -> None:
    """The dataset of a job that waits is changed and deleted in the page; the job trains on the images as they were."""
    room.use_dataset(dataset_of(room.server, tmp_path, "pulled away", CAPTIONS))
    client.break_(room.server, "slow steps")
    client.begin(room.server, photos, "before it", steps=400)
    try:
        room.fill(name="of a deleted dataset", **client.SMALL_RUN)
        room.wait_for_report("2 images, 20 per epoch")
        room.train()
        room.page.locator("#train_lora_message.prose", has_text="its place in the queue is 1").wait_for(timeout=LOAD_MS)
        room.press("Remove", "a.jpg")
        room.wait_for_images(1)
        room.press("Delete")
        room.page.wait_for_function("() => trainLora.images.id() === ''", timeout=LOAD_MS)
        assert "pulled away" not in _names(room)
        kept = [path for path in (room.server.data / ".train-lora" / "queue").rglob("*") if given_name(path) in CAPTIONS]
        assert {given_name(path): path.read_bytes() for path in kept} == {
            name: (tmp_path / name).read_bytes() for name in CAPTIONS
        }
    finally:
        room.server.post("/e2e/stop")
        room.server.post("/e2e/heal")
    room.row("of a deleted dataset").filter(has_text="Done").wait_for(timeout=RUN_MS)
    assert client.lists(room.server, "of a deleted dataset")


def test_a_reload_and_a_restart_lose_nothing(page: Page, heic_server: Server, tmp_path: Path) -> None:
    """The form, the dataset, captions, cuts and what is left out are the same after F5, and after the webui was killed."""
    server = heic_server
    room = Room(page, server)
    room.open()
    room.use_dataset(dataset_of(server, tmp_path, "kept", {**CAPTIONS, "c.jpg": ""}))
    room.fill(name="kept name", trigger="ohwx", resolution=128, min_bucket_reso=64, bucket_reso_steps=64)
    room.wait_for_frames(128)
    room.caption("c.jpg").fill("typed last")
    room.caption("c.jpg").blur()
    room.press("Leave out", "b.jpg")
    room.page.wait_for_function("() => trainLora.images.data().counts.left_out === 1", timeout=LOAD_MS)
    _move_with_keys(room, "a.jpg")
    room.wait_for_report("2 images, 20 per epoch")
    before = _held(room)
    assert before["images"]["a.jpg"]["cut"] and before["images"]["c.jpg"]["caption"] == "typed last"
    page.reload(wait_until="domcontentloaded")
    room.enter()
    _is_held(room, before)
    server.stop()
    server.log.unlink()
    server.start()
    page.reload(wait_until="domcontentloaded")
    room.enter()
    _is_held(room, before)


def _move_with_keys(room: Room, name: str) -> None:
    room.card(name).locator(".train-lora-frame").focus()
    room.page.keyboard.press("ArrowLeft")
    room.page.wait_for_function("() => trainLora.images.data().images[0].cut !== null", timeout=LOAD_MS)


def _held(room: Room) -> dict[str, dict[str, object]]:
    facts = ("caption", "left_out", "cut", "crop", "size", "frame")
    images = {image["name"]: {fact: image[fact] for fact in facts} for image in room.data()["images"]}
    form = {name: room.value(name) for name in ("name", "trigger", "resolution", "min_bucket_reso", "bucket_reso_steps")}
    return {"images": images, "form": form}  # type: ignore[dict-item]


def _is_held(room: Room, before: dict[str, dict[str, object]]) -> None:
    room.wait_for_images(3)
    _chosen(room, "kept")
    room.wait_for_frames(128)
    assert _held(room) == before
