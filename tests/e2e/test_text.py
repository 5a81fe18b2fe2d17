"""What a person writes is shown as it was written: nothing of it becomes a part of the page, and nothing of it is run."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.e2e import client, pictures
from tests.e2e.server import Server
from tests.e2e.tab import LOAD_MS, RUN_MS, Tab

pytestmark = pytest.mark.e2e

HOSTILE = "<img src=nowhere onerror=window.wasRun=1></script><svg/onload=window.wasRun=1>"
SHORT = "<img src=nowhere onerror=window.wasRun=1>"


@pytest.mark.case(56)
def test_hostile_texts_are_shown_as_text(tab: Tab, server: Server, tmp_path: Path) -> None:
    """Captions, names of files and folders, the LoRA's name, trigger, prompts, and keys and values of a file of settings."""
    photos = pictures.write_photos(tmp_path / "1_<img src=nowhere onerror=window.wasRun=1>", ("cat", "woman"))
    (photos / "cat.txt").write_text(HOSTILE)
    (photos / "<img src=nowhere onerror=window.wasRun=1>.txt").touch()
    settings = tmp_path / "<img src=nowhere onerror=window.wasRun=1>.json"
    settings.write_text(json.dumps({HOSTILE: HOSTILE, "network_dim": HOSTILE, "lr_scheduler": HOSTILE}))

    tab.fill(data=photos, name="text", **{**client.SMALL_RUN, "trigger": HOSTILE})
    tab.fill(sample_every_n_steps=6, sample_prompts=f"{HOSTILE} --s 1")
    report = tab.wait_for_report("stopped at 6 steps")
    assert SHORT in report and f"1_{SHORT}" in report
    tab.page.locator("#train_lora_files_of_settings > .label-wrap").click()
    tab.page.locator("#train_lora_import input[type=file]").set_input_files(settings)
    told = tab.page.locator("#train_lora_preset_told.prose")
    told.filter(has_text="Unknown and left out").wait_for(timeout=LOAD_MS)
    assert HOSTILE in told.inner_text()
    tab.fill(name=HOSTILE)
    assert any(SHORT in line for line in tab.refused())
    tab.fill(data=photos, name="text", **{**client.SMALL_RUN, "trigger": HOSTILE})
    tab.fill(sample_every_n_steps=6, sample_prompts=f"{HOSTILE} --s 1")
    tab.train_and_wait_for_job()
    tab.wait_for_state("done")
    assert HOSTILE in tab.page.locator("#train_lora_progress .train-lora-samples").inner_text()
    _look_at_repeat_and_train_again(tab, server)
    tab.page.locator("#train_lora_test").click()
    assert HOSTILE in tab.page.locator("#txt2img_prompt textarea").input_value()
    tab.page.locator("#txt2img_lora_cards .card[data-name='text']").wait_for(state="attached", timeout=LOAD_MS)
    _nothing_happened(tab)


def _look_at_repeat_and_train_again(tab: Tab, server: Server) -> None:
    """The job in the list, its details, the form filled from it, and a LoRA whose file is named so, chosen to go on from."""
    tab.row("text").get_by_text("Details", exact=True).click(timeout=LOAD_MS)
    details = tab.page.locator("#train_lora_queue .train-lora-details")
    details.filter(has_text=HOSTILE).wait_for(timeout=LOAD_MS)
    assert f"1_{SHORT}" in details.inner_text()
    tab.row("text").get_by_text("Repeat with changes", exact=True).click(timeout=LOAD_MS)
    named = "gradioApp().querySelector('#train_lora_name textarea, #train_lora_name input').value === 'text-2'"
    tab.page.wait_for_function(named, timeout=LOAD_MS)
    assert tab.value("trigger") == HOSTILE
    path = server.lora_folder / f"{SHORT}.safetensors"
    shutil.copyfile(server.lora_folder / "text.safetensors", path)
    try:
        tab.page.locator("#train_lora_again_box > .label-wrap").click()
        tab.page.locator("#train_lora_again_refresh").click()
        tab.wait_until_quiet()
        tab.page.locator("#train_lora_again input").click()
        tab.page.locator("#train_lora_again .options li", has_text=path.name).click()
        tab.page.locator("#train_lora_again_told.prose", has_text=f"{SHORT}: lora of SD 1.x").wait_for(timeout=LOAD_MS)
    finally:
        path.unlink()


@pytest.mark.case(56)
def test_hostile_folder_of_a_job_that_fails(tab: Tab, server: Server, photos: Path) -> None:
    """What a failed job says, in the list of jobs."""
    above = tempfile.mkdtemp()  # a sentence shows 80 characters of a path
    folder = pictures.write_photos(Path(above) / f"1_{SHORT}", ("cat",))
    client.break_(server, "slow steps")
    assert server.post("/e2e/queue", {**client.SMALL_RUN, "data": str(photos), "name": "ahead", "steps": 40}) == 0
    assert server.post("/e2e/queue", {**client.SMALL_RUN, "data": str(folder), "name": "gone"}) == 1
    shutil.rmtree(above)
    server.post("/e2e/stop")
    row = tab.row("gone")
    row.locator("td:nth-child(2)", has_text="Failed").wait_for(timeout=RUN_MS)
    assert f"1_{SHORT}" in row.inner_text()
    _nothing_happened(tab)


@pytest.mark.case(56)
def test_hostile_names_of_dropped_files(tab: Tab, tmp_path: Path) -> None:
    """The name of a dropped file is shown as text, with _ for what some disk does not allow."""
    photos = pictures.write_photos(tmp_path / "mine", ("cat",))
    (photos / "cat.txt").unlink()
    (photos / "cat.jpg").rename(photos / "<img src=nowhere onerror=window.wasRun=1>.jpg")
    tab.drop(sorted(photos.iterdir()))
    tab.fill(name="x", **{**client.SMALL_RUN, "trigger": ""})
    assert "_img src=nowhere onerror=window.wasRun=1_.jpg" in tab.wait_for_report("no caption")
    _nothing_happened(tab)


def _nothing_happened(tab: Tab) -> None:
    tab.page.wait_for_timeout(500)
    assert tab.page.evaluate("window.wasRun") is None
    assert tab.page.locator("img[src=nowhere], svg[onload]").count() == 0
