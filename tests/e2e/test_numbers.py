"""The same numbers as others: the webui's own Lora extension, and the standalone host on diffusers' modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_lora.config.groups import build_config
from lib_lora.data.tokens import caption_ids
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.model.adapter import parameters, state_dict
from lib_lora.model.adapter_types import new_adapter
from lib_lora.model.layer_settings import rank_and_alpha
from lib_lora.model.targets import adaptable
from tests.e2e.probe.e2e_probe.training_step import loss_and_gradients
from tests.e2e.round_trip import GRADIENTS, LOSS, MOST_ERROR
from tests.e2e.server import Server

pytestmark = pytest.mark.e2e

CAPTIONS = ("ohwx, a cat looks at you", "a cup of coffee (on a table), ohwx")


def test_webui_lora_gives_what_we_trained(server: Server, lora: str) -> None:
    """U-Net and text encoder, with our file in a prompt, answer as with our attached adapters."""
    found = server.get("/e2e/lora-output", params={"name": lora})
    print(found)
    for part in ("unet", "text_encoder"):
        assert found[part]["effect"] > 1e-2, f"the LoRA does nothing in the {part}"
        assert found[part]["error"] < MOST_ERROR
    assert found["unchanged"], "the model without LoRA answers differently afterwards"


TYPES: dict[str, dict[str, object]] = {
    "lora": {"conv_dim": 2},
    "dora": {"conv_dim": 2},
    "loha": {"conv_dim": 2},
    "lokr": {"conv_dim": 2, "factor": 4},
    "ia3": {},
    "diag-oft": {"conv_dim": 2},
    "glora": {},
}


@pytest.mark.parametrize("kind", TYPES)
def test_webui_gives_what_every_type_gives_here(server: Server, kind: str, tmp_path: Path) -> None:
    """On convolutions too, with tensors drawn at random; the webui's own loader reads the file."""
    checkpoint = next((server.data / "models" / "Stable-diffusion").glob("*.safetensors"))
    config = build_config({"adapter_type": kind, "rank": 2, "alpha": 2, **TYPES[kind]}).adapter
    draw = torch.Generator().manual_seed(5)
    with StandaloneHost(checkpoint, tmp_path, torch.device("cpu")).borrow_model() as base:
        targets = adaptable(base)
        sizes = [(target, *rank_and_alpha(target.name, config)) for target in targets]
        chosen = [(target, rank, alpha) for target, rank, alpha in sizes if rank > 0]
        pairs = [new_adapter(target, rank, alpha, config, 1, base.device, torch.float32) for target, rank, alpha in chosen]
    for value in parameters(pairs):
        value.data.add_(torch.randn(value.shape, generator=draw) * 0.05)
    path = server.data / "models" / "Lora" / f"every-{kind}.safetensors"
    save_file(state_dict(pairs), path)
    try:
        found = server.get("/e2e/lora-output", params={"name": path.stem})
    finally:
        path.unlink()
    print(kind, len(pairs), found)
    for part in ("unet", "text_encoder"):
        assert found[part]["effect"] > (1e-3 if kind == "ia3" else 1e-2) and found[part]["error"] < MOST_ERROR
    assert found["unchanged"]


@pytest.mark.usefixtures("one_thread")
def test_one_step_equals_the_standalone_hosts(server: Server, tmp_path: Path) -> None:
    """Ldm modules in the webui, and diffusers modules in this process: loss and every gradient."""
    checkpoint = next((server.data / "models" / "Stable-diffusion").glob("*.safetensors"))
    assert_step_equals_the_standalone_hosts(server, checkpoint, tmp_path)


def assert_step_equals_the_standalone_hosts(server: Server, checkpoint: Path, tmp_path: Path) -> None:
    """Of whatever family `checkpoint`, which the webui has loaded, is."""
    with StandaloneHost(checkpoint, tmp_path, torch.device("cpu")).borrow_model() as base:
        prepared = _prepare(base)
        save_file(prepared, tmp_path / "inputs.safetensors")
        ours = loss_and_gradients(base, tmp_path / "inputs.safetensors", tmp_path / "standalone.safetensors")
    asked = {"inputs": str(tmp_path / "inputs.safetensors"), "out": str(tmp_path / "webui.safetensors")}
    theirs = server.get("/e2e/step", params=asked)
    errors = _relative_errors(load_file(tmp_path / "webui.safetensors"), load_file(tmp_path / "standalone.safetensors"))
    print(f"loss {theirs} and {ours}; largest error of {len(errors)} gradients: {max(errors.values()):.2e}")
    assert abs(theirs - ours) <= LOSS * abs(ours)
    unread = "lora_te1_text_model_encoder_layers_1_"  # SDXL does not read the last layer of its first text encoder
    wanted = {key.removeprefix("lora/") for key in prepared if key.endswith(".weight")}
    assert set(errors) == {key for key in wanted if not key.startswith(unread)}
    assert {key: error for key, error in errors.items() if error > GRADIENTS} == {}


def _prepare(base: DiffusersModel) -> dict[str, torch.Tensor]:
    """A step's inputs, and a LoRA strong enough to matter, drawn from a seed."""
    draw = torch.Generator().manual_seed(3)
    latents, noise = torch.randn(2, 4, 16, 24, generator=draw), torch.randn(2, 4, 16, 24, generator=draw)
    timesteps = torch.tensor([120, 777])
    prepared = {
        "noisy_latents": base.noise_process.add_noise(latents, noise, timesteps),
        "target": noise,
        "timesteps": timesteps,
        "sizes": torch.tensor([[427, 640, 0, 42, 128, 192], [128, 192, 8, 0, 128, 192]]),
    }
    for place, encoder in enumerate(base.text_encoders):
        ids = [caption_ids(base.tokenizer, caption, 75, encoder.pad_id) for caption in CAPTIONS]
        prepared[f"input_ids/{place}"] = torch.tensor(ids)
    for target in base.targets():
        weight = target.module.weight
        assert isinstance(weight, torch.Tensor)
        ones = (1,) * (weight.ndim - 2)
        prepared[f"lora/{target.name}.lora_down.weight"] = torch.randn(4, weight.shape[1], *ones, generator=draw) * 0.1
        prepared[f"lora/{target.name}.lora_up.weight"] = torch.randn(weight.shape[0], 4, *ones, generator=draw) * 0.1
        prepared[f"lora/{target.name}.alpha"] = torch.tensor(2.0)
    return prepared


def _relative_errors(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, float]:
    assert found.keys() == wanted.keys()
    return {key: float((found[key] - wanted[key]).norm() / wanted[key].norm()) for key in wanted if wanted[key].any()}
