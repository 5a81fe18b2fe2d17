"""Settings for one's images in the browser: chosen, trained with, and odd ones mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import pictures
from tests.e2e.tab import LOAD_MS, Tab

pytestmark = pytest.mark.e2e


def test_settings_are_chosen_an_odd_one_is_mended_and_the_run_is_theirs(tab: Tab, tmp_path: Path) -> None:
    photos = pictures.write_photos(tmp_path / "mine", ("cat", "cup", "woman"))
    tab.choose_files(sorted(photos.iterdir()))
    tab.fill(name="advised", resolution=64)
    advice = tab.page.locator("#train_lora_advice")
    advice.get_by_role("combobox", name="What is it?").select_option("object")
    advice.get_by_role("button", name="Choose settings for me").click()
    advice.get_by_text("settings were chosen").wait_for(timeout=LOAD_MS)
    tab.page.wait_for_function("gradioApp().querySelector('#train_lora_rank input').value === '8'")
    assert (tab.value("trigger"), tab.value("resolution")) == ("ohwx_advised", "64")
    assert "As you set them" in advice.inner_text() and "Resolution" in advice.inner_text()
    tab.fill(steps=20000)
    assert "20000 steps are very many for 3 images" in tab.wait_for_report("stopped at 20000 steps")
    tab.page.locator("#train_lora_report").get_by_role("button", name="About").click()
    tab.page.wait_for_function("gradioApp().querySelector('#train_lora_steps input').value === '0'")
    tab.fill(steps=2)
    tab.wait_for_report("stopped at 2 steps")
    tab.train_and_wait_for_job()
    tab.wait_for_state("done")
    tab.shot("30-advised")
