"""Other programs' names of a LoRA's layers and ours, from names and shapes alone."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_lora.config.groups import build_config
from lib_lora.errors import LoraFileError
from lib_lora.families.family import Family
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL
from lib_lora.hosts.architecture import unet_config
from lib_lora.model.layer_names.further import is_further, is_norm
from lib_lora.model.layer_names.keys import key_of
from lib_lora.model.layer_names.translate import translate
from lib_lora.model.layer_names.unet import place_of, unet_name
from lib_lora.model.layer_settings import block_index, layout_of, rank_and_alpha
from lib_lora.model.layer_shapes import layers_of
from tests.layouts import LAYOUTS, dotted

DATA = Path(__file__).parent / "data"
FAMILIES = (SD1, SD2, SDXL)
Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def shapes_of(family: Family) -> dict[str, tuple[int, ...]]:
    """A LoRA of rank 2 of every layer, under kohya's names."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in layers_of(family):
        found |= {f"{name}.lora_down.weight": (2, *shape[1:]), f"{name}.lora_up.weight": (shape[0], 2), f"{name}.alpha": ()}
    return found


def ldm_to_diffusers(family: Family) -> dict[str, str]:
    """Path -> path of every weight of the family's U-Net, as diffusers itself converts a checkpoint."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    shapes = json.loads((DATA / ("sdxl_shapes.json" if family is SDXL else "sd15_shapes.json")).read_text())
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    marks = {key: torch.tensor(float(i)) for i, key in enumerate(weights) if key.startswith("model.diffusion_model.")}
    paths = {float(value): key for key, value in marks.items()}
    converted = convert_ldm_unet_checkpoint(dict(marks), {**unet_config(weights), "layers_per_block": 2})
    return {
        paths[float(value)].removeprefix("model.diffusion_model.").rpartition(".")[0]: key.rpartition(".")[0]
        for key, value in converted.items()
    }


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
@pytest.mark.parametrize("family", [SD1, SDXL], ids=lambda family: family.id)
def test_every_layer_of_a_unet_is_found_under_both_names(family: Family) -> None:
    """As diffusers' own converter pairs them, norms and ends too; each pair has one name here, and no two pairs the same."""
    pairs = ldm_to_diffusers(family)
    found = {(unet_name(ldm, family), unet_name(diffusers, family)) for ldm, diffusers in pairs.items()}
    assert len(found) == len(pairs) > 300 and all(one == other for one, other in found)
    spelled = {"lora_unet_" + (ldm if family is SDXL else diffusers).replace(".", "_") for ldm, diffusers in pairs.items()}
    assert {one for one, _ in found} == spelled
    adaptable = {name for name, _ in layers_of(family) if name.startswith("lora_unet_")}
    assert {name for name in spelled if not is_further(name)} == adaptable
    assert {name for name in spelled if is_norm(name)} == {name for name in spelled - adaptable if "norm" in name or name.endswith(
        ("in_layers_0", "out_layers_0", "out_0"))}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_back_whole(family: Family, layout: str) -> None:
    plain = shapes_of(family)
    marked = LAYOUTS[layout]({key: (key, shape) for key, shape in plain.items()})
    found = translate({key: shape for key, (_, shape) in marked.items()}, {})
    assert found.unknown == () and found.twice == () and found.family is family
    assert {key: [one.key for one in named] for key, named in found.tensors.items()} == {
        key: [plain_key] for key, (plain_key, _) in marked.items()
    }


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
@pytest.mark.parametrize("family", [SD1, SDXL], ids=lambda family: family.id)
@pytest.mark.parametrize("form", ["flat", "dotted", "bare"])
def test_the_other_trees_block_names_are_read_too(family: Family, form: str) -> None:
    """SD 1.x under ldm's names, SDXL under diffusers', flat as the webui reads them, and with dots."""
    pairs = ldm_to_diffusers(family)
    other = {unet_name(ldm, family): diffusers if family is SDXL else ldm for ldm, diffusers in pairs.items()}
    start = {"flat": "lora_unet_", "dotted": "model.diffusion_model.", "bare": ""}[form]
    shapes, wanted = {}, {}
    for key, shape in shapes_of(family).items():
        name, _, end = key.partition(".")
        if name in other:
            key = f"{start}{other[name].replace('.', '_') if form == 'flat' else other[name]}.{end}"
            shapes[key], wanted[key] = shape, [f"{name}.{end}"]
    found = translate(shapes, {})
    assert {key: [one.key for one in named] for key, named in found.tensors.items()} == wanted and len(wanted) > 700
    assert found.family is family and "block names" in found.layout


