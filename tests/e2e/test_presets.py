"""Presets, a kohya file, and settings as a file, in the browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e import pictures
from tests.e2e.tab import LOAD_MS, Tab

pytestmark = pytest.mark.e2e


def test_a_preset_and_a_kohya_file_fill_the_form(tab: Tab, tmp_path: Path) -> None:
    photos = pictures.write_photos(tmp_path / "3_cat", ("cat", "cup"))
    tab.fill(name="mine", trigger="ohwx", data=photos)
    tab.wait_for_report("× 10 epochs")
    tab.page.locator("#train_lora_preset input").click()
    tab.page.locator("#train_lora_preset .options li", has_text="Object or concept").click()
    tab.page.locator("#train_lora_preset_told.prose", has_text="Enough for one thing").wait_for(timeout=LOAD_MS)
    tab.wait_for_report("× 8 epochs")
    assert tab.value("rank") == "8" and tab.value("name") == "mine" and tab.value("trigger") == "ohwx"
    (tmp_path / "kohya.json").write_text(json.dumps({"epoch": "2", "network_dim": 4, "unet_lr": "3e-4", "LoRA_type": "LyCORIS/BOFT",
                                                     "output_name": "theirs", "lr_scheduler": "cosine"}))  # fmt: skip
    tab.page.locator("#train_lora_files_of_settings > .label-wrap").click()
    tab.page.locator("#train_lora_import input[type=file]").set_input_files(tmp_path / "kohya.json")
    tab.page.locator("#train_lora_preset_told.prose", has_text="LyCORIS/BOFT").wait_for(timeout=LOAD_MS)
    tab.wait_for_report("× 2 epochs")
    assert (tab.value("rank"), tab.value("unet_lr"), tab.value("name")) == ("4", "0.0003", "mine")
    tab.page.locator("#train_lora_export").click()
    link = tab.page.locator("#train_lora_exported a[download], #train_lora_exported a[href]").first
    link.wait_for(timeout=LOAD_MS)
    with tab.page.expect_download() as started:
        link.click()
    settings = json.loads(Path(started.value.path()).read_text())
    assert (settings["rank"], settings["name"], settings["epochs"], settings["trigger"]) == (4, "mine", 2, "ohwx")
    assert "LyCORIS/BOFT" in tab.page.locator("#train_lora_preset_told.prose").inner_text()
    assert tab.page.locator("#train_lora_preset input").input_value() == ""
    tab.shot("9-presets")
