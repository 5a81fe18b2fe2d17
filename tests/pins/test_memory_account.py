"""The memory account on the webui's modules: they stay as they are, and it equals what a step takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lib_lora.data.sizes import Size
from lib_lora.estimate.estimate import estimate
from lib_lora.hosts.ldm_model import LdmModel
from lib_lora.model.base import ModelInfo
from lib_lora.model.trainable import made_trainable
from lib_lora.settle import settle
from tests.conftest import small_config
from tests.counted import counted_step, told_step
from tests.pins.test_webui_adapter import fingerprint
from tests.pins.webui_double import as_webui_holds_it, install, load_ldm


@pytest.fixture(scope="module")
def model(mini_checkpoint: Path) -> Any:
    return as_webui_holds_it(load_ldm(mini_checkpoint), mini_checkpoint)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["keeps all", "checkpointing"])
def test_a_step_on_ldm_takes_what_the_account_says(model: Any, checkpointing: bool, photos: Path, tmp_path: Path) -> None:
    config = small_config(photos, tmp_path)
    base = LdmModel(model, next(model.parameters()).device, ModelInfo("m", None, None))
    told = told_step(config, base, Size(192, 128), checkpointing=checkpointing)
    with made_trainable(base, base.whole):
        found = counted_step(config, base, Size(192, 128), checkpointing=checkpointing)
        again = told_step(config, base, Size(192, 128), checkpointing=checkpointing)
    assert told == (pytest.approx(found[0], rel=0.05), pytest.approx(found[1], rel=0.05))
    assert again == told, "also while a training has its forwards on the instances"


def test_the_model_in_hand_is_only_looked_at(model: Any, monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path) -> None:
    install(monkeypatch, model, tmp_path)
    from lib_lora.hosts.webui_host import WebuiHost

    before, host = fingerprint(model), WebuiHost()
    base = host.look()
    assert base is not None
    found = estimate(settle(small_config(photos, tmp_path, preview_steps=1), host.detected_model()), base, host.device())
    assert fingerprint(model) == before
    assert set(found.phases) == {"encoding pictures", "training", "drawing a picture"} and found.peak > found.added > 0
