"""What is told of layers and size before a model is there, against names and shapes of kohya's files and files as they are written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib_lora.config.groups import build_config
from lib_lora.hosts.architecture import unet_config
from lib_lora.model.adapter import state_dict
from lib_lora.model.base import Target
from lib_lora.model.blocks import conv_place, rank_and_alpha
from lib_lora.model.conv_targets import conv_targets
from lib_lora.model.family import SD1, SD2, SDXL
from lib_lora.model.kinds import new_adapter, tensor_shapes
from lib_lora.model.layer_table import layers_of, layers_text
from lib_lora.output.lora_file import serialise

DATA = Path(__file__).parent / "data"
ATTENTION = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
CROSS = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


def test_the_table_is_kohyas() -> None:
    wanted = {
        line
        for name in ("kohya-sd1-keys-rank4", "kohya-sd1-conv-keys")
        for line in (DATA / f"{name}.txt").read_text().split("\n")
    }
    config = build_config({"rank": 4, "conv_dim": 2}).adapter
    found = set()
    for name, shape in layers_of("SD1"):
        shapes = tensor_shapes(shape, rank_and_alpha(name, config)[0], config)
        found |= {f"{name}.alpha []", *(f"{name}.{key} {list(sides)}" for key, sides in shapes.items())}
    assert found == wanted - {""} and len(layers_of("SD1")) == 72 + 278


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_the_tables_of_other_families_are_kohyas(family: str) -> None:
    """Names and shapes at rank 4, made by sd-scripts' own LoRANetwork on models of full size; it makes 1×1 convolutions of Linears."""
    config = build_config({"rank": 4}).adapter
    found = set()
    for name, shape in layers_of({"sd2": "SD2", "sdxl": "SDXL"}[family]):
        if rank_and_alpha(name, config)[0]:
            found.add(f"{name} {[4, shape[1]]} {[shape[0], 4]}")
    assert found == set(json.loads((DATA / "kohya-names.json").read_text())[family])


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
@pytest.mark.parametrize("card", ["SD2", "SDXL"])
def test_convolutions_of_other_families_are_those_of_diffusers(card: str) -> None:
    from diffusers import UNet2DConditionModel

    shapes = json.loads((DATA / "sdxl_shapes.json").read_text())
    with torch.device("meta"):
        config = unet_config({key: torch.empty(shape) for key, shape in shapes.items()})
        unet = UNet2DConditionModel(**config) if card == "SDXL" else UNet2DConditionModel(cross_attention_dim=1024)
        wanted = {(target.name, tuple(target.module.weight.shape)) for target in conv_targets(unet)}  # type: ignore[arg-type]
    assert {(name, shape) for name, shape in layers_of(card) if conv_place(name)} == wanted


def test_families_have_their_own_counts() -> None:
    words = [layers_text(build_config({}), family) for family in (SD2, SDXL)]
    assert words[0].startswith("330 layers of an SD 2.x: 138 of the text encoder, 192 of the U-Net;")
    assert words[1].startswith("986 layers of an SDXL: 264 of the text encoders, 722 of the U-Net;")
    middle = ",".join("4" if i == 11 else "0" for i in range(23))
    assert layers_text(build_config({"block_dims": middle}), SDXL).startswith(
        "366 layers of an SDXL: 264 of the text encoders, 102 of"
    )
    assert layers_text(build_config({"block_dims": middle}), SD1) == "", "its rule tells"


