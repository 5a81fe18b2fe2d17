"""LoRAs of other programs on ldm's and open_clip's real classes: every layer that a file can name is found and has an effect."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_lora.errors import LoraFileError
from lib_lora.events import Finished, Note
from lib_lora.families.sd2 import SD2
from lib_lora.files.lora_file import read
from lib_lora.hosts.architecture import UNET
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.layer_names.translate import translate
from lib_lora.model.norm_shifts import norms_of
from lib_lora.model.targets import adaptable, further_targets
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config
from tests.pins.webui_double import as_webui_holds_it, install, load_ldm


@pytest.fixture
def held(mini_sd2: Path) -> Any:
    model = as_webui_holds_it(load_ldm(mini_sd2), mini_sd2)
    model.is_sd1, model.is_sd2 = False, True
    return model


def names_in(checkpoint: Path, shape_of_norm: int) -> set[str]:
    """What files call the layers of a checkpoint, from its keys: matrices, and vectors where norms are wanted."""
    shapes = {}
    for key, value in load_file(checkpoint).items():
        start = next((start for start in (UNET, SD2.text_encoders[0].weights) if key.startswith(start)), None)
        if start and key.endswith("weight") and (value.dim() == 1) == (shape_of_norm == 1):
            path = key.removeprefix(start).removesuffix(".weight").removesuffix("_weight")
            shapes[f"{'diffusion_model' if start == UNET else 'clip_h'}.{path}.diff"] = tuple(value.shape)
    found = translate(shapes, {"ss_base_model_version": "sd_v2"})
    assert all("embedding" in key for key in found.unknown)
    return {one.name for named in found.tensors.values() for one in named}


def test_every_layer_of_the_checkpoint_has_its_place_in_the_webuis_tree(
    held: Any, mini_sd2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends, norms, and the halves of open_clip's fused matrices too; but for the last layer of the encoder, which nothing reads."""
    install(monkeypatch, held, tmp_path)
    from lib_lora.hosts.webui_host import WebuiHost

    base = WebuiHost().look()
    assert base is not None
    last = "_encoder_layers_9_"
    matrices = {name for name in names_in(mini_sd2, 2) if last not in name}
    assert {target.name for target in [*adaptable(base), *further_targets(base)]} == matrices
    assert {name for name in matrices if is_further(name)} == {target.name for target in further_targets(base)}
    assert norms_of(base).keys() == names_in(mini_sd2, 1)


def test_what_is_not_trained_is_passed_by_the_self_test(
    held: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The webui's loader may leave out a layer that stays in the file; one that is trained must be found."""
    install(monkeypatch, held, tmp_path)
    from lib_lora.hosts.webui_host import WebuiHost

    trained, kept, lost = "lora_unet_mid_block_attentions_0_proj_in", "lora_unet_conv_norm_out", "lora_unet_time_embed_0"
    state = {
        f"{trained}.lora_down.weight": torch.randn(2, 256), f"{trained}.lora_up.weight": torch.randn(256, 2),
        f"{kept}.w_norm": torch.randn(64), f"{kept}.b_norm": torch.randn(64),
        f"{lost}.lora_down.weight": torch.randn(2, 64), f"{lost}.lora_up.weight": torch.randn(256, 2),
    }  # fmt: skip
    save_file(state, tmp_path / "old.safetensors")
    found = [trained]
    networks = ModuleType("networks")
    networks.load_networks = lambda names: None  # type: ignore[attr-defined]
    networks.network_apply_weights = lambda layer: None  # type: ignore[attr-defined]
    networks.list_available_networks = lambda: None  # type: ignore[attr-defined]
    networks.networks_in_memory = {}  # type: ignore[attr-defined]
    networks.network = SimpleNamespace(NetworkOnDisk=lambda name, path: path)  # type: ignore[attr-defined]
    networks.load_network = lambda name, on_disk: SimpleNamespace(  # type: ignore[attr-defined]
        modules={name: SimpleNamespace(network_key=f"{name}.lora_up.weight") for name in found}
    )
    monkeypatch.setitem(sys.modules, "networks", networks)
    flat = {"network_weights": str(tmp_path / "old.safetensors"), "dim_from_weights": True, "text_encoder_lr": 0, "steps": 1}
    events = list(train(small_config(photos, tmp_path, **flat), WebuiHost(), RunControl()))
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    made, _ = read(events[-1].path)
    assert all(torch.equal(made[key], value) for key, value in state.items() if not key.startswith(trained))
    assert not torch.equal(made[f"{trained}.lora_up.weight"], state[f"{trained}.lora_up.weight"])
    assert any("stay unchanged in the new file" in event.text for event in events if isinstance(event, Note))
    found.clear()
    with pytest.raises(LoraFileError, match=f"finds no layer for 1 keys, such as '{trained}'"):
        list(train(small_config(photos, tmp_path, **flat, name="other"), WebuiHost(), RunControl()))
