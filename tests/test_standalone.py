"""The standalone host: names, another program's recording, and giving the model back."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from lib_lora.config.adapter import AdapterConfig
from lib_lora.errors import ConfigError, ModelError
from lib_lora.families.sd1 import SD1
from lib_lora.families.sdxl import SDXL
from lib_lora.hosts.architecture import family_of, text_config, unet_config, vae_config
from lib_lora.hosts.checkpoint import kind_of_file, load_modules
from lib_lora.model.conditioning import TextInputs, encode
from lib_lora.model.layer_names.unet import unet_name
from lib_lora.model.layer_settings import rank_and_alpha
from lib_lora.model.targets import conv_targets, text_encoder_targets, unet_targets
from lib_lora.replay.step import load_recording, replay
from tests.models import shared_host

DATA = Path(__file__).parent / "data"
SHAPES = json.loads((DATA / "sd15_shapes.json").read_text())


def test_names_and_shapes_of_a_full_model_are_kohyas() -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in SHAPES.items()}
        targets = text_encoder_targets(CLIPTextModel(CLIPTextConfig(**text_config(weights))))
        targets += unet_targets(UNet2DConditionModel(**unet_config(weights)), SD1)
    found = set()
    for target in targets:
        shape = list(target.module.weight.shape)
        ones = [1] * (len(shape) - 2)
        found |= {f"{target.name}.alpha []", f"{target.name}.lora_down.weight {[4, *shape[1:]]}",
                  f"{target.name}.lora_up.weight {[shape[0], 4, *ones]}"}  # fmt: skip
    assert found == set((DATA / "kohya-sd1-keys-rank4.txt").read_text().splitlines())
    assert len(targets) == 72 + 192


def test_names_and_shapes_of_convolutional_blocks_are_kohyas() -> None:
    """Of a LoCon that sd-scripts trained with network_dim=4 conv_dim=2: 86 more layers, 278 of the U-Net in all."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config({key: torch.empty(shape) for key, shape in SHAPES.items()}))
    found = set()
    for target in conv_targets(unet, SD1):
        rank, shape = rank_and_alpha(target.name, AdapterConfig(rank=4, conv_dim=2))[0], list(target.module.weight.shape)
        ones = [1] * (len(shape) - 2)
        found |= {f"{target.name}.alpha []", f"{target.name}.lora_down.weight {[rank, *shape[1:]]}",
                  f"{target.name}.lora_up.weight {[shape[0], rank, *ones]}"}  # fmt: skip
    assert found == set((DATA / "kohya-sd1-conv-keys.txt").read_text().splitlines())
    assert len(unet_targets(unet, SD1)) + len(conv_targets(unet, SD1)) == 278