@pytest.mark.parametrize(
    ("flat", "counts"),
    [
        ({}, "264 layers of an SD 1.x: 72 of the text encoder, 192 of the U-Net;"),
        ({"conv_dim": 4}, "350 layers of an SD 1.x: 72 of the text encoder, 278 of the U-Net;"),
        (
            {"text_encoder_lr": 0, "train_layers": "attention"},
            "128 layers of an SD 1.x: 0 of the text encoder, 128 of the U-Net;",
        ),
        ({"train_layers": "cross-attention"}, "136 layers of an SD 1.x: 72 of the text encoder, 64 of the U-Net;"),
        ({"adapter_type": "ia3"}, "140 layers of an SD 1.x: 60 of the text encoder, 80 of the U-Net;"),
        (
            {"adapter_type": "ia3", "train_layers": "cross-attention", "text_encoder_lr": 0},
            "32 layers of an SD 1.x: 0 of the text encoder, 32 of the U-Net;",
        ),
        ({"adapter_type": "glora"}, "232 layers of an SD 1.x: 72 of the text encoder, 160 of the U-Net;"),
        ({"adapter_type": "diag-oft", "conv_dim": 4}, "350 layers of an SD 1.x: 72 of the text encoder, 278 of the U-Net;"),
        ({"unet_lr": 0}, "72 layers of an SD 1.x: 72 of the text encoder, 0 of the U-Net;"),
        (
            {"block_dims": ",".join(["0"] * 12 + ["4"] + ["0"] * 12)},
            "84 layers of an SD 1.x: 72 of the text encoder, 12 of the U-Net;",
        ),
    ],
    ids=str,
)
def test_counts(flat: dict[str, Any], counts: str) -> None:
    assert layers_text(build_config(flat), SD1).startswith(counts)


@pytest.mark.parametrize(
    "flat",
    [{"rank": 1}, {"rank": 4, "conv_dim": 2, "save_precision": "float"}, {"adapter_type": "dora"}, {"adapter_type": "loha", "rank": 2},
     {"adapter_type": "lokr", "conv_dim": 4}, {"adapter_type": "ia3", "save_precision": "float"},
     {"adapter_type": "diag-oft", "conv_dim": 4}, {"adapter_type": "glora", "rank": 2}],
    ids=str,
)  # fmt: skip
def test_sizes(flat: dict[str, Any]) -> None:
    """Within a twentieth of a file with every tensor."""
    config = build_config(flat)
    state = {}
    for name, shape in layers_of("SD1"):
        rank, _ = rank_and_alpha(name, config.adapter)
        if rank:
            shapes = tensor_shapes(shape, rank, config.adapter, name)
            state.update({f"{name}.{key}": torch.zeros(sides) for key, sides in shapes.items()})
            state[f"{name}.alpha"] = torch.tensor(1.0)
    dtype = torch.float32 if config.precision.save_precision == "float" else torch.float16
    size = len(serialise(state, dtype, {})) / 1e6
    told = float(layers_text(config, SD1).split("a file of ")[1].split()[0])
    assert told == pytest.approx(size, rel=0.05)


def test_a_file_to_go_on_with_decides_itself() -> None:
    assert layers_text(build_config({"network_weights": "a"}), SD1) == ""
    assert layers_text(build_config({"block_dims": "a"}), SD1) == "", "its rule tells"


def test_layers_that_are_chosen() -> None:
    for chosen, ranks in (("all", [16, 16, 16, 16]), ("attention", [16, 16, 0, 16]), ("cross-attention", [0, 16, 0, 16])):
        adapter = build_config({"train_layers": chosen}).adapter
        names = (ATTENTION, CROSS, "lora_unet_mid_block_attentions_0_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1")
        assert [rank_and_alpha(name, adapter)[0] for name in names] == ranks


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr", "diag-oft"])
def test_shapes_are_those_of_the_tensors(kind: str) -> None:
    adapter = build_config({"adapter_type": kind}).adapter
    module = nn.Conv2d(12, 24, 3)
    made = new_adapter(Target("x", module, "unet"), 4, 1.0, adapter, 1, torch.device("cpu"), torch.float32)
    shapes = {f"x.{key}": sides for key, sides in tensor_shapes(tuple(module.weight.shape), 4, adapter).items()}
    assert {key: tuple(value.shape) for key, value in state_dict([made]).items()} == {**shapes, "x.alpha": ()}
