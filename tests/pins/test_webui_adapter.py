"""The webui host on real ldm classes, under the webui's exact versions, with a double of the webui's names."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from lib_lora.errors import HostChanged, LoraFileError, ModelError
from lib_lora.events import Finished, StepDone
from lib_lora.families.sd1 import SD1
from lib_lora.files.lora_file import read
from lib_lora.hosts.ldm_model import LdmModel
from lib_lora.model.adapter import attached
from lib_lora.model.base import ModelInfo
from lib_lora.model.patching import forwards_replaced, frozen
from lib_lora.model.targets import conv_targets
from lib_lora.model.trainable import fused_attention_forwards
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config
from tests.pairs import new_pair
from tests.pins.webui_double import as_webui_holds_it, install, load_ldm

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def model(mini_checkpoint: Path) -> Any:
    return as_webui_holds_it(load_ldm(mini_checkpoint), mini_checkpoint)


@pytest.fixture
def webui(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    return install(monkeypatch, model, tmp_path)


@pytest.fixture
def host(webui: SimpleNamespace) -> Any:
    from lib_lora.hosts.webui_host import WebuiHost

    return WebuiHost()


def fingerprint(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        raw = tensor.detach().view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor.detach()
        digest.update(f"{name}{tensor.dtype}{tensor.requires_grad}{tensor.grad is None}".encode() + raw.numpy().tobytes())
    for name, module in model.named_modules():
        digest.update(f"{name}{module.training}{'forward' in module.__dict__}{len(module._forward_pre_hooks)}".encode())
    return digest.hexdigest()


def test_names_on_ldm_classes_are_those_of_diffusers(host: Any) -> None:
    recorded = {
        key.removeprefix("init/").partition(".")[0]
        for key in read(DATA / "mini-recording.safetensors")[0]
        if key.startswith("init/")
    }
    with host.borrow_model() as base:
        assert {target.name for target in base.targets()} == recorded


def test_convolutional_blocks_of_ldm_have_diffusers_names(host: Any) -> None:
    """Those of a LoCon of sd-scripts; the miniature is a tenth as wide."""
    recorded = {line.partition(".")[0] for line in (DATA / "kohya-sd1-conv-keys.txt").read_text().splitlines()}
    with host.borrow_model() as base:
        assert {target.name for target in conv_targets(base.unet, SD1)} == recorded
        unet = base.unet
        layers = {target.name: target.module for target in conv_targets(unet, SD1)}
        assert layers["lora_unet_down_blocks_1_resnets_0_conv_shortcut"] is unet.input_blocks[4][0].skip_connection
        assert layers["lora_unet_up_blocks_2_upsamplers_0_conv"] is unet.output_blocks[8][2].conv


def test_a_locon_is_trained_on_ldm_classes(host: Any, model: Any, photos: Path, tmp_path: Path) -> None:
    before = fingerprint(model)
    events = list(train(small_config(photos, tmp_path, conv_dim=2), host, RunControl()))
    state = read(events[-1].path)[0]
    assert len({key.partition(".")[0] for key in state if "unet" in key}) == 278 and fingerprint(model) == before
    still = [key for key, value in state.items() if key.endswith("lora_up.weight") and not value.any()]
    assert still == [] and state["lora_unet_down_blocks_0_downsamplers_0_conv.lora_down.weight"].shape == (2, 32, 3, 3)


def test_fused_attention_gives_ldms_own_result(model: Any) -> None:
    unet, x = model.model.diffusion_model, torch.randn(1, 4, 16, 16)
    context, t = torch.randn(1, 77, 64), torch.tensor([300])
    with torch.no_grad():
        plain = unet(x, timesteps=t, context=context)
        with forwards_replaced(fused_attention_forwards(unet)):
            fused = unet(x, timesteps=t, context=context)
    assert len(fused_attention_forwards(unet)) == 32
    assert torch.allclose(fused, plain, atol=1e-5)
    assert not torch.equal(fused, plain), "the replacement was not used"


@pytest.mark.case(43, 45)
def test_a_whole_run_leaves_the_webui_as_it_was(
    host: Any, webui: SimpleNamespace, model: Any, photos: Path, tmp_path: Path
) -> None:
    before = fingerprint(model)
    events = list(train(small_config(photos, tmp_path, preview_steps=2), host, RunControl()))
    assert sum(isinstance(event, StepDone) for event in events) == 3
    assert isinstance(events[-1], Finished) and events[-1].path == tmp_path / "Lora" / "blob.safetensors"
    assert read(events[-1].path)[1]["ss_sd_model_hash"] == "abcd1234"
    assert fingerprint(model) == before
    assert not webui.call_queue.queue_lock.locked() and webui.shared.state.begun == webui.shared.state.ended > 0
    assert webui.shared.loaded_hypernetworks == ["hyper"]
    assert webui.processing.StableDiffusionProcessing.cached_c == [None, None]
    assert webui.processing.StableDiffusionProcessingTxt2Img.cached_hr_uc == [None, None]


@pytest.mark.case(43, 45)
def test_a_run_on_top_of_other_loras_leaves_the_webui_as_it_was(host: Any, model: Any, photos: Path, tmp_path: Path) -> None:
    """A LoRA below, one to go on with, dropout, and captions read as the webui reads prompts; in half precision."""
    before = fingerprint(model)
    list(train(small_config(photos, tmp_path), host, RunControl()))
    first = str(tmp_path / "Lora" / "blob.safetensors")
    flat = {"name": "second", "base_weights": [first], "network_weights": first, "rank_dropout": 0.5, "scale_weight_norms": 1,
            "token_rule": "webui", "weighted_captions": True, "max_token_length": "150", "mixed_precision": "bf16"}  # fmt: skip
    events = list(train(small_config(photos, tmp_path, preview_steps=2, **flat), host, RunControl()))
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    old, new = read(Path(first))[0], read(events[-1].path)[0]
    assert set(old) == set(new) and any(not torch.equal(old[key], new[key]) for key in old)
    assert fingerprint(model) == before


@pytest.mark.case(6)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_vae_is_used_in_fp32_and_comes_back_exactly(host: Any, model: Any, dtype: torch.dtype) -> None:
    model.first_stage_model.to(dtype)
    try:
        before = fingerprint(model)
        with host.borrow_model() as base:
            mean, _ = base.encode_image(torch.zeros(1, 3, 64, 64))
            assert mean.dtype == torch.float32 and bool(torch.isfinite(mean).all())
        assert fingerprint(model) == before
    finally:
        model.first_stage_model.float()


@pytest.mark.case(6)
def test_a_vae_that_overflows_in_half_precision_encodes_as_in_fp32(host: Any, model: Any) -> None:
    """As SDXL's does: its activations are beyond the largest number of half precision (65504). Latents are those of fp32, to 1e-5."""
    vae, largest, picture = model.first_stage_model, [], torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    kept = {name: value.clone() for name, value in vae.state_dict().items()}
    hook = vae.encoder.conv_in.register_forward_hook(lambda module, _, output: largest.append(float(output.abs().max())))
    try:
        with torch.no_grad():
            vae.encoder.conv_in.weight.mul_(120000)
        vae.half().float()  # what half precision keeps of the weights
        with torch.no_grad():
            expected = vae.encode(picture).mode()
        vae.half()
        with host.borrow_model() as base:
            mean, _ = base.encode_image(picture)
        assert vae.encoder.conv_in.weight.dtype == torch.float16
    finally:
        hook.remove()
        vae.float().load_state_dict(kept)
    assert largest[0] > 65504 and bool(torch.isfinite(mean).all())
    assert float((mean - expected).abs().max()) < 1e-5


