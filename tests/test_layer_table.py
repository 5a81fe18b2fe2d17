"""The report on layers and size before a model is loaded, against names and shapes of kohya's files and of written files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lib_lora.config.groups import build_config
from lib_lora.families.family import DetectedModel, Family
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL
from lib_lora.files.lora_file import serialise, write
from lib_lora.hosts.architecture import unet_config
from lib_lora.model.adapter import state_dict
from lib_lora.model.adapter_types import new_adapter, tensor_shapes
from lib_lora.model.base import Embedding, Target
from lib_lora.model.embeddings import bundle
from lib_lora.model.layer_report import layers_text
from lib_lora.model.layer_settings import conv_place, rank_and_alpha
from lib_lora.model.layer_shapes import layers_of
from lib_lora.model.targets import conv_targets
from lib_lora.settle import settle
from lib_lora.training.continued_files import kept_tensors
from lib_lora.training.initial_adapters import initial_adapters
from lib_lora.training.precision import FILE_DTYPES

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
    for name, shape in layers_of(SD1):
        shapes = tensor_shapes(shape, rank_and_alpha(name, config)[0], config)
        found |= {f"{name}.alpha []", *(f"{name}.{key} {list(sides)}" for key, sides in shapes.items())}
    assert found == wanted - {""} and len(layers_of(SD1)) == 72 + 278


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_the_tables_of_other_families_are_kohyas(family: str) -> None:
    """Names and shapes at rank 4, made by sd-scripts' own LoRANetwork on models of full size; it makes 1×1 convolutions of Linears."""
    config = build_config({"rank": 4}).adapter
    found = set()
    for name, shape in layers_of({"sd2": SD2, "sdxl": SDXL}[family]):
        if rank_and_alpha(name, config)[0]:
            found.add(f"{name} {[4, shape[1]]} {[shape[0], 4]}")
    assert found == set(json.loads((DATA / "kohya-names.json").read_text())[family])


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
@pytest.mark.parametrize("family", [SD2, SDXL], ids=lambda family: family.id)
def test_convolutions_of_other_families_are_those_of_diffusers(family: Family) -> None:
    from diffusers import UNet2DConditionModel

    shapes = json.loads((DATA / "sdxl_shapes.json").read_text())
    with torch.device("meta"):
        config = unet_config({key: torch.empty(shape) for key, shape in shapes.items()})
        unet = UNet2DConditionModel(**config) if family is SDXL else UNet2DConditionModel(cross_attention_dim=1024)
        wanted = {(target.name, tuple(target.module.weight.shape)) for target in conv_targets(unet, family)}  # type: ignore[arg-type]
    assert {(name, shape) for name, shape in layers_of(family) if conv_place(name)} == wanted


def test_families_have_their_own_counts() -> None:
    words = [layers_text(settle(build_config({}), DetectedModel(family, "a test")), family) for family in (SD2, SDXL)]
    assert words[0].startswith("330 layers of an SD 2.x: 138 of the text encoder, 192 of the U-Net;")
    assert words[1].startswith("722 layers of an SDXL: 0 of the text encoders, 722 of the U-Net;")
    both = layers_text(settle(build_config({"text_encoder_lr": 1e-5}), DetectedModel(SDXL, "a test")), SDXL)
    assert both.startswith("986 layers of an SDXL: 264 of the text encoders, 722 of the U-Net;")
    middle = ",".join("4" if i == 11 else "0" for i in range(23))
    assert layers_text(settle(build_config({"block_dims": middle}), DetectedModel(SDXL, "a test")), SDXL).startswith(
        "102 layers of an SDXL: 0 of the text encoders, 102 of"
    )
    assert layers_text(settle(build_config({"block_dims": middle}), DetectedModel(SD1, "a test")), SD1) == "", "its rule tells"


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
    assert layers_text(settle(build_config(flat), DetectedModel(SD1, "a test")), SD1).startswith(counts)


@pytest.mark.parametrize(
    "flat",
    [{"rank": 1}, {"rank": 4, "conv_dim": 2, "save_precision": "float"}, {"adapter_type": "dora"}, {"adapter_type": "loha", "rank": 2},
     {"adapter_type": "lokr", "conv_dim": 4}, {"adapter_type": "ia3", "save_precision": "float"},
     {"adapter_type": "diag-oft", "conv_dim": 4}, {"adapter_type": "glora", "rank": 2}],
    ids=str,
)  # fmt: skip
def test_sizes(flat: dict[str, Any]) -> None:
    """Of a file with every tensor, to the digit that is shown."""
    config = settle(build_config(flat), None)
    state = {}
    for name, shape in layers_of(SD1):
        rank, _ = rank_and_alpha(name, config.adapter)
        if rank:
            shapes = tensor_shapes(shape, rank, config.adapter, name)
            state.update({f"{name}.{key}": torch.zeros(sides) for key, sides in shapes.items()})
            state[f"{name}.alpha"] = torch.tensor(1.0)
    dtype = torch.float32 if config.precision.save_precision == "float" else torch.float16
    size = len(serialise(state, dtype, {})) / 1e6
    assert told(flat, SD1) == pytest.approx(size, rel=0.01, abs=0.06)


