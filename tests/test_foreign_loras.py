"""LoRAs of other programs: continued from, merged first and inspected like the same LoRA under kohya's names."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_lora.check import look
from lib_lora.config.groups import build_config
from lib_lora.config.settled import Settled
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.events import Finished, Note
from lib_lora.families.family import DetectedModel
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL
from lib_lora.files.lora_file import read
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.model.adapter import Adapter, attached, by_layer, state_dict
from lib_lora.model.adapter_types import adapter_delta, weight_of
from lib_lora.model.delta import delta
from lib_lora.model.lora_layers import read_layers
from lib_lora.model.norm_shifts import norms_of, shifted
from lib_lora.model.targets import adaptable, further_targets
from lib_lora.output.inspect import describe
from lib_lora.run_control import RunControl
from lib_lora.settle import settle
from lib_lora.tiny import write_tiny
from lib_lora.train import train
from lib_lora.training.continue_settings import continue_settings
from lib_lora.training.continued_files import continued_notes, kept_tensors, weights_problems
from lib_lora.training.initial_adapters import fit_problems, initial_adapters, merged_adapters, norm_shifts
from tests.conftest import small_config
from tests.layouts import LAYOUTS
from tests.models import shared_host

CASES = Path(__file__).parent / "data" / "cases"
FAMILIES = ["mini_checkpoint", "mini_sd2", "mini_sdxl"]
TOLD = {"network_weights": "Continue from (network_weights)", "base_weights": "Merge first (base_weights)"}


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusersModel]:
    with StandaloneHost(request.getfixturevalue(request.param), tmp_path_factory.mktemp("out")).borrow_model() as model:
        yield model


@pytest.fixture(scope="module")
def sd1(mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusersModel]:
    with StandaloneHost(mini_checkpoint, tmp_path_factory.mktemp("out")).borrow_model() as model:
        yield model


def random_lora(base: Any, every: int = 7) -> dict[str, torch.Tensor]:
    """A LoRA of every seventh layer, under kohya's names."""
    state: dict[str, torch.Tensor] = {}
    for target in adaptable(base)[::every]:
        weight = weight_of(target)
        state[f"{target.name}.lora_down.weight"] = torch.randn(2, *weight.shape[1:])
        state[f"{target.name}.lora_up.weight"] = torch.randn(weight.shape[0], 2, *[1] * (weight.dim() - 2))
        state[f"{target.name}.alpha"] = torch.tensor(1.5)
    return state


def saved(folder: Path, state: dict[str, torch.Tensor], name: str = "old", metadata: dict[str, str] | None = None) -> str:
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata)
    return str(path)


def config(**flat: Any) -> Settled:
    flat = {"rank": 2, "alpha": 1.5, "conv_dim": 2, "conv_alpha": 1.5, "text_encoder_lr": 5e-5, **flat}
    return settle(build_config(flat), None)


def same(ours: list[Adapter], others: list[Adapter]) -> bool:
    one, other = (state_dict(pairs) for pairs in (ours, others))
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_starts_and_merges_as_kohyas(base: DiffusersModel, layout: str, tmp_path: Path) -> None:
    """Bit for bit; and inspection and settings to train again say the same."""
    torch.manual_seed(0)
    state = random_lora(base)
    plain, other = saved(tmp_path, state, "plain"), saved(tmp_path, LAYOUTS[layout](state), "other")
    kind = DetectedModel(base.family, "a test")
    for path in (plain, other):
        assert weights_problems(config(network_weights=path, base_weights=[path]), kind) == []
        assert fit_problems(config(network_weights=path, base_weights=[path]), base) == []
    assert same(*(initial_adapters(config(network_weights=path), base) for path in (plain, other)))
    assert same(*(merged_adapters(config(base_weights=[path], base_weights_multiplier=["0.5"]), base) for path in (plain, other)))
    ours, theirs = (describe(Path(path)) for path in (plain, other))
    keys = ("type", "modules", "modules_unet", "modules_text_encoder", "ranks", "alphas", "norm_max")
    assert [ours[key] for key in keys] == [theirs[key] for key in keys] and ours["layout"] == "kohya's names"
    first, second = (dict(continue_settings(Path(path)).settings) for path in (plain, other))
    assert {**first, "network_weights": ""} == {**second, "network_weights": ""}