def test_ldms_places_are_diffusers() -> None:
    """Every convolutional layer of the checkpoint, and no other, has the place of the same shape in diffusers' tree."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config({key: torch.empty(shape) for key, shape in SHAPES.items()}))
    inner = re.compile(
        r"model\.diffusion_model\.(.*\.(?:in_layers\.2|out_layers\.3|emb_layers\.1|skip_connection|\d\.op|\d\.conv))\.weight"
    )
    found = {unet_name(match[1], SD1): shape for key, shape in SHAPES.items() if (match := inner.fullmatch(key))}
    wanted = {target.name: list(target.module.weight.shape) for target in conv_targets(unet, SD1)}
    assert found == wanted
    with pytest.raises(ValueError, match="no U-Net that is trained here has a layer at 'input_blocks.12.0.op'"):
        unet_name("input_blocks.12.0.op", SD1)


def test_names_of_sdxls_convolutional_blocks() -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2, 10),
            use_linear_projection=True, cross_attention_dim=2048, attention_head_dim=(5, 10, 20),
        )  # fmt: skip
    shapes = {target.name.removeprefix("lora_unet_"): tuple(target.module.weight.shape) for target in conv_targets(unet, SDXL)}
    assert len(shapes) == 788 - 722, "sd-scripts' counts"
    assert {name for name in shapes if name.endswith(("_op", "_conv"))} == {
        "input_blocks_3_0_op", "input_blocks_6_0_op", "output_blocks_2_2_conv", "output_blocks_5_2_conv"}  # fmt: skip
    assert shapes["input_blocks_4_0_skip_connection"] == (640, 320, 1, 1) and shapes["output_blocks_8_0_in_layers_2"] == (
        320,
        640,
        3,
        3,
    )
    assert shapes["middle_block_2_emb_layers_1"] == (1280, 1280)


def test_full_vae_is_recognised() -> None:
    weights = {key: torch.empty(shape, device="meta") for key, shape in SHAPES.items()}
    assert vae_config(weights)["block_out_channels"] == (128, 256, 512, 512)
    assert unet_config(weights)["block_out_channels"] == (320, 640, 1280, 1280)
    assert text_config(weights)["num_attention_heads"] == 12


def test_a_recording_with_unknown_options_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from lib_lora.files.lora_file import read

    tensors, metadata = read(DATA / "mini-recording.safetensors")
    recorded = json.loads(metadata["config"])
    metadata["config"] = json.dumps({**recorded, "network_args": ["train_norm=True"]})
    save_file(tensors, tmp_path / "r.safetensors", metadata)
    with pytest.raises(ConfigError, match="train_norm: LyCORIS"):
        load_recording(tmp_path / "r.safetensors")
    metadata["config"] = json.dumps({**recorded, "network_dropout": 0.1})
    save_file(tensors, tmp_path / "r.safetensors", metadata)
    with pytest.raises(ConfigError, match="what its dropout dropped"):
        load_recording(tmp_path / "r.safetensors")


def test_a_recording_of_another_family_is_refused(mini_checkpoint: Path, tmp_path: Path) -> None:
    recording = dataclasses.replace(load_recording(DATA / "mini-recording.safetensors"), sdxl=True)
    said = r"of SDXL, the checkpoint is SD 1\.x"
    with shared_host(mini_checkpoint, tmp_path).borrow_model() as base, pytest.raises(ModelError, match=said):
        replay(recording, base)


def test_the_model_comes_back_frozen_flags_and_all(mini_checkpoint: Path, tmp_path: Path) -> None:
    host = shared_host(mini_checkpoint, tmp_path)
    with host.borrow_model() as base:
        flags = [p.requires_grad for p in base.unet.parameters()]
    assert not any(flags) and all(p.requires_grad for p in base.unet.parameters())


def test_context_of_several_chunks_is_joined_by_kohyas_rule(mini_checkpoint: Path, tmp_path: Path) -> None:
    with shared_host(mini_checkpoint, tmp_path).borrow_model() as base, torch.no_grad():
        ids = torch.randint(0, 49000, (2, 3, 77))
        joined = encode(base.text_encoders, TextInputs((ids,)), 1).context
        alone = [base.text_encoders[0].module(ids[:, chunk]).last_hidden_state for chunk in range(3)]
    assert joined.shape[1] == 227
    wanted = torch.cat([alone[0][:, :1], *(part[:, 1:-1] for part in alone), alone[2][:, -1:]], dim=1)
    assert torch.allclose(joined, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "family"),
    [
        ("model.diffusion_model.joint_blocks.0.x", "SD3"),
        ("conditioner.embedders.0.model.x", "an SDXL refiner"),
        ("noise_augmentor.x", "UnCLIP"),
        ("conditioner.embedders.0.transformer.x", "SSD-1B"),
        ("something.else", "not a complete Stable Diffusion checkpoint"),
    ],
)
def test_other_families_are_named(key: str, family: str) -> None:
    assert family_of({key: [1]}) == family


def test_inpainting_is_named() -> None:
    first = "model.diffusion_model.input_blocks.0.0.weight"
    assert getattr(family_of({**SHAPES, first: [320, 9, 3, 3]}), "name", None) == "SD 1.x inpainting"
    assert family_of({**SHAPES, first: [320, 8, 3, 3]}) == "SD 1.x for editing or depth, with 8 channels"
    assert family_of(SHAPES) is SD1


def test_files_that_are_no_checkpoint(tmp_path: Path, mini_checkpoint: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x00" * 20)
    (tmp_path / "a.ckpt").touch()
    for name, told in (
        ("missing.safetensors", "does not exist"),
        ("a.ckpt", "can run code"),
        ("a.safetensors", "cannot be read"),
    ):
        with pytest.raises(ModelError, match=told):
            kind_of_file(tmp_path / name)
    assert kind_of_file(mini_checkpoint).family is SD1


def test_weights_go_where_diffusers_puts_them(mini_checkpoint: Path) -> None:
    """Every tensor of the checkpoint lands in a module: sums over all parameters agree."""
    from safetensors.torch import load_file

    stored = {key: value for key, value in load_file(mini_checkpoint).items() if not key.endswith("position_ids")}
    modules = load_modules(mini_checkpoint, torch.float32)
    for module, prefix in ((modules.unet, "model."), (modules.vae, "first_stage"), (modules.text_encoders[0], "cond_stage")):
        ours = sum(float(p.double().sum()) for p in module.parameters())
        assert ours == pytest.approx(sum(float(v.double().sum()) for k, v in stored.items() if k.startswith(prefix)), rel=1e-9)