@pytest.mark.case(35)
def test_a_press_of_interrupt_does_not_wait_for_the_next_job(host: Any, webui: SimpleNamespace) -> None:
    """Interrupt and Skip, pressed while the model is trained: their flags are down when it is given back."""
    state = webui.shared.state
    with host.borrow_model():
        state.skipped = state.interrupted = state.stopping_generation = True
    assert not (state.skipped or state.interrupted or state.stopping_generation) and state.begun == state.ended


@pytest.mark.case(44)
def test_an_error_inside_gives_everything_back(host: Any, webui: SimpleNamespace, model: Any) -> None:
    before = fingerprint(model)
    with pytest.raises(RuntimeError), host.borrow_model() as base:
        pairs = [new_pair(target, 2, 1.0, 1, base.device) for target in base.targets()]
        with attached(pairs):
            raise RuntimeError
    assert fingerprint(model) == before and not webui.call_queue.queue_lock.locked()
    assert webui.shared.state.ended == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_sd3": True}, "is SD3"),
        ({"is_ssd": True}, "is SSD-1B"),
        ({"is_sd1": False}, "is of an unknown type"),
        ({"is_sdxl": True, "conditioner": SimpleNamespace(embedders=[SimpleNamespace(model=1)])}, "is an SDXL refiner"),
    ],
)
def test_other_models_are_refused_before_and_after_the_lock(
    host: Any, webui: SimpleNamespace, model: Any, change: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in change.items():
        monkeypatch.setattr(model, name, value, raising=False)
    assert len(host.problems()) == 1 and said in host.problems()[0]
    with pytest.raises(ModelError, match=said), host.borrow_model():
        pass
    assert not webui.call_queue.queue_lock.locked()


def test_unclip_and_editing_are_refused(host: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.model, "conditioning_key", "crossattn-adm")
    assert "is UnCLIP" in host.problems()[0]
    monkeypatch.setattr(model.model, "conditioning_key", "hybrid")
    first = model.model.diffusion_model.input_blocks[0]
    monkeypatch.setattr(first[0], "weight", torch.nn.Parameter(torch.zeros(32, 8, 3, 3)))
    assert "is SD 1.x for editing or depth, with 8 channels" in host.problems()[0]


@pytest.mark.case(47)
@pytest.mark.parametrize("mode", ["lowvram", "medvram"])
def test_memory_modes_are_refused(host: Any, webui: SimpleNamespace, mode: str) -> None:
    setattr(webui.shared.cmd_opts, mode, True)
    assert host.problems() == [
        f"The webui runs with --{mode}, which moves the model during use; start it without --{mode} to train."
    ]


def test_an_sdxl_that_is_moved_is_refused_before_and_after_the_lock(host: Any, webui: SimpleNamespace, model: Any) -> None:
    """--medvram-sdxl is no matter of other families: the model itself says it."""
    model.lowvram = True
    try:
        assert ["start it without --medvram-sdxl to train" in problem for problem in host.problems()] == [True]
        with pytest.raises(ModelError, match="--medvram-sdxl"), host.borrow_model():
            pass
    finally:
        model.lowvram = False
    assert host.problems() == []


def test_a_replaced_unet_is_refused_by_name(host: Any, webui: SimpleNamespace) -> None:
    webui.sd_unet.get_unet_option = lambda option=None: SimpleNamespace(label="[TRT] mini")
    (problem,) = host.problems()
    assert problem.startswith("The U-Net is replaced by '[TRT] mini'") and "set SD Unet to None" in problem
    webui.sd_models.model_data.sd_model = None
    assert host.problems() == [], "the webui would load its checkpoint for the answer"


def test_no_checkpoint(host: Any, webui: SimpleNamespace) -> None:
    webui.sd_models.checkpoints_list.clear()
    webui.sd_models.model_data.sd_model = None
    assert "No checkpoint is loaded" in host.problems()[0]
    with pytest.raises(ModelError, match="No checkpoint is loaded"), host.borrow_model():
        pass


def test_a_checkpoint_that_fails_to_load(host: Any, webui: SimpleNamespace) -> None:
    webui.sd_models.model_data.sd_model = webui.shared.sd_model = None
    assert host.problems() == []
    with pytest.raises(ModelError, match="could not load its checkpoint"), host.borrow_model():
        pass


@pytest.mark.case(47)
@pytest.mark.parametrize("device", ["mps", "xpu", "privateuseone"])
def test_other_devices_are_refused_by_name(host: Any, webui: SimpleNamespace, device: str) -> None:
    webui.devices.device = SimpleNamespace(type=device)
    assert repr(device) in host.problems()[0]


def test_a_model_that_is_exchanged_or_moved_is_noticed(host: Any, webui: SimpleNamespace, model: Any) -> None:
    with host.borrow_model() as base:
        base.verify()
        webui.sd_models.model_data.sd_model = object()
        with pytest.raises(HostChanged, match="Another checkpoint"):
            base.verify()
    moved = LdmModel(model, torch.device("cuda"), ModelInfo("x", None, None)) if torch.cuda.is_available() else None
    if moved is not None:
        with pytest.raises(HostChanged, match="unloaded"):
            moved.verify()


def lora_extension(monkeypatch: pytest.MonkeyPatch, restore: Any) -> ModuleType:
    """A double of the webui's `networks` module whose layers carry a LoRA until `restore(layer)` takes it off."""
    networks = ModuleType("networks")
    networks.load_networks = lambda names: networks.calls.append(list(names))
    networks.calls = []
    networks.network_apply_weights = restore
    monkeypatch.setitem(sys.modules, "networks", networks)
    return networks


@pytest.mark.case(45)
def test_an_applied_lora_is_taken_off_first(host: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = model.model.diffusion_model.input_blocks[1][1].proj_in
    clean = layer.weight.detach().clone()

    def restore(module: torch.nn.Module) -> None:
        assert not torch.is_grad_enabled()
        module.weight.copy_(clean)
        module.network_current_names = ()

    networks = lora_extension(monkeypatch, restore)
    with torch.no_grad():
        layer.weight += 1
    layer.network_layer_name, layer.network_current_names = "x", (("old", 1, 1, None),)
    try:
        with host.borrow_model():
            assert torch.equal(layer.weight, clean) and networks.calls == [[]]
        networks.network_apply_weights = lambda module: None
        layer.network_current_names = (("old", 1, 1, None),)
        with pytest.raises(ModelError, match="cannot be removed"), host.borrow_model():
            pass
    finally:
        del layer.network_layer_name, layer.network_current_names


def test_keys_without_a_layer_fail_the_self_test(
    host: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = lora_extension(monkeypatch, lambda module: None)
    networks.network = SimpleNamespace(NetworkOnDisk=lambda name, path: path)
    networks.load_network = lambda name, on_disk: SimpleNamespace(modules={"a": SimpleNamespace(network_key="lora_unet_x.alpha")})
    with pytest.raises(LoraFileError, match="finds no layer for 204 keys"):
        list(train(small_config(photos, tmp_path), host, RunControl()))
    assert [path.name for path in (tmp_path / "Lora").iterdir()] == ["blob.safetensors.rescued"]


def test_an_embedding_that_is_not_found_fails_the_self_test(
    host: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = lora_extension(monkeypatch, lambda module: None)
    networks.network = SimpleNamespace(NetworkOnDisk=lambda name, path: path)
    networks.load_network = lambda name, on_disk: SimpleNamespace(modules={}, bundle_embeddings={"other": None})
    with pytest.raises(LoraFileError, match="does not find the embedding 'ohwx'"):
        list(train(small_config(photos, tmp_path, embedding_vectors=1, steps=1), host, RunControl()))
    assert [path.name for path in (tmp_path / "Lora").iterdir()] == ["blob.safetensors.rescued"]


def test_frozen_covers_the_whole_model(model: Any) -> None:
    with frozen([model.model, model.cond_stage_model, model.first_stage_model]):
        assert not any(parameter.requires_grad for parameter in model.parameters())
