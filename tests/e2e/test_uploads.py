"""Images that are dropped on the form."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from lib_lora.data.hidden_names import given_name, given_stem, hidden_name
from tests.conftest import write_picture
from tests.e2e import client, pictures
from tests.e2e.server import Server
from tests.e2e.tab import Tab
from tests.faults.test_pictures import NAMES

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.e2e


@pytest.mark.case(64)
def test_dropped_images_are_trained_on_and_stay_private(tab: Tab, server: Server, tmp_path: Path) -> None:
    """Three images and one caption file, dropped; nobody else can fetch them from the webui."""
    photos = pictures.write_photos(tmp_path / "mine", ("cat", "rocket", "woman"))
    (photos / "woman.txt").unlink()
    tab.drop(sorted(photos.iterdir()))
    tab.fill(name="dropped", **client.SMALL_RUN)
    report = tab.wait_for_report("stopped at 6 steps")
    assert "Images 3 " in report and "1 of 3 from files" in report and "ohwx, a cat looks at you" in report
    tab.shot("8-dropped")
    tab.train_and_wait_for_job()
    tab.wait_for_state("done")
    assert client.lists(server, "dropped")
    kept = _kept(server, *(path.name for path in photos.iterdir()))
    names = ["cat.jpg", "cat.txt", "rocket.jpg", "woman.jpg"]
    assert sorted({given_name(path) for path in kept}) == names and not any(path.suffix == ".jpg" for path in kept)
    assert {path.relative_to(server.data / ".train-lora").parts[0] for path in kept} == {"uploads", "queue"}
    assert _left_in_gradios_folder(server, *names) == []
    assert _answer(server, server.lora_folder / "dropped.json") == 200, "the webui serves what lies in its data folder"
    assert {path: _answer(server, path) for path in kept} == dict.fromkeys(kept, 403)
    assert [path for path in kept if _raw_status(server, f"sd_extra_networks/thumb?filename={_behind(server, path)}") < 400] == []


@pytest.mark.case(20)
def test_names_of_every_kind_are_dropped(tab: Tab, server: Server, tmp_path: Path) -> None:
    """Files named in every script, with emoji, turned around, of 255 bytes, dropped with captions: none meets another, all are trained."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        write_picture(folder / name, 64, 64, seed=number)
        # two captions are alike, of names that are no letters: gradio stores both as one file
        (folder / name).with_suffix(".txt").write_text("a pet" if name in {"🐱.png", "🐶.png"} else f"caption {number}")
    tab.drop(sorted(folder.iterdir()))
    tab.fill(name="odd names", **client.SMALL_RUN)
    report = tab.wait_for_report("stopped at 6 steps")
    assert f"{len(NAMES)} of {len(NAMES)} from files" in report, report
    tab.train_and_wait_for_job()
    tab.wait_for_state("done")
    (images,) = {path.parent for path in (server.data / ".train-lora" / "queue").rglob(hidden_name("猫.png"))}
    kept = {
        path.read_bytes(): path.with_name(given_stem(path) + ".txt").read_text() for path in images.iterdir() if _is_image(path)
    }
    assert kept == {(folder / name).read_bytes(): (folder / name).with_suffix(".txt").read_text() for name in NAMES}


@pytest.mark.case(64)
def test_private_files_are_not_served_whatever_the_path(server: Server, photos: Path) -> None:
    """States and samples of a run, asked for in ways that servers have been fooled by."""
    client.train(server, photos, "private", save_state=True, sample_every_n_steps=6, sample_prompts="ohwx --s 1")
    private = server.data / ".train-lora"
    files = [path for path in private.rglob("*") if path.is_file() and "private" in str(path)]
    assert {path.suffix for path in files} >= {".json", ".tensors", ".pn_"}
    (server.data / "seen").symlink_to(private)
    try:
        for path in files:
            inside = path.relative_to(server.data)
            asked = [
                f"file={path}", f"file/{path}", f"file={inside}", f"file={server.data}/models/../{inside}", f"file={server.data}//{inside}",
                f"file={str(path).replace('.train', '%2etrain')}", f"file={str(path).replace('/', '%2f')}",
                f"file={server.data}/models/%2e%2e/{inside}", f"sd_extra_networks/thumb?filename={path}",
                f"sd_extra_networks/thumb?filename={_behind(server, path)}",
                f"file={server.data}/seen/../{inside}",
            ]  # fmt: skip
            answers = {way: _raw_status(server, way) for way in asked}
            assert [way for way, status in answers.items() if status < 400] == []
        sample = next(path for path in files if path.suffix == ".pn_")
        job = client.status(server)
        assert job and _raw_status(server, f"train-lora/sample/{job['id']}/6/0") == 200 and sample.is_file()
    finally:
        (server.data / "seen").unlink()


def _behind(server: Server, path: Path) -> str:
    """A path that begins as one of the LoRA folder, whose pictures the webui serves to everybody, and leads out of it."""
    return f"{server.lora_folder}/../../{path.relative_to(server.data)}"


def _raw_status(server: Server, path: str) -> int:
    """The status of a GET whose path is sent as it is."""
    address = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", f"/{path}")
    return connection.getresponse().status


def test_slow_upload_is_not_disturbed(tab: Tab, tmp_path: Path) -> None:
    """While files are on their way the page does not train, and each is sent once."""
    held: list[Route] = []
    tab.page.route("**/files?name=cat.jpg", lambda route: held.append(route))
    photos = pictures.write_photos(tmp_path / "mine", ("cat", "woman"))
    tab.choose_files(sorted(photos.iterdir()))
    tab.fill(trigger="ohwx")
    tab.page.wait_for_timeout(1500)
    assert len(held) == 1, "a file is sent once"
    assert tab.page.locator("#train_lora_train").is_disabled(), "Train would miss it"
    held[0].continue_()
    assert "2 of 2 from files" in tab.wait_for_report("2 images, 20 per epoch")
    assert tab.page.locator("#train_lora_train").is_enabled()


def test_same_files_are_kept_once(tab: Tab, server: Server, tmp_path: Path) -> None:
    """Every look at the form asks for the dropped files; they do not pile up."""
    photos = pictures.write_photos(tmp_path / "mine", ("cup",))
    tab.drop(sorted(photos.iterdir()))
    tab.wait_for_report("1 images, 10 per epoch")
    kept = _kept(server, "cup.jpg")
    tab.fill(steps=3)
    tab.wait_for_report("stopped at 3 steps")
    assert len({path.stat().st_ino for path in kept}) == 1 and _kept(server, "cup.jpg") == kept
    assert _left_in_gradios_folder(server, "cup.jpg") == []


def _is_image(path: Path) -> bool:
    return given_name(path).endswith(".png")


def _kept(server: Server, *names: str) -> list[Path]:
    """Where in the data folder these files lie, hidden folders included."""
    return [path for path in server.data.rglob("*") if given_name(path) in names]


def _left_in_gradios_folder(server: Server, *names: str) -> list[Path]:
    """What gradio would serve to everybody who knows the path."""
    return [path for path in server.uploads.rglob("*") if path.name in names]


def _answer(server: Server, path: Path) -> int:
    return requests.get(f"{server.url}/file={path}", timeout=30).status_code