def wrapped_by_peft(module: Any, names: list[str], dora: bool = False) -> Any:
    """A copy of a module with adapters of PEFT's, whose halves are random; ranks, alphas and scaling differ between layers."""
    from peft import LoraConfig, get_peft_model

    peft_config = LoraConfig(
        r=4, lora_alpha=6, target_modules=names, alpha_pattern={names[0]: 3}, rank_pattern={names[0]: 2}, use_dora=dora
    )
    model = get_peft_model(copy.deepcopy(module), peft_config)
    for key, value in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(value)
    return model


def peft_deltas(model: Any) -> dict[str, torch.Tensor]:
    """Path -> what PEFT itself adds to the weight there."""
    return {path.removeprefix("base_model.model."): module.get_delta_weight("default").detach()
            for path, module in model.named_modules() if hasattr(module, "get_delta_weight")}  # fmt: skip


PEFT_UNET = ["attn1.to_q", "attn2.to_k", "to_out.0", "ff.net.2", "proj_in", "conv1", "conv_shortcut"]
PEFT_TEXT = ["q_proj", "out_proj", "fc1"]


def assert_adds(pairs: list[Adapter], base: DiffusersModel, wanted: dict[Any, torch.Tensor]) -> None:
    found = {pair.target.module: adapter_delta(pair) for pair in pairs}
    assert found.keys() == wanted.keys() and len(wanted) > 20
    for module, change in wanted.items():
        assert torch.allclose(found[module], change.reshape(found[module].shape), rtol=1e-5, atol=1e-6)


def modules_of(base: DiffusersModel, deltas: dict[str, torch.Tensor], encoder: int | None = None) -> dict[Any, torch.Tensor]:
    root = base.unet if encoder is None else base.text_encoders[encoder].module
    return {root.get_submodule(path): change for path, change in deltas.items()}


@pytest.mark.parametrize("form", ["peft", "diffusers", "without metadata"])
def test_what_diffusers_saves_adds_what_peft_adds(base: DiffusersModel, form: str, tmp_path: Path) -> None:
    """Written by diffusers' own pipelines; without metadata the alphas are lost, and each is its rank, as diffusers reads it."""
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    unet = wrapped_by_peft(base.unet, PEFT_UNET)
    encoders = [wrapped_by_peft(encoder.module, PEFT_TEXT) for encoder in base.text_encoders]
    layers, told = {}, {}
    for name, model in zip(("unet", "text_encoder", "text_encoder_2"), (unet, *encoders)):
        state = {key.removeprefix("base_model.model."): value for key, value in get_peft_model_state_dict(model).items()}
        layers[f"{name}_lora_layers"] = state if form != "diffusers" else convert_state_dict_to_diffusers(state)
        told[f"{name}_lora_adapter_metadata"] = json.loads(json.dumps(model.peft_config["default"].to_dict(), default=list))
    pipeline = StableDiffusionXLPipeline if len(encoders) == 2 else StableDiffusionPipeline
    pipeline.save_lora_weights(tmp_path, **layers, **({} if form == "without metadata" else told))
    path = str(tmp_path / "pytorch_lora_weights.safetensors")
    wanted: dict[Any, torch.Tensor] = {}
    for place, model in ((None, unet), *enumerate(encoders)):
        wanted |= modules_of(base, peft_deltas(model), place)
    if form == "without metadata":
        first = {id(base.unet.get_submodule(path)) for path in peft_deltas(unet) if path.endswith(PEFT_UNET[0])}
        first |= {id(base.text_encoders[i].module.get_submodule(path)) for i, model in enumerate(encoders)
                  for path in peft_deltas(model) if path.endswith(PEFT_TEXT[0])}  # fmt: skip
        wanted = {module: change / (3 / 2 if id(module) in first else 6 / 4) for module, change in wanted.items()}
    assert weights_problems(config(network_weights=path, dim_from_weights=True), base.detected) == []
    assert_adds(initial_adapters(config(network_weights=path, dim_from_weights=True), base), base, wanted)
    assert_adds(merged_adapters(config(base_weights=[path]), base), base, wanted)
    told_of = " ".join(continued_notes(config(network_weights=path), base))
    assert ("no alphas" in told_of) == (form == "without metadata") and "the new file has kohya's names" in told_of