def without_content(family: Family) -> Any:
    """A model of full size whose weights take no memory."""
    with torch.device("meta"):
        modules = {name: _layer(shape) for name, shape in layers_of(family) if not conv_place(name)}
    targets = [
        Target(name, module, "unet" if name.startswith("lora_unet_") else "text_encoder") for name, module in modules.items()
    ]
    unet = nn.Module()
    return SimpleNamespace(targets=lambda: targets, device=torch.device("cpu"), unet=unet, family=family)


def _layer(shape: tuple[int, ...]) -> nn.Module:
    return nn.Linear(shape[1], shape[0], bias=False) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], 1, bias=False)


def written(path: Path, family: Family, flat: dict[str, Any]) -> float:
    """Megabytes of the file that a run with these settings writes, beside what its metadata takes."""
    config, count = settle(build_config(flat), None), flat.get("embedding_vectors", 0)
    widths = {"sd1": (768,), "sd2": (1024,), "sdxl": (768, 1280)}[family.id]  # of the text encoders
    word = bundle(Embedding("ohwx", tuple(torch.zeros(count, width) for width in widths))) if count else {}
    dtype = FILE_DTYPES[config.precision.save_precision]
    base = without_content(family)
    kept, layers = kept_tensors(config, base.family)
    trained = [pair for pair in initial_adapters(config, base) if pair.target.name not in layers]
    write(path, serialise({**state_dict(trained), **kept, **word}, dtype, {}, kept))
    return path.stat().st_size / 1e6


def told(flat: dict[str, Any], family: Any) -> float:
    return float(
        layers_text(settle(build_config(flat), DetectedModel(family, "a test")), family)
        .rpartition("a file of ")[2]
        .removesuffix(" MB")
    )


@pytest.mark.parametrize("family", [SD1, SD2, SDXL], ids=lambda family: family.id)
def test_the_size_counts_the_vectors_of_a_word(family: Family, tmp_path: Path) -> None:
    flat = {"rank": 1, "train_layers": "cross-attention", "text_encoder_lr": 0, "save_precision": "float"}
    more = {**flat, "trigger": "ohwx", "embedding_vectors": 64}
    sizes = [written(tmp_path / "x.safetensors", family, given) for given in (flat, more)]
    assert sizes[1] > 1.15 * sizes[0], "they are no trifle here"
    assert [told(given, family) for given in (flat, more)] == pytest.approx(sizes, rel=0.01, abs=0.06)


ONLY_UNET, ONLY_TEXT = {"text_encoder_lr": 0}, {"unet_lr": 0, "text_encoder_lr": 1e-5}
TE = {"text_encoder_lr": 1e-5}


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        (TE, TE, "264 layers of an SD 1.x: 72 of the text encoder, 192 of the U-Net; a file"),
        (
            TE,
            ONLY_UNET,
            "192 layers of an SD 1.x: 0 of the text encoder, 192 of the U-Net; 72 others stay as in old; a file",
        ),
        (
            ONLY_TEXT,
            ONLY_UNET,
            "192 layers of an SD 1.x: 0 of the text encoder, 192 of the U-Net; 72 others stay as in old; a",
        ),
        (ONLY_UNET, TE, "264 layers of an SD 1.x: 72 of the text encoder, 192 of the U-Net; a file"),
        (ONLY_UNET, {**TE, "rank": 16, "dim_from_weights": True}, "192 layers of an SD 1.x: 0 of the text encoder, 192 of the"),
        (
            {**TE, "train_layers": "attention"},
            {**TE, "save_precision": "float"},
            "264 layers of an SD 1.x: 72 of the text encoder,",
        ),
        (
            {**TE, "adapter_type": "lokr"},
            {**ONLY_UNET, "adapter_type": "lokr"},
            "192 layers of an SD 1.x: 0 of the text encoder, 192",
        ),
        (
            {**TE, "embedding_vectors": 8},
            {**TE, "embedding_vectors": 8},
            "264 layers of an SD 1.x: 72 of the text encoder, 192 of",
        ),
    ],
    ids=str,
)
def test_a_lora_that_is_gone_on_with(first: dict[str, Any], then: dict[str, Any], words: str, tmp_path: Path) -> None:
    """What it holds stays in the file; what is trained and not in it comes on top, unless ranks come from it."""
    old = tmp_path / "old.safetensors"
    written(old, SD1, {"rank": 4, "trigger": "ohwx", **first})
    flat = {"rank": 4, "trigger": "ohwx", "network_weights": str(old), **then}
    assert layers_text(settle(build_config(flat), DetectedModel(SD1, "a test")), SD1).startswith(words)
    assert told(flat, SD1) == pytest.approx(written(tmp_path / "new.safetensors", SD1, flat), rel=0.01, abs=0.06)


def test_what_cannot_be_told_is_left_to_those_who_tell(tmp_path: Path) -> None:
    written(tmp_path / "old.safetensors", SD1, {"rank": 4, **TE})
    foreign = build_config({"network_weights": str(tmp_path / "old.safetensors")})
    assert layers_text(settle(foreign, DetectedModel(SDXL, "a test")), SDXL) == ""
    assert layers_text(settle(build_config({"network_weights": "a"}), DetectedModel(SD1, "a test")), SD1) == ""
    assert layers_text(settle(build_config({"block_dims": "a"}), DetectedModel(SD1, "a test")), SD1) == "", "its rule tells"


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