def lora(name: str, inputs: int, outputs: int = 8) -> dict[str, tuple[int, ...]]:
    return {f"{name}.lora_down.weight": (2, inputs), f"{name}.lora_up.weight": (outputs, 2)}


CROSS = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
FC1, FC2 = "text_model_encoder_layers_0_mlp_fc1", "text_model_encoder_layers_0_mlp_fc2"


@pytest.mark.parametrize(
    ("shapes", "metadata", "wanted"),
    [
        (lora(CROSS, 768), {}, [SD1]),
        (lora(CROSS, 1024), {}, [SD2]),
        (lora(CROSS, 2048), {}, [SDXL]),
        (lora(CROSS, 768), {"ss_base_model_version": "sdxl_base_v1-0"}, [SD1]),
        (lora(f"lora_te1_{FC1}", 768), {}, [SD1, SDXL]),
        (lora(f"lora_te1_{FC1}", 768) | lora(CROSS, 768), {}, [SD1]),
        (lora(f"lora_te1_{FC1}", 768), {"ss_base_model_version": "sd_v1"}, [SD1]),
        (lora(f"lora_te_{FC1}", 1024), {}, [SD2]),
        (lora(f"lora_te_{FC2}", 3072, 768), {}, [SD1, SDXL]),
        (lora(f"lora_te2_{FC1}", 1280), {}, [SDXL]),
        (lora(f"text_encoder.{dotted(FC1)}", 1280), {}, [SDXL]),
        (lora("lora_te_text_model_encoder_layers_15_mlp_fc1", 4096), {}, [SD2]),
        (lora(Q, 1280), {}, [SD1, SD2, SDXL]),
        (lora("lora_unet_down_blocks_0_attentions_0_proj_in", 320), {}, [SD1, SD2]),
        (lora("lora_unet_down_blocks_2_attentions_0_transformer_blocks_9_attn1_to_q", 1280), {}, [SDXL]),
        (lora("lora_unet_output_blocks_2_2_conv", 9), {}, [SDXL]),
        (lora("lora_unet_output_blocks_2_1_conv", 9), {}, [SD1, SD2]),
        ({f"{CROSS}.lokr_w1": (8, 16), f"{CROSS}.lokr_w2_a": (9, 2), f"{CROSS}.lokr_w2_b": (2, 128)}, {}, [SDXL]),
        ({f"{CROSS}.hada_w1_b": (2, 768)}, {}, [SD1]),
    ],
    ids=lambda value: "+".join(family.id for family in value) if isinstance(value, list) else str(value),
)
def test_widths_say_the_family_then_places_then_metadata(shapes: Any, metadata: Any, wanted: list[Family]) -> None:
    assert list(translate(shapes, metadata).families) == wanted


def test_a_model_decides_where_a_file_can_be_of_several() -> None:
    for family, name in ((SD1, "lora_te_"), (SDXL, "lora_te1_")):
        assert list(translate(lora(f"lora_te1_{FC1}", 768), {}, family).tensors.values())[0][0].name == name + FC1
        assert list(translate(lora(f"lora_te_{FC1}", 768), {}, family).tensors.values())[0][0].name == name + FC1
    assert list(translate(lora(Q, 1280), {}, SDXL).tensors.values())[0][0].name == (
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    )


def test_a_fused_in_proj_becomes_three_layers() -> None:
    start = "lora_te2_transformer_resblocks_3_attn_in_proj"
    found = translate({f"{start}.lora_down.weight": (2, 1280), f"{start}.lora_up.weight": (3840, 2), f"{start}.alpha": ()}, {})
    layers = [f"lora_te2_text_model_encoder_layers_3_self_attn_{letter}_proj" for letter in "qkv"]
    assert [(one.key, one.third) for one in found.tensors[f"{start}.lora_up.weight"]] == [
        (f"{name}.lora_up.weight", third) for third, name in enumerate(layers)
    ]
    assert [(one.name, one.third) for one in found.tensors[f"{start}.lora_down.weight"]] == [(name, None) for name in layers]
    for shapes in ({"lora_up.weight": (3841, 2)}, {"lora_up.weight": (3840, 2), "dora_scale": (1, 1280)}):
        held = {f"{start}.{end}": shape for end, shape in {"lora_down.weight": (2, 1280), **shapes}.items()}
        assert set(translate(held, {}).unknown) == set(held), "rows that are no three, or a magnitude of all of them"


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", "SD3"),
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_k.lora_down.weight", "SD3"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "FLUX"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "FLUX"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "another transformer model"),
        ("lora_prior_unet_down_blocks_0_1_attention_to_q.lora_down.weight", "Stable Cascade"),
        ("diffusion_model.blocks.0.cross_attn.k.lora_A.weight", "Wan"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "a language model"),
        ("lllite_unet_input_blocks_1_1.depth1.0.weight", "ControlNet-LLLite"),
        ("down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.lora_A.weight", "AnimateDiff"),
        ("lora_unet_joint_transformer_blocks_0_attn_to_q.lora_down.weight", "AuraFlow"),
        ("diffusion_model.double_stream_blocks.0.block.attn1.to_q.lora_A.weight", "HiDream"),
        ("unet.down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q.lora_A.weight", "Stable Video Diffusion"),
        ("unet.up_blocks.0.attentions.0.add_k_proj.lora_A.weight", "Kandinsky"),
        ("diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight", "LTX"),
        ("model.diffusion_model.input_blocks.0.0.bias", "a checkpoint"),
        ("emb_params", "an embedding"),
    ],
)
def test_other_models_are_named(key: str, other: str) -> None:
    found = translate({key: (2, 8)}, {})
    assert other in found.other and found.unknown == (key,)


