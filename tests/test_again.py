"""Settings to continue from a finished LoRA, filled from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_lora.config.groups import all_options, build_config
from lib_lora.errors import LoraFileError
from lib_lora.families.family import DetectedModel, Family
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL
from lib_lora.model.adapter_types import tensor_shapes
from lib_lora.model.layer_settings import rank_and_alpha
from lib_lora.model.layer_shapes import layers_of
from lib_lora.settle import settle
from lib_lora.training.continue_settings import continue_settings
from lib_lora.training.continued_files import is_trained, weights_problems


def finished(path: Path, family: Family = SD1, dtype: torch.dtype = torch.float16, **flat: Any) -> Path:
    """A LoRA file of every third layer that these settings train in a model of full size."""
    config = build_config({"rank": 2, "alpha": 1, "text_encoder_lr": 5e-5, **flat})
    state = {}
    for name, shape in layers_of(family)[::3]:
        if is_trained(config, name, "unet" if name.startswith("lora_unet") else "text_encoder"):
            rank, alpha = rank_and_alpha(name, config.adapter)
            shapes = tensor_shapes(shape, rank, config.adapter)
            state.update({f"{name}.{key}": torch.zeros(sides, dtype=dtype) for key, sides in shapes.items()})
            state[f"{name}.alpha"] = torch.tensor(alpha, dtype=dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path


TABLE = [
    ({}, {"rank": 2, "alpha": 1.0, "conv_dim": 0}, "old: lora of SD 1.x, rank 2, alpha 1; 24 layers of the text encoder, 64 of the U-Net."),
    ({"alpha": 0.3, "conv_dim": 3, "conv_alpha": 0.7}, {"rank": 2, "alpha": 0.3, "conv_dim": 3, "conv_alpha": 0.7}, "convolutions rank 3, alpha 0.7"),
    ({"adapter_type": "loha"}, {"adapter_type": "loha", "rank": 2}, "old: loha of SD 1.x, rank 2"),
    ({"adapter_type": "dora"}, {"adapter_type": "dora", "rank": 2}, "old: dora of SD 1.x"),
    ({"adapter_type": "lokr"}, {"adapter_type": "lokr", "rank": 2}, "old: lokr of SD 1.x"),
    ({"adapter_type": "glora", "rank": 4, "alpha": 4}, {"adapter_type": "glora", "rank": 4, "alpha": 4.0}, "old: glora"),
    ({"block_dims": ",".join(["2", "3"] * 12 + ["4"])}, {"dim_from_weights": True}, "3 ranks and alphas, which are taken from the file"),
]  # fmt: skip


@pytest.mark.parametrize(("flat", "wanted", "words"), TABLE, ids=lambda value: str(value)[:40])
def test_what_must_agree_is_set(flat: dict[str, Any], wanted: dict[str, Any], words: str, tmp_path: Path) -> None:
    """And then nothing is wrong with the file, whatever half precision made of its alpha."""
    path = finished(tmp_path / "old.safetensors", **flat)
    found = continue_settings(path)
    assert {name: found.settings.get(name) for name in wanted} == wanted and words in found.description
    assert found.settings["dim_from_weights"] == ("block_dims" in flat)
    assert (
        weights_problems(settle(build_config(dict(found.settings)), DetectedModel(SD1, "a test")), DetectedModel(SD1, "a test"))
        == []
    )


def test_a_lora_of_sdxl_is_called_so(tmp_path: Path) -> None:
    path = finished(tmp_path / "xl.safetensors", SDXL)
    found = continue_settings(path)
    assert found.description.startswith("xl: lora of SDXL, rank 2")
    assert (
        weights_problems(settle(build_config(dict(found.settings)), DetectedModel(SDXL, "a test")), DetectedModel(SDXL, "a test"))
        == []
    )
    told = weights_problems(
        settle(build_config(dict(found.settings)), DetectedModel(SD1, "a test")), DetectedModel(SD1, "a test")
    )
    assert len(told) == 1 and "is a LoRA of SDXL, but the model is SD 1.x" in told[0]


def test_sd2_is_told_by_its_widths(tmp_path: Path) -> None:
    assert "lora of SD 2.x, rank 2" in continue_settings(finished(tmp_path / "two.safetensors", SD2)).description


def test_a_dylora_and_a_family_are_told_by_metadata(tmp_path: Path) -> None:
    """Where names and widths say nothing: the U-Net of SD 1.x and 2.x has the same of both."""
    path = finished(tmp_path / "old.safetensors", text_encoder_lr=0, rank=4, alpha=4)
    told = {"ss_base_model_version": "sd_v2_v", "ss_network_module": "networks.dylora", "ss_network_args": '{"unit": "2"}'}
    save_file(load_file(path), path, told)
    found = continue_settings(path)
    assert found.settings["unit"] == 2 and "lora of SD 2.x" in found.description
    config = settle(build_config(dict(found.settings)), None)
    assert "is a LoRA of SD 2.x, but the model is SD 1.x" in weights_problems(config, DetectedModel(SD1, "a test"))[0]
    assert weights_problems(config, DetectedModel(SD2, "a test")) == []


def test_what_cannot_be_gone_on_with_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "full.safetensors"
    save_file({"lora_unet_mid_block_attentions_0_proj_in.diff": torch.zeros(4, 4)}, path)
    with pytest.raises(LoraFileError, match="'full.safetensors' has type full, which cannot be continued"):
        continue_settings(path)
    with pytest.raises(LoraFileError, match="^Continue from: "):
        continue_settings(tmp_path / "missing.safetensors")


def test_the_form_offers_the_panels_loras_and_is_filled(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from lib_lora.ui.form_continue import FIELDS, NOTHING, AgainBar
    from lib_lora.ui.guard import Guard

    guard = Guard()
    bar = AgainBar(guard, lambda: tmp_path / "loras")
    finished(tmp_path / "loras" / "people" / "old.safetensors", alpha=0.5)
    (tmp_path / "loras" / ".hidden").mkdir()
    (tmp_path / "loras" / ".hidden" / "no.safetensors").write_bytes(b"")
    (tmp_path / "loras" / "broken.safetensors").write_bytes(b"no")
    finished(tmp_path / "outside.safetensors")
    assert bar.names() == [NOTHING, "broken.safetensors", str(Path("people", "old.safetensors"))]
    told, *fields = bar.choose("people/old.safetensors")
    held = {name: field["value"] for name, field in zip(FIELDS, fields) if "value" in field}
    assert "rank 2, alpha 0.5" in told
    config = settle(build_config(held), None)
    assert weights_problems(config) == [] and config.adapter.network_weights == str(
        tmp_path / "loras" / "people" / "old.safetensors"
    )
    for name in ("broken.safetensors", "../outside.safetensors"):
        told, *fields = guard.guarded(bar.choose, bar._told)(guard.key, name)
        assert "train-lora-problem" in told and not any("value" in field for field in fields)
    assert [field["value"] for field in bar.choose(NOTHING)[1:3]] == ["", False]
    assert set(FIELDS) <= {opt.name for opt in all_options()}
