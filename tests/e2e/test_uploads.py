"""Images that are dropped on the form."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from playwright.sync_api import Route

from tests.e2e import client, pictures
from tests.e2e.server import Server
from tests.e2e.tab import Tab

pytestmark = pytest.mark.e2e


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
    assert sorted(path.name for path in kept) == sorted(2 * names), "among the dropped files, and with the job"
    assert _answer(server, server.lora_folder / "dropped.json") == 200, "the webui serves what lies in its data folder"
    assert {path.name: _answer(server, path) for path in kept} == {path.name: 403 for path in kept}


def test_slow_upload_is_not_disturbed(tab: Tab, tmp_path: Path) -> None:
    """While files are on their way nothing may read them: gradio would send them again and end with empty ones."""
    held: list[Route] = []
    tab.page.route("**/upload", lambda route: held.append(route))
    photos = pictures.write_photos(tmp_path / "mine", ("cat", "woman"))
    tab.drop(sorted(photos.iterdir()))
    tab.fill(trigger="ohwx")
    tab.page.wait_for_timeout(1500)
    assert len(held) == 1, "the files are sent more than once"
    assert tab.page.locator("#train_lora_train").is_disabled(), "Train would read the files"
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
    assert len(kept) == 1 and _kept(server, "cup.jpg") == kept


def _kept(server: Server, *names: str) -> list[Path]:
    """Where in the data folder these files lie, hidden folders included."""
    return [path for path in server.data.rglob("*") if path.name in names]


def _answer(server: Server, path: Path) -> int:
    return requests.get(f"{server.url}/file={path}", timeout=30).status_code
