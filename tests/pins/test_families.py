"""Families other than SD 1.x on ldm's and open_clip's real classes, under the webui's exact versions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lib_lora.events import Chosen, Finished, StepDone
from lib_lora.families.sdxl import SDXL
from lib_lora.files.lora_file import read
from lib_lora.hosts.architecture import text_config
from lib_lora.hosts.checkpoint import text_weights
from lib_lora.model.adapter import adapters_from_state, attached, state_dict
from lib_lora.model.open_clip import OpenClipEncoder, open_clip_encoder
from lib_lora.model.patching import forwards_replaced
from lib_lora.model.targets import text_encoder_targets
from lib_lora.model.text_encoders import ClipEncoder
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config
from tests.finite_differences import slopes, word_slopes
from tests.pairs import new_pair
from tests.pins.test_webui_adapter import fingerprint
from tests.pins.webui_double import as_webui_holds_it, install, load_ldm
from tests.synthetic import write_mini_sd2
from tests.webui_configs import ARCH

READ = "read from the loaded model"
IDS = torch.tensor([[49406, 320, 2368, 525, 49407, *[0] * 72], [49406, 49407, *[0] * 75]])


@pytest.fixture(scope="module")
def weights(mini_sdxl: Path) -> dict[str, torch.Tensor]:
    return {key: value.float() for key, value in load_file(mini_sdxl).items() if key.startswith(SDXL.text_encoders[1].weights)}


def open_clip(weights: dict[str, torch.Tensor], *, pools: bool) -> OpenClipEncoder:
    """As the webui holds it: open_clip's own class without the visual half."""
    import open_clip as library

    model = library.create_model_and_transforms(ARCH, device=torch.device("cpu"), pretrained=None)[0]
    del model.visual
    model.load_state_dict({key.removeprefix(SDXL.text_encoders[1].weights): value for key, value in weights.items()})
    return open_clip_encoder(model.eval().requires_grad_(False), pools=pools)