def test_two_names_of_one_layer_are_told() -> None:
    shapes = lora("lora_unet_middle_block_1_proj_in", 8) | lora("lora_unet_mid_block_attentions_0_proj_in", 8)
    assert translate(shapes, {}, SD1).twice == ("lora_unet_mid_block_attentions_0_proj_in",)


def alphas(told: dict[str, Any], key: str = "lora_adapter_metadata", start: str = "unet.") -> dict[str, float]:
    shapes = {
        f"{start}mid_block.attentions.0.transformer_blocks.0.attn1.{name}.lora_A.weight": (4, 8) for name in ("to_q", "to_k")
    }
    return {name.rpartition("_to_")[2]: alpha for name, alpha in translate(shapes, {key: json.dumps(told)}).alphas.items()}


def test_alphas_lie_in_metadata() -> None:
    assert alphas({}) == {} and alphas({"text_encoder.lora_alpha": 3}) == {}
    assert alphas({"unet.lora_alpha": 3, "text_encoder.lora_alpha": 5}) == {"q": 3.0, "k": 3.0}
    assert alphas({"unet.lora_alpha": 3, "unet.alpha_pattern": {"attn1.to_q": 7, "q": 9}}) == {"q": 7.0, "k": 3.0}
    assert alphas({"unet.lora_alpha": 3, "unet.use_rslora": True}) == {"q": 6.0, "k": 6.0}, "3 / √4 is 6 / 4"
    assert alphas({"lora_alpha": 2}, "adapter_config", "base_model.model.") == {"q": 2.0, "k": 2.0}
    old = {"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_k.alpha": 5}
    assert alphas(old, "network_alphas") == {"k": 5.0}


@pytest.mark.parametrize(
    "told",
    [
        {"unet.lora_alpha": "4"},
        {"unet.lora_alpha": float("inf")},
        {"unet.lora_alpha": 10**400},
        {"unet.lora_alpha": 1, "unet.alpha_pattern": {"(a+)+b": 2}},
        {"unet.lora_alpha": 1, "unet.alpha_pattern": [1]},
    ],
    ids=str,
)
def test_alphas_that_cannot_be_read_are_refused(told: dict[str, Any]) -> None:
    with pytest.raises(LoraFileError, match="its metadata contain"):
        alphas(told)


@given(
    st.sampled_from(["lora_unet_", "lora_te_", "lora_te1_", "unet.", "text_encoder_2.", ""]),
    st.text(max_size=60),
    st.integers(0, 400),
)
def test_no_name_is_an_error(start: str, text: str, number: int) -> None:
    """Whatever stands in a key, it is known or it is not; no block lies outside the family's list."""
    adapter = build_config({"block_dims": ",".join(["4"] * 25)}).adapter
    xl = build_config({"block_dims": ",".join(["4"] * 23)}).adapter
    places = ("input_blocks_{}_1_proj_in", "output_blocks_{}_0_in_layers_2", "down_blocks_{}_attentions_0_proj_in", "middle_block_{}_x",
              "up_blocks_{}_resnets_2_conv1", "up_blocks_1_attentions_{}_proj_in")  # fmt: skip
    for path in (text, *(place.format(number) for place in places)):
        name = start + path
        key_of(name), place_of(path), is_further(name)
        translate({f"{name}.lora_down.weight": (2, number)}, {})
        index = block_index(name)
        assert index is None or 0 <= index < layout_of(name).blocks
        rank_and_alpha(name, xl if layout_of(name).blocks == 23 else adapter)


def test_keys_of_a_megabyte_are_not_taken_apart() -> None:
    for piece in ("unet.", "base_model.model.", ".lora_A", "_", "processor.", "a.lora.down.", "0_"):
        assert translate({piece * 200_000 + ".lora_A.weight": (2, 2)}, {}).unknown
