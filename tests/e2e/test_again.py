"""A finished LoRA goes on training from the tab: it is chosen by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e import client
from tests.e2e.server import Server
from tests.e2e.tab import LOAD_MS, Tab

pytestmark = pytest.mark.e2e

RATE = 1e-4  # AdamW's first step is as long as the rate
ONE_STEP = {"steps": 1, "unet_lr": str(RATE), "text_encoder_lr": str(RATE)}


def test_train_again_from_a_finished_lora(tab: Tab, server: Server, lora: str, photos: Path) -> None:
    """The form gets its rank and alpha, the run begins with its weights and so ends near them, and its file stays as it was."""
    path = server.lora_folder / f"{lora}.safetensors"
    before, old = path.read_bytes(), load_file(path)
    tab.fill(data=photos, name="onward", **{**client.SMALL_RUN, **ONE_STEP, "rank": 8, "alpha": 2})
    tab.page.locator("#train_lora_again_box > .label-wrap").click()
    tab.page.locator("#train_lora_again_refresh").click()  # the file may be younger than the page
    tab.wait_until_quiet()  # a list that is open does not grow
    tab.page.locator("#train_lora_again input").click()
    tab.page.locator("#train_lora_again .options li", has_text=path.name).click()
    told = tab.page.locator("#train_lora_again_told.prose", has_text=f"{lora}: lora of SD 1.x, rank 4, alpha 4;")
    told.wait_for(timeout=LOAD_MS)
    tab.wait_for_report("stopped at 1 steps")
    assert (tab.value("rank"), tab.value("alpha"), tab.value("network_weights")) == ("4", "4", str(path))
    tab.shot("10-again")
    tab.train_and_wait_for_job()
    tab.wait_for_state("done")
    new = load_file(server.lora_folder / "onward.safetensors")
    assert new.keys() == old.keys() and path.read_bytes() == before
    assert all(torch.allclose(new[key].float(), old[key], rtol=1e-3, atol=2 * RATE) for key in old)
    assert any(not torch.equal(new[key], old[key].to(new[key].dtype)) for key in old), "nothing was trained"