def transformers_clip(weights: dict[str, torch.Tensor], *, pools: bool) -> ClipEncoder:
    """The same weights as the standalone host has them."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = text_config(weights, SDXL.text_encoders[1].weights)
    config["num_hidden_layers"] -= not pools
    module: nn.Module = (CLIPTextModelWithProjection if pools else CLIPTextModel)(CLIPTextConfig(**config)).eval()
    named = text_weights(dict(weights), SDXL.text_encoders[1].weights, module)
    missing, _ = module.load_state_dict(named, strict=False)
    assert missing == []
    module.requires_grad_(False)
    return ClipEncoder(module, 0, penultimate=pools)


@pytest.mark.parametrize("pools", [True, False])
@pytest.mark.parametrize("clip_skip", [1, 2])
def test_open_clip_says_what_transformers_says(weights: dict[str, torch.Tensor], pools: bool, clip_skip: int) -> None:
    """Plain, and with one LoRA attached to both: every slice of the fused matrix is adapted under its own name."""
    ours, theirs = open_clip(weights, pools=pools), transformers_clip(weights, pools=pools)
    targets = text_encoder_targets(theirs.module, "lora_te2")
    assert [target.name for target in ours.targets("lora_te2")] == [target.name for target in targets]
    pairs = [new_pair(target, 2, 2.0, 3, torch.device("cpu")) for target in targets]
    for pair in pairs:
        nn.init.normal_(pair.up, std=0.1)
    same = adapters_from_state(ours.targets("lora_te2"), state_dict(pairs), torch.device("cpu"))
    assert len(same) == 6 * (10 if pools else 9)
    with torch.no_grad():
        library = ours.read(IDS, clip_skip)  # by its own attention
        with forwards_replaced(ours.forwards()):
            plain, plain_theirs = ours.read(IDS, clip_skip), theirs.read(IDS, clip_skip)
            with attached(same), attached(pairs):
                adapted, adapted_theirs = ours.read(IDS, clip_skip), theirs.read(IDS, clip_skip)
    for found, wanted in ((library, plain), (plain, plain_theirs), (adapted, adapted_theirs)):
        assert torch.allclose(found.hidden, wanted.hidden, atol=1e-5)
        assert (found.pooled is None) == (not pools)
        assert not pools or torch.allclose(found.pooled, wanted.pooled, atol=1e-5)  # type: ignore[arg-type]
    assert float((adapted.hidden - plain.hidden).abs().max()) > 1e-2


def test_slices_share_the_memory_of_the_fused_matrix(weights: dict[str, torch.Tensor]) -> None:
    encoder = open_clip(weights, pools=True)
    attention = encoder.attentions[3].attention
    with torch.no_grad():
        attention.in_proj_weight[256 + 5, 7] = 42.0
    assert float(encoder.attentions[3].k.weight[5, 7]) == 42.0
    before = set(encoder.module.state_dict())
    assert not any("k_proj" in key for key in before), "nothing is registered in the host's tree"


def test_the_projection_of_sd_scripts_is_turned(weights: dict[str, torch.Tensor]) -> None:
    for encoder in (open_clip(weights, pools=True), transformers_clip(weights, pools=True)):
        with torch.no_grad():
            plain, turned = encoder.read(IDS, 1), encoder.as_sd_scripts().read(IDS, 1)
        assert torch.equal(plain.hidden, turned.hidden)
        assert plain.pooled is not None and turned.pooled is not None
        matrix = weights[SDXL.text_encoders[1].weights + "text_projection"]
        at_end = torch.linalg.solve(matrix.T.double(), plain.pooled.double().T).T
        assert torch.allclose(at_end @ matrix.T.double(), turned.pooled.double(), atol=1e-3)


@pytest.mark.parametrize("pools", [True, False])
def test_gradients_of_open_clip_are_those_of_finite_differences(weights: dict[str, torch.Tensor], pools: bool) -> None:
    encoder = open_clip({key: value.double() for key, value in weights.items()}, pools=pools)
    encoder = open_clip_encoder(encoder.module.double(), pools=pools)
    with forwards_replaced(encoder.forwards()):
        found = [slopes(encoder, encoder.targets("lora_te2")), word_slopes(encoder)]
    for by_backward, by_values in found:
        assert by_backward == pytest.approx(by_values, rel=1e-5) and abs(by_values) > 1e-4


def _held(checkpoint: Path, *, is_sd2: bool) -> Any:
    model = as_webui_holds_it(load_ldm(checkpoint), checkpoint)
    model.is_sd1, model.is_sd2 = not is_sd2, is_sd2
    return model


@pytest.mark.case(43)
@pytest.mark.parametrize("family", ["SD 1.x inpainting", "SD 2.x", "SD 2.x inpainting"])
def test_a_whole_run_leaves_the_webui_as_it_was(
    family: str, mini_inpainting: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inpaints, is_sd2 = family.endswith("inpainting"), family.startswith("SD 2")
    checkpoint = write_mini_sd2(tmp_path / "sd2", velocity=not inpaints, inpaints=inpaints) if is_sd2 else mini_inpainting
    model = _held(checkpoint, is_sd2=is_sd2)
    webui: SimpleNamespace = install(monkeypatch, model, tmp_path)
    from lib_lora.hosts.webui_host import WebuiHost

    before = fingerprint(model)
    flat = {"preview_steps": 2, "gradient_checkpointing": "on"}
    events = list(train(small_config(photos, tmp_path, **flat), WebuiHost(), RunControl()))
    assert sum(isinstance(event, StepDone) for event in events) == 3
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    said = "v (set in its configuration)" if family == "SD 2.x" else "noise (nothing indicates v)"
    assert next(e.text for e in events if isinstance(e, Chosen)) == f"Model: {family}, predicts {said}; {READ}."
    state, metadata = read(events[-1].path)
    assert metadata["ss_v2"] == str(is_sd2)
    ups = {key: value for key, value in state.items() if key.endswith("lora_up.weight")}
    assert all(bool(value.any()) for value in ups.values())
    assert fingerprint(model) == before and not webui.call_queue.queue_lock.locked()


def test_the_mark_of_a_file_is_read_where_the_webui_does_not(mini_sdxl: Path, tmp_path: Path) -> None:
    """An SDXL without a configuration is one that predicts noise to the webui, whatever its file says."""
    from lib_lora.hosts.ldm_model import detected_model

    held = SimpleNamespace(is_sdxl=True, parameterization="eps", sd_checkpoint_info=SimpleNamespace(filename=str(mini_sdxl)))
    assert detected_model(held, SDXL).description(declared=False) == f"SDXL, predicts noise (nothing indicates v); {READ}"
    marked = tmp_path / "marked.safetensors"
    save_file({**load_file(mini_sdxl), "v_pred": torch.zeros(0)}, marked)
    held.sd_checkpoint_info.filename = str(marked)
    said = "marked by the tensor v_pred in the file; the webui itself needs marked.yaml for that"
    assert detected_model(held, SDXL).description(declared=False) == f"SDXL, predicts v ({said}); {READ}"
    held.parameterization = "v"
    assert detected_model(held, SDXL).v_from == "set in its configuration"