def test_what_peft_saves_is_scaled_by_the_file_beside_it(sd1: DiffusersModel, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = wrapped_by_peft(sd1.unet, PEFT_UNET)
    model.save_pretrained(tmp_path)
    path = str(tmp_path / "adapter_model.safetensors")
    assert_adds(merged_adapters(config(base_weights=[path]), sd1), sd1, modules_of(sd1, peft_deltas(model)))
    (tmp_path / "adapter_config.json").write_bytes(b"\xff")
    with pytest.raises(LoraFileError, match="adapter_config.json next to it cannot be read"):
        read_layers(Path(path))


@pytest.mark.parametrize("kind", ["LoHa", "LoKr"])
def test_other_types_of_pefts_are_scaled_as_it_does(kind: str, sd1: DiffusersModel, tmp_path: Path) -> None:
    """PEFT multiplies a LoKr of two whole matrices with alpha / rank too, where LyCORIS and the webui do not."""
    peft = pytest.importorskip("peft")
    ranks = {"rank_pattern": {PEFT_UNET[0]: 2}, "alpha_pattern": {PEFT_UNET[0]: 5}}
    model = peft.get_peft_model(
        copy.deepcopy(sd1.unet), getattr(peft, f"{kind}Config")(r=4, alpha=6, target_modules=PEFT_UNET, **ranks)
    )
    for key, value in model.named_parameters():
        if "hada_" in key or "lokr_" in key:
            torch.nn.init.normal_(value)
    model.save_pretrained(tmp_path)
    path = str(tmp_path / "adapter_model.safetensors")
    assert kind == "LoHa" or any(key.endswith("lokr_w2") for key in load_file(path)), "some are whole"
    wanted = {module: change.detach() for module, change in modules_of(sd1, peft_deltas(model)).items()}
    going_on = config(network_weights=path, adapter_type=kind.lower(), dim_from_weights=True)
    assert weights_problems(going_on, sd1.detected) == []
    assert_adds(initial_adapters(going_on, sd1), sd1, wanted)
    assert_adds(merged_adapters(config(base_weights=[path]), sd1), sd1, wanted)


def test_a_dora_of_pefts_is_refused_by_its_axis(sd1: DiffusersModel, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    wrapped_by_peft(sd1.unet, PEFT_UNET, dora=True).save_pretrained(tmp_path)
    path = str(tmp_path / "adapter_model.safetensors")
    for option, given in (("network_weights", path), ("base_weights", [path])):
        (problem,) = weights_problems(config(**{option: given}, adapter_type="dora"), DetectedModel(SD1, "a test"))
        assert (
            problem.startswith(TOLD[option])
            and "dora with magnitudes per output" in problem
            and "choose a LoRA without dora" in problem
        )
    assert "outputs" in describe(Path(path))["dora_axis"]


def test_a_fused_in_proj_adds_the_same(base: DiffusersModel, tmp_path: Path) -> None:
    if base.family is SD1:
        pytest.skip("its text encoder is not open_clip's")
    place = len(base.text_encoders) - 1
    prefix, module = base.family.text_prefixes[place], base.text_encoders[place].module
    path = next(path for path, _ in module.named_modules() if path.endswith("layers.0.self_attn.q_proj"))
    width = len(module.get_parameter(f"{path}.weight"))
    start = f"{prefix}_transformer_resblocks_0_attn_in_proj"
    down, up = torch.randn(2, width), torch.randn(3 * width, 2)
    path = saved(
        tmp_path, {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up, f"{start}.alpha": torch.tensor(1.0)}
    )
    pairs = merged_adapters(config(base_weights=[path]), base)
    assert [pair.target.name.rpartition("self_attn_")[2] for pair in pairs] == ["q_proj", "k_proj", "v_proj"]
    assert torch.allclose(torch.cat([adapter_delta(pair) for pair in pairs]), up @ down / 2, atol=1e-6)


def further_lora(base: Any, **ends: torch.Tensor) -> dict[str, torch.Tensor]:
    """A LoRA of what LyCORIS' preset full has beside the rest: ends and embeddings, of several types."""
    state: dict[str, torch.Tensor] = {}
    for number, target in enumerate(further_targets(base)):
        weight = weight_of(target)
        if number % 2:
            state[f"{target.name}.diff"] = 0.01 * torch.randn(weight.shape)
            continue
        state[f"{target.name}.lora_down.weight"] = torch.randn(2, *weight.shape[1:])
        state[f"{target.name}.lora_up.weight"] = torch.randn(weight.shape[0], 2, *[1] * (weight.dim() - 2))
        state[f"{target.name}.alpha"] = torch.tensor(1.0)
    return state


def test_layers_that_are_not_trained_are_heard_and_stay(base: DiffusersModel, tmp_path: Path) -> None:
    """In the file bit for bit, in fp16 too, and frozen in the model; merged they add the same."""
    extra = {key: value.half() for key, value in further_lora(base).items()}
    assert len(further_targets(base)) == (6 if base.family is SDXL else 4)
    path = saved(tmp_path, {**random_lora(base), **extra})
    going_on = config(network_weights=path)
    assert weights_problems(going_on, base.detected) == [] and fit_problems(going_on, base) == []
    pairs = {pair.target.name: pair for pair in initial_adapters(going_on, base)}
    kept, layers = kept_tensors(going_on, base.family)
    assert layers == by_layer(extra).keys() and kept.keys() == extra.keys()
    assert all(torch.equal(kept[key], extra[key]) and kept[key].dtype == torch.float16 for key in extra)
    merged = {pair.target.name: pair for pair in merged_adapters(config(base_weights=[path]), base)}
    for target in further_targets(base):
        pair, tensors = pairs[target.name], by_layer(extra)[target.name]
        assert not any(value.requires_grad for value in pair.named().values())
        wanted = delta({key: value.float() for key, value in tensors.items() if key != "alpha"}, 1.0, weight_of(target))
        assert torch.allclose(adapter_delta(pair), wanted) and torch.allclose(adapter_delta(merged[target.name]), wanted)
    (note,) = continued_notes(going_on, base)
    assert (
        note.startswith(TOLD["network_weights"]) and f"{len(layers)} layers" in note and "stay unchanged in the new file" in note
    )


def test_norms_are_heard_as_written_into_the_model(base: DiffusersModel, tmp_path: Path) -> None:
    """LyCORIS' train_norm: w_norm and b_norm are added to what a norm has, in the U-Net and the text encoders."""
    norms = norms_of(base)
    state = {}
    for name, module in norms.items():
        state[f"{name}.w_norm"], state[f"{name}.b_norm"] = (0.1 * torch.randn(module.weight.shape) for _ in range(2))
    path = saved(tmp_path, {**random_lora(base), **state})
    shifts = norm_shifts(config(base_weights=[path], base_weights_multiplier=["0.5"], network_weights=path), base)
    assert shifts.keys() == norms.keys() and len(norms) > 60
    inputs = {name: torch.randn(2, *module.weight.shape, *([3, 3] if isinstance(module, torch.nn.GroupNorm) else []))
              for name, module in norms.items()}  # fmt: skip
    with shifted(base, shifts):
        heard = {name: norms[name](x) for name, x in inputs.items()}
    for name, module in norms.items():
        written = copy.deepcopy(module)
        written.weight.data += 1.5 * state[f"{name}.w_norm"]
        written.bias.data += 1.5 * state[f"{name}.b_norm"]
        assert torch.allclose(heard[name], written(inputs[name]), atol=1e-5)
    kept, _ = kept_tensors(config(network_weights=path), base.family)
    assert kept.keys() == state.keys() and all(torch.equal(kept[key], state[key]) for key in state)
    narrow = saved(tmp_path, {**state, f"{name}.w_norm": torch.ones(1), f"{name}.b_norm": torch.ones(1)}, "narrow")
    (problem,) = fit_problems(config(base_weights=[narrow]), base)
    assert problem.startswith(TOLD["base_weights"]) and name in problem and "does not fit" in problem


def test_a_bias_is_added_beside_its_full_difference(sd1: DiffusersModel, tmp_path: Path) -> None:
    targets = {target.name: target for target in [*adaptable(sd1), *further_targets(sd1)]}
    for name in ("lora_unet_conv_in", "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2"):
        module: Any = targets[name].module
        state = {f"{name}.diff": 0.1 * torch.randn(module.weight.shape), f"{name}.diff_b": torch.randn(module.bias.shape)}
        path, x = (
            saved(tmp_path, state, name),
            torch.randn(2, *module.weight.shape[1:2], *([5, 5] if module.weight.dim() == 4 else [])),
        )
        with attached([], merged_adapters(config(base_weights=[path, path]), sd1)):
            heard = module(x)
        written = copy.deepcopy(module)
        written.__dict__.pop("forward", None)  # that of the borrowed one
        written.weight.data += 2 * state[f"{name}.diff"]
        written.bias.data += 2 * state[f"{name}.diff_b"]
        assert torch.allclose(heard, written(x), atol=1e-4)


def test_a_run_leaves_them_as_they_were(sd1: DiffusersModel, photos: Path, tmp_path: Path, mini_checkpoint: Path) -> None:
    """From LyCORIS' preset full with norms and a text projection, under names of ldm's: what is trained changes, nothing else does."""
    trained = {key: value for key, value in random_lora(sd1).items() if key.startswith("lora_unet") and "attn" in key}
    norm = norms_of(sd1)["lora_unet_mid_block_resnets_0_norm1"]
    kept = {
        **{key.replace("lora_unet_conv_in", "lora_unet_input_blocks_0_0"): value for key, value in further_lora(sd1).items()},
        "lora_unet_middle_block_0_in_layers_0.w_norm": torch.randn(norm.weight.shape),
        "lora_unet_middle_block_0_in_layers_0.b_norm": torch.randn(norm.weight.shape),
        "lora_te_text_projection.lora_down.weight": torch.randn(2, 64),
        "lora_te_text_projection.lora_up.weight": torch.randn(64, 2),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.randn(2, 64),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.randn(256, 2),
    }
    path = saved(tmp_path, {**trained, **kept})
    flat = {"network_weights": path, "dim_from_weights": True, "text_encoder_lr": 0, "save_precision": "fp16"}
    events = list(
        train(small_config(photos, tmp_path / "out", **flat), shared_host(mini_checkpoint, tmp_path / "out"), RunControl())
    )
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    made, metadata = read(events[-1].path)
    assert made.keys() == {**trained, **kept}.keys() and metadata["ss_network_module"]
    assert all(torch.equal(made[key], value) and made[key].dtype == value.dtype for key, value in kept.items())
    ups = [key for key in trained if key.endswith("lora_up.weight")]
    assert ups and all(made[key].dtype == torch.float16 and not torch.equal(made[key].float(), trained[key]) for key in ups)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("not trained and stay unchanged in the new file" in note and "training ignores the layer 'lora_te_text_projection'" in note
               for note in notes)  # fmt: skip
    assert load_file(events[-1].path).keys() == made.keys()


CONV = "lora_unet_down_blocks_0_resnets_0_conv1"


def test_a_glora_of_either_order_adds_the_same(sd1: DiffusersModel, tmp_path: Path) -> None:
    """LyCORIS turned its factors in 3.0; the new file has them as the webui reads them."""
    target = next(target for target in adaptable(sd1) if target.name.endswith("ff_net_0_proj"))
    (out, width), rank = weight_of(target).shape, 2
    shapes = {"a1": (width, rank), "a2": (rank, width), "b1": (out, rank), "b2": (rank, width)}
    newer = {f"{target.name}.{key}.weight": torch.randn(shape) for key, shape in shapes.items()}
    a1, a2, b1, b2 = newer.values()
    turned = dict(zip(newer, (a2, a1, b2, b1)))
    wanted = weight_of(target) @ a1 @ a2 + b1 @ b2  # LyCORIS' GLoRAModule.forward: org(a1(a2(x))) + b1(b2(x))
    for name, state in (("newer", newer), ("older", turned)):
        path = saved(tmp_path, state, name)
        flat = dict(continue_settings(Path(path)).settings)
        assert weights_problems(config(base_weights=[path], **flat), sd1.detected) == []
        pairs = {pair.target.name: pair for pair in initial_adapters(config(**flat), sd1)}
        merged = {pair.target.name: pair for pair in merged_adapters(config(base_weights=[path]), sd1)}
        for found in (pairs, merged):
            assert torch.allclose(adapter_delta(found[target.name]), wanted, rtol=1e-4, atol=1e-4)
        assert state_dict([pairs[target.name]])[f"{target.name}.a1.weight"].shape == (rank, width)


def test_a_folded_kernel_is_read_as_the_convolution_that_it_is(sd1: DiffusersModel, tmp_path: Path) -> None:
    """LyCORIS' DyLoRA; the webui unfolds it too."""
    weight = weight_of(next(target for target in adaptable(sd1) if target.name == CONV))
    down, up = torch.randn(2, weight[0].numel()), torch.randn(len(weight), 2)
    path = saved(tmp_path, {f"{CONV}.lora_down.weight": down, f"{CONV}.lora_up.weight": up, f"{CONV}.alpha": torch.tensor(1.0)})
    (pair,) = merged_adapters(config(base_weights=[path]), sd1)
    assert torch.allclose(adapter_delta(pair), (up @ down / 2).reshape(weight.shape), atol=1e-5)
    narrow = saved(tmp_path, {f"{CONV}.lora_down.weight": down[:, 1:], f"{CONV}.lora_up.weight": up}, "narrow")
    (problem,) = fit_problems(config(base_weights=[narrow]), sd1)
    shape = "×".join(map(str, weight.shape))
    assert (
        f"does not fit the model's layer with {shape}: it has lora_down.weight 2×{down.shape[1] - 1}, lora_up.weight" in problem
    )


def test_no_alpha_scales_a_full_difference(sd1: DiffusersModel, tmp_path: Path) -> None:
    weight = weight_of(next(target for target in adaptable(sd1) if target.name == CONV))
    change = torch.randn(weight.shape)
    path = saved(tmp_path, {f"{CONV}.diff": change, f"{CONV}.alpha": torch.tensor(4.0)})
    (pair,) = merged_adapters(config(base_weights=[path]), sd1)
    assert torch.equal(adapter_delta(pair), change)
    assert describe(Path(path))["norm_max"] == pytest.approx(float(change.norm()))


@pytest.mark.parametrize("option", ["network_weights", "base_weights"])
@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", (2, 8), "is made for FLUX"),
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_k.lora_down.weight", (2, 8), "is made for SD3"),
        ("model.diffusion_model.input_blocks.0.0.bias", (8,), "contains a checkpoint"),
        ("base_model.model.conv_in.base_layer.bias", (8,), "has 1 biases, such as"),
        ("unet.mid_block.attentions.0.proj_in.lora_B.bias", (8,), "made without them (PEFT's bias and lora_bias)"),
        ("something.else.lora_A.weight", (2, 8), "a name that does not exist in SD 1.x or SD 2.x or SDXL"),
        ("lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight", (2, 8), "tensors that cannot be trained"),
        ("lora_unet_output_blocks_30_1_proj_in.lora_down.weight", (2, 8), "tensors that cannot be trained"),
        ("lora_unet_conv_in.w_norm", (8,), "'lora_unet_conv_in', with w_norm; choose a file of another type"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_the_option(
    option: str, key: str, shape: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, {key: torch.zeros(shape)})
    (problem,) = weights_problems(
        config(**{option: path if option == "network_weights" else [path]}), DetectedModel(SD1, "a test")
    )
    assert problem.startswith(TOLD[option]) and said in problem and "choose" in problem and path in problem


def test_another_family_is_refused_by_widths_with_both_names(tmp_path: Path) -> None:
    name = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    cross = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    both = {f"{name}.lora_down.weight": torch.zeros(2, 768), f"{name}.lora_up.weight": torch.zeros(8, 2)}
    one = {**both, f"{cross}.lora_down.weight": torch.zeros(2, 768), f"{cross}.lora_up.weight": torch.zeros(8, 2)}
    for option in TOLD:
        given = {label: (path if option == "network_weights" else [path]) for label, path in
                 (("both", saved(tmp_path, both, "both")), ("one", saved(tmp_path, one, "one")))}  # fmt: skip
        flat = {"dim_from_weights": True}
        for family in (SD1, SDXL):
            assert weights_problems(config(**{option: given["both"]}, **flat), DetectedModel(family, "a test")) == []
        (problem,) = weights_problems(config(**{option: given["one"]}, **flat), DetectedModel(SDXL, "a test"))
        assert problem.startswith(TOLD[option]) and "is a LoRA of SD 1.x, but the model is SDXL" in problem
        (problem,) = weights_problems(config(**{option: given["both"]}, **flat), DetectedModel(SD2, "a test"))
        assert "is a LoRA of SD 1.x or SDXL, but the model is SD 2.x" in problem


def test_what_does_not_fit_is_told_before_the_model_is_taken(
    photos: Path, tmp_path: Path, mini_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that the model lacks, and one of other sides: both files at once, each with its option."""
    host = shared_host(mini_checkpoint, tmp_path / "out")
    monkeypatch.setattr(host, "borrow_model", lambda: pytest.fail("the model was taken"))
    name = "lora_te_text_model_encoder_layers_{}_mlp_fc1"
    deep = {f"{name.format(9)}.lora_down.weight": torch.zeros(2, 64), f"{name.format(9)}.lora_up.weight": torch.zeros(256, 2)}
    wide = {f"{name.format(0)}.lora_down.weight": torch.zeros(2, 65), f"{name.format(0)}.lora_up.weight": torch.zeros(256, 2)}
    flat = {
        "network_weights": saved(tmp_path, deep, "deep"),
        "base_weights": [saved(tmp_path, wide, "wide")],
        "dim_from_weights": True,
    }
    with pytest.raises(ConfigError) as caught:
        look(small_config(photos, tmp_path / "out", **flat, text_encoder_lr=1e-5), host).checked()
    first, second = caught.value.problems
    assert first.startswith(TOLD["network_weights"]) and "1 layers of the LoRA do not exist" in first and "deep" in first
    assert second.startswith(TOLD["base_weights"]) and "mlp_fc1' does not fit" in second and "wide" in second


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("option", ["network_weights", "base_weights"])
@pytest.mark.parametrize("case", sorted(path.name for path in CASES.glob("lora-*") if (path / "lora.safetensors").exists()))
def test_cases_that_were_met(case: str, option: str, tiny: Path, mini_sdxl: Path, photos: Path, tmp_path: Path) -> None:
    """Files of other programs for the tiny checkpoint and SDXL's miniature: all are read, but for a DoRA over rows and one with NaN."""
    path = str(CASES / case / "lora.safetensors")
    host = shared_host(mini_sdxl if "sdxl" in case else tiny, tmp_path / "out")
    flat = {"network_weights": path, "dim_from_weights": True} if option == "network_weights" else {"base_weights": [path]}
    settings = small_config(photos, tmp_path / "out", **flat, text_encoder_lr=1e-5)
    if case in ("lora-dora-rows-merged", "lora-nan"):
        with pytest.raises(ConfigError, match="dora with magnitudes per output" if "dora" in case else "not finite") as caught:
            look(settings, host).checked()
        assert len(caught.value.problems) == 1 and caught.value.problems[0].startswith(TOLD[option])
        return
    look(settings, host).checked()
    base = host.look()
    pairs = initial_adapters(settings, base) if option == "network_weights" else merged_adapters(settings, base)
    assert len(pairs) == len(by_layer(load_file(path))) == describe(Path(path))["modules"]
