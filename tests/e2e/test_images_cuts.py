"""Crops and masks that are made in the Images room, and that training uses them, in a real browser."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.e2e import client
from tests.e2e.images_room import V1, Room, dataset_of, send, upload
from tests.e2e.phone_photos import picture
from tests.e2e.server import Server
from tests.e2e.tab import LOAD_MS

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.e2e

RUN: dict[str, Any] = {**client.SMALL_RUN, "resolution": 128, "bucket_reso_steps": 32}
SHAPES = {"wide.png": (400, 200), "tall.png": (200, 400), "square.png": (200, 200)}
WHERE = (300, 40, 380, 120)  # edges of what stands out in wide.png


def test_crops_are_made_moved_undone_and_trained(room: Room, tmp_path: Path) -> None:
    """Square, around what stands out, and by hand; a face needs a model, which is one sentence; training uses the crops."""
    room.use_dataset(_plain_shapes(room.server, tmp_path))
    room.fill(name="uncropped", **RUN)
    room.wait_for_frames(RUN["resolution"])
    assert len(_buckets_of_a_run(room, "uncropped")) == 3
    _crop(room, "Crop: square", 2)
    images = room.images()
    assert {name: image["crop"] for name, image in images.items()} == {
        "wide.png": [100, 0, 300, 200], "tall.png": [0, 100, 200, 300], "square.png": None,
    }  # fmt: skip
    assert room.frames()["wide.png"][0] == pytest.approx([0.25, 0, 0.5, 1], abs=1e-4)
    room.fill(name="squares")
    assert _buckets_of_a_run(room, "squares") == {(128, 128): 3}
    assert not _same(room.server, "uncropped", "squares")
    room.room.get_by_role("button", name="Undo: ").click()
    room.spoken("Undone: ")
    assert {image["crop"] and tuple(image["crop"]) for image in room.images().values()} == {None}
    _crop(room, "Crop: focal point", 2)
    left, top, right, bottom = room.images()["wide.png"]["crop"]
    assert right - left == bottom - top == 200
    assert 100 < left <= 200 and (top, bottom) == (0, 200), "the webui's own search moves it from the middle to what stands out"
    _crop(room, "Crop: as buckets", 2)
    _crop(room, "Crop: face", None)
    (told,) = room.problems()
    assert "face model" in told
    _the_frame_is_dragged(room)


def _crop(room: Room, mode: str, changes: int | None) -> None:
    """Choose a way to crop, apply it, and wait for so many changes, or for a refusal."""
    room.room.get_by_label("Crop", exact=True).select_option(label=mode)
    room.press("Apply", "crop")
    if changes is None:
        room.room.locator("[role=status] .train-lora-problem li").first.wait_for(timeout=LOAD_MS)
    else:
        room.spoken(f"Images changed: {changes}")


def _the_frame_is_dragged(room: Room) -> None:
    """To the left edge of an image wider than its bucket: the drawn frame and the kept cut are there."""
    frame = room.card("wide.png").locator(".train-lora-frame")
    frame.scroll_into_view_if_needed()
    before = room.frames()["wide.png"][0]
    assert before[0] > 0.01 and before[2] < 0.99
    box = frame.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    room.page.mouse.move(x, y)
    room.page.mouse.down()
    room.page.mouse.move(x - box["width"], y, steps=3)
    room.page.mouse.up()
    room.page.wait_for_function(
        "() => trainLora.images.data().images.find(({name}) => name === 'wide.png').cut?.[1] === 0", timeout=LOAD_MS
    )
    assert room.frames()["wide.png"][0] == pytest.approx([0, *before[1:]], abs=1e-4)


def _plain_shapes(server: Server, tmp_path: Path) -> str:
    """A dataset of plain images; one has something that stands out at its right."""
    dataset = send(server, "POST", "/datasets", {"name": "shapes"})["id"]
    for name, size in SHAPES.items():
        image = Image.new("RGB", size, (120, 140, 160))
        if name == "wide.png":
            rng = np.random.default_rng(1)
            blocks = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((80, 80), Image.Resampling.NEAREST)
            image.paste(blocks, WHERE)
        image.save(tmp_path / name)
        upload(server, dataset, [tmp_path / name])
    return "shapes"


def _buckets_of_a_run(room: Room, name: str) -> dict[tuple[int, int], int]:
    """Train; size of each bucket -> images, as the finished file tells."""
    room.wait_for_report("stopped at 6 steps")
    room.page.wait_for_timeout(600)  # the report of the last change, which is asked for 400 ms later
    room.train_and_wait_for_job()
    room.wait_for_state("done")
    with safe_open(room.server.lora_folder / f"{name}.safetensors", "np") as file:
        buckets = json.loads(file.metadata()["ss_bucket_info"])["buckets"].values()
    return {tuple(bucket["resolution"]): bucket["count"] // 10 for bucket in buckets}


def _same(server: Server, one: str, other: str) -> bool:
    left, right = (load_file(server.lora_folder / f"{name}.safetensors") for name in (one, other))
    assert left.keys() == right.keys()
    return all(np.array_equal(left[key], right[key]) for key in left)


def test_a_painted_mask_is_learned_by(room: Room, tmp_path: Path) -> None:
    """A stroke over one of two images: the room and the report tell count and share, and the masked loss trains another LoRA."""
    room.use_dataset(dataset_of(room.server, tmp_path, "masked", {"a.jpg": "a", "b.jpg": "b"}))
    room.fill(name="unmasked", **RUN)
    room.press("Mask", "a.jpg")
    dialog = room.page.locator("dialog[open]")
    dialog.locator(".train-lora-main:enabled").wait_for(timeout=LOAD_MS)
    box = dialog.locator("canvas").bounding_box()
    assert box is not None
    dialog.get_by_label("Brush size").fill("40")
    room.page.mouse.move(box["x"], box["y"] + box["height"] / 2)
    room.page.mouse.down()
    room.page.mouse.move(box["x"] + box["width"], box["y"] + box["height"] / 2, steps=4)
    room.page.mouse.up()
    dialog.get_by_role("button", name="Save", exact=True).click()
    room.spoken("Mask saved")
    mask = _mask_of(room, "a.jpg")
    share = np.asarray(mask).mean() / 255
    assert mask.size == (160, 120) and 0.3 < share < 0.8
    room.room.get_by_text(f"Masks: 1 of 2 images, covering {round(100 * share)} % on average.").wait_for(timeout=LOAD_MS)
    room.room.get_by_text("Masks are not used").wait_for(timeout=LOAD_MS)
    assert "has a mask" not in room.wait_for_report("stopped at 6 steps")
    room.train_and_wait_for_job()
    room.wait_for_state("done")
    room.fill(name="masked", masked_loss=True)
    room.wait_for_report(f"1 of 2 images has a mask; it covers {100 * share:.0f} %")
    room.room.get_by_text("Masks are not used").wait_for(state="detached", timeout=LOAD_MS)
    room.train_and_wait_for_job()
    room.wait_for_state("done")
    assert not _same(room.server, "unmasked", "masked")
    _regularisation_images_have_their_grid(room, tmp_path)


def _mask_of(room: Room, name: str) -> Image.Image:
    image = room.images()[name]
    return Image.open(io.BytesIO(room.server.bytes_of(f"{V1}/{image['mask']}"))).convert("L")


def _regularisation_images_have_their_grid(room: Room, tmp_path: Path) -> None:
    room.room.get_by_role("tab", name="Regularisation").click()
    room.room.get_by_text("Drop images, folders or a zip here").wait_for(timeout=LOAD_MS)
    picture(9, 160, 120).save(tmp_path / "class.jpg")
    room.choose(tmp_path / "class.jpg")
    room.wait_for_images(1)
    assert room.names() == ["class.jpg"] and not room.card("class.jpg").get_by_role("button", name="Mask").is_visible()
    room.wait_for_report("Regularisation")
    room.room.get_by_role("tab", name="Images").click()
    room.wait_for_images(2)
    assert room.names() == ["a.jpg", "b.jpg"]
