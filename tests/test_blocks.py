"""Blocks, parameter groups, LoRA+ and norms, against numbers of sd-scripts' own functions (networks/lora.py)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.blocks import SD, XL, block_alphas, block_ranks, conv_alphas, conv_ranks, rate_factors
from lib_lora.config.settled import SettledOptimizer
from lib_lora.errors import ConfigError
from lib_lora.model.adapter import LoraPair, delta_norm, limit_norms
from lib_lora.model.base import Part, Target
from lib_lora.model.layer_settings import block_index, rank_and_alpha
from lib_lora.training.optimizer import Updater, parameter_groups
from lib_lora.training.precision import Precision

ONES = [1.0] * 12
COSINE = [1.0, 0.989821, 0.959493, 0.909632, 0.841254, 0.75575, 0.654861, 0.540641, 0.415415, 0.281733, 0.142315, 0]
SINE = [0.25, 0.392315, 0.531733, 0.665415, 0.790641, 0.904861, 1.00575, 1.091254, 1.159632, 1.209493, 1.239821, 1.25]
LINEAR = [0, 0.090909, 0.181818, 0.272727, 0.363636, 0.454545, 0.545455, 0.636364, 0.727273, 0.818182, 0.909091, 1.0]
FALLING = [1.5, 1.409091, 1.318182, 1.227273, 1.136364, 1.045455, 0.954545, 0.863636, 0.772727, 0.681818, 0.590909, 0.5]


@pytest.mark.parametrize(
    ("options", "factors"),
    [  # from parse_block_lr_kwargs
        ({"down_lr_weight": "cosine"}, [*COSINE, 1.0, *ONES]),
        ({"up_lr_weight": "sine+.25"}, [*ONES, 1.0, *SINE]),
        ({"down_lr_weight": "linear", "mid_lr_weight": "0.5", "up_lr_weight": "reverse_linear+0.5"}, [*LINEAR, 0.5, *FALLING]),
        ({"down_lr_weight": "0,0,1,,0.5,0.3", "block_lr_zero_threshold": 0.4}, [0, 0, 1, 0, 0.5, 0, *[1.0] * 19]),
        ({"up_lr_weight": "zeros+.1"}, [*ONES, 1.0, *[0.1] * 12]),
        ({"mid_lr_weight": "0.1", "block_lr_zero_threshold": 0.1}, [*ONES, 0, *ONES]),
    ],
    ids=str,
)
def test_rate_factors(options: dict[str, Any], factors: list[float]) -> None:
    assert rate_factors(AdapterConfig(**options), SD) == pytest.approx(factors, abs=1e-6)


NINE = [1.0] * 9


@pytest.mark.parametrize(
    ("options", "factors"),
    [  # from parse_block_lr_kwargs of an SDXL: embeddings, 9 down, 3 in the middle, 9 up, the end
        ({"down_lr_weight": "cosine"}, [1, 0.980785, 0.92388, 0.83147, 0.707107, 0.55557, 0.382683, 0.19509, 0, *[1.0] * 12]),
        ({"up_lr_weight": "sine+.25"}, [*NINE, *[1.0] * 3, 0.25, 0.44509, 0.632683, 0.80557, 0.957107, 1.08147, 1.17388, 1.230785, 1.25]),
        ({"down_lr_weight": "linear", "mid_lr_weight": "0.5", "up_lr_weight": "reverse_linear+0.5"},
         [*[i / 8 for i in range(9)], 0.5, 1, 1, *[i / 8 + 0.5 for i in range(8, -1, -1)]]),
        ({"down_lr_weight": "0,0,1,,0.5,0.3", "block_lr_zero_threshold": 0.4}, [0, 0, 1, 0, 0.5, 0, *[1.0] * 15]),
        ({"mid_lr_weight": "0.1,,2", "block_lr_zero_threshold": 0.1}, [*NINE, 0, 0, 2, *NINE]),
    ],
    ids=str,
)  # fmt: skip
def test_rate_factors_of_sdxl(options: dict[str, Any], factors: list[float]) -> None:
    assert rate_factors(AdapterConfig(**options), XL) == pytest.approx([1.0, *factors, 1.0], abs=1e-6)


def test_no_factors_are_none() -> None:
    assert rate_factors(AdapterConfig(), SD) is None


@pytest.mark.parametrize(
    ("place", "index"),
    [("down_blocks_0_attentions_0", 1), ("down_blocks_0_attentions_1", 2), ("down_blocks_1_attentions_0", 4), ("down_blocks_2_attentions_1", 8),
     ("down_blocks_0_resnets_1", 2), ("down_blocks_2_downsamplers_0", 9), ("mid_block_resnets_1", 12), ("up_blocks_3_resnets_2", 24),
     ("up_blocks_0_upsamplers_0", 15), ("mid_block_attentions_0", 12), ("up_blocks_1_attentions_0", 16), ("up_blocks_2_attentions_2", 21), ("up_blocks_3_attentions_2", 24)],
)  # fmt: skip
def test_block_index(place: str, index: int) -> None:
    """From get_block_index."""
    assert block_index(f"lora_unet_{place}_transformer_blocks_0_attn1_to_q") == index


@pytest.mark.parametrize(
    ("place", "index"),
    [("input_blocks_1_0_in_layers_2", 2), ("input_blocks_3_0_op", 4), ("input_blocks_4_1_proj_in", 5), ("middle_block_0_in_layers_2", 10),
     ("input_blocks_8_1_transformer_blocks_3_attn1_to_q", 9), ("middle_block_1_proj_out", 11), ("middle_block_2_out_layers_3", 12),
     ("output_blocks_0_0_skip_connection", 13), ("output_blocks_2_2_conv", 15), ("output_blocks_5_1_transformer_blocks_0_ff_net_2", 18),
     ("output_blocks_8_0_in_layers_2", 21)],
)  # fmt: skip
def test_block_index_of_sdxl(place: str, index: int) -> None:
    """From get_block_index with is_sdxl."""
    assert block_index(f"lora_unet_{place}") == index


def test_ranks_and_factors_of_sdxls_blocks() -> None:
    dims = ",".join(str(i) for i in range(23))
    adapter = AdapterConfig(rank=7, alpha=3.0, block_dims=dims, mid_lr_weight="1,0", up_lr_weight="0.5,2")
    assert rank_and_alpha("lora_unet_input_blocks_4_1_proj_in", adapter) == (5, 3.0)
    assert rank_and_alpha("lora_unet_output_blocks_1_1_proj_in", adapter)[0] == 14
    assert rank_and_alpha("lora_unet_middle_block_1_proj_in", adapter)[0] == 0, "its factor is 0"
    assert rank_and_alpha("lora_te2_text_model_encoder_layers_0_mlp_fc1", adapter) == (7, 3.0)
    first, second = (pair(f"lora_unet_output_blocks_{i}_1_proj_in") for i in (0, 1))
    rates = {
        id(value): g["lr"] for g in parameter_groups([first, second], SettledOptimizer(**RATES), adapter) for value in g["params"]
    }
    assert (rates[id(first.down)], rates[id(second.up)]) == (5e-4, 2e-3)


def test_other_layers_have_no_block() -> None:
    assert block_index("lora_te_text_model_encoder_layers_0_mlp_fc1") is None
    assert block_index("lora_unet_conv_in") is None


def test_ranks_and_alphas() -> None:
    dims = ",".join(str(i) for i in range(25))
    alphas = ",".join(str(i / 2) for i in range(25))
    adapter = AdapterConfig(rank=7, alpha=3.0, block_dims=dims, block_alphas=alphas, mid_lr_weight="0")
    assert block_ranks(adapter, SD) == list(range(25)) and block_alphas(adapter, SD)[3] == 1.5
    assert rank_and_alpha("lora_unet_down_blocks_1_attentions_0_proj_in", adapter) == (4, 2.0)
    assert rank_and_alpha("lora_te_text_model_encoder_layers_0_mlp_fc1", adapter) == (7, 3.0)
    assert rank_and_alpha("lora_unet_mid_block_attentions_0_proj_in", adapter)[0] == 0, "its factor is 0"
    plain = AdapterConfig(rank=7, alpha=3.0)
    assert rank_and_alpha("lora_unet_mid_block_attentions_0_proj_in", plain) == (7, 3.0)
    zero = AdapterConfig(rank=7, alpha=3.0, block_dims=dims, block_alphas=",".join(["0"] * 25))
    assert rank_and_alpha("lora_unet_down_blocks_1_attentions_0_proj_in", zero) == (4, 4.0), "alpha 0 is the rank, as kohya's"


CONV, BESIDE, SAMPLER = (
    f"lora_unet_down_blocks_0_{n}" for n in ("resnets_0_conv2", "resnets_0_time_emb_proj", "downsamplers_0_conv")
)


def test_only_3x3_convolutions_have_the_rank_of_convolutions() -> None:
    """kohya: time_emb_proj and the 1×1 conv_shortcut come along with the ordinary rank."""
    off, on = AdapterConfig(rank=7, alpha=3.0), AdapterConfig(rank=7, alpha=3.0, conv_dim=2, conv_alpha=0)
    assert [rank_and_alpha(name, off)[0] for name in (CONV, BESIDE, SAMPLER)] == [0, 0, 0]
    assert [rank_and_alpha(name, on) for name in (CONV, BESIDE, SAMPLER)] == [(2, 2.0), (7, 3.0), (2, 2.0)], "alpha 0 is the rank"
    assert (
        rank_and_alpha("lora_unet_input_blocks_3_0_op", on)[0] == 2
        and rank_and_alpha("lora_unet_output_blocks_2_2_conv", on)[0] == 2
    )
    assert rank_and_alpha("lora_unet_input_blocks_4_0_skip_connection", on) == (7, 3.0)


def test_convolutions_per_block() -> None:
    ranks = ",".join(str(i) for i in range(25))
    adapter = AdapterConfig(rank=7, alpha=3.0, block_dims=",".join(["5"] * 25), conv_block_dims=ranks, conv_alpha=0.5)
    assert [rank_and_alpha(name, adapter) for name in (CONV, BESIDE, SAMPLER)] == [(1, 0.5), (5, 3.0), (3, 0.5)]
    halves = dataclasses.replace(adapter, conv_block_alphas=",".join(str(i / 2) for i in range(25)), down_lr_weight="1,1,0")
    assert [rank_and_alpha(name, halves) for name in (CONV, SAMPLER)] == [(1, 0.5), (3, 1.5)]
    assert rank_and_alpha("lora_unet_down_blocks_0_resnets_1_conv1", halves)[0] == 0, "its factor is 0"


@pytest.mark.parametrize(
    ("read", "options", "said"),
    [
        (block_ranks, {"block_dims": "4,4"}, "must be 25 .for SDXL 23. whole numbers"),
        (block_ranks, {"block_dims": ",".join(["2.5"] * 25)}, "must be 25 .for SDXL 23. whole numbers"),
        (block_ranks, {"block_dims": ",".join(["-1"] * 25)}, "must be 25 .for SDXL 23. whole numbers"),
        (block_ranks, {"block_dims": "four"}, "not a list of numbers"),
        (block_alphas, {"block_alphas": "1"}, "must be 25 .for SDXL 23. numbers"),
        (conv_ranks, {"conv_block_dims": "4,4"}, "must be 25 .for SDXL 23. whole numbers"),
        (conv_alphas, {"conv_block_alphas": "4,4"}, "must be 25 .for SDXL 23. numbers"),
        (block_alphas, {"block_alphas": "inf," * 24 + "1"}, "not finite"),
        (rate_factors, {"down_lr_weight": ",".join(["1"] * 13)}, "at most 12"),
        (rate_factors, {"down_lr_weight": "0.5"}, "one of cosine, sine, linear"),
        (rate_factors, {"up_lr_weight": "cosine+x"}, "not a list of numbers"),
        (rate_factors, {"up_lr_weight": "1,-1"}, "at least 0"),
        (rate_factors, {"up_lr_weight": "cosine+-1"}, "at least 0"),
        (rate_factors, {"mid_lr_weight": "1,2"}, "must be one number"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bad_values_are_one_sentence(read: Any, options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(AdapterConfig(**options), SD)
    assert len(caught.value.problems) == 1 and next(iter(options)) in caught.value.problems[0]


def pair(name: str, part: Part = "unet", value: float = 1.0) -> LoraPair:
    down, up = nn.Parameter(torch.full((2, 3), value)), nn.Parameter(torch.full((4, 2), value))
    return LoraPair(Target(name, nn.Linear(3, 4), part), down, up, 1.0)


TEXT = pair("lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder")
DOWN, MIDDLE = pair("lora_unet_down_blocks_0_attentions_0_proj_in"), pair("lora_unet_mid_block_attentions_0_proj_in")
RATES = {"unet_lr": 1e-3, "text_encoder_lr": 1e-4}


def rates_of(adapter: AdapterConfig, **more: float) -> dict[int, float]:
    """Parameter -> its rate."""
    groups = parameter_groups([TEXT, DOWN, MIDDLE], SettledOptimizer(**{**RATES, **more}), adapter)
    return {id(parameter): group["lr"] for group in groups for parameter in group["params"]}


def test_blocks_have_their_rates_and_what_has_none_is_left_out() -> None:
    rates = rates_of(AdapterConfig(down_lr_weight="0.5,0.5,1", mid_lr_weight="2"))
    assert rates[id(TEXT.down)] == 1e-4 and rates[id(MIDDLE.up)] == 2e-3 and rates[id(DOWN.down)] == 5e-4
    assert id(DOWN.down) not in rates_of(AdapterConfig(down_lr_weight="0,0"))
    assert id(TEXT.down) not in rates_of(AdapterConfig(), text_encoder_lr=0.0)


@pytest.mark.parametrize(
    ("options", "unet", "text"),
    [({"loraplus_lr_ratio": 4}, 4, 4), ({"loraplus_lr_ratio": 4, "loraplus_unet_lr_ratio": 8}, 8, 4), ({"loraplus_unet_lr_ratio": 8}, 8, 1),
     ({"loraplus_lr_ratio": 4, "loraplus_text_encoder_lr_ratio": 16}, 4, 16), ({"loraplus_text_encoder_lr_ratio": 16}, 1, 16)],
    ids=str,
)  # fmt: skip
def test_lora_plus_is_for_the_upper_matrices(options: dict[str, float], unet: float, text: float) -> None:
    for adapter, factor in ((AdapterConfig(), 1.0), (AdapterConfig(down_lr_weight="0.5,0.5"), 0.5)):
        rates = rates_of(adapter, **options)
        assert rates[id(DOWN.down)] == 1e-3 * factor and rates[id(DOWN.up)] == pytest.approx(1e-3 * factor * unet)
        assert rates[id(TEXT.down)] == 1e-4 and rates[id(TEXT.up)] == pytest.approx(1e-4 * text)


def test_what_wants_no_gradient_is_in_no_group() -> None:
    still = pair("lora_unet_up_blocks_1_attentions_0_proj_in")
    for half in (still.down, still.up):
        half.requires_grad_(False)
    groups = parameter_groups([DOWN, still], SettledOptimizer(**RATES), AdapterConfig())
    assert [id(parameter) for group in groups for parameter in group["params"]] == [id(DOWN.down), id(DOWN.up)]


def norm_pairs() -> list[LoraPair]:
    first = (torch.arange(6.0).reshape(2, 3) - 2, torch.arange(8.0).reshape(4, 2) / 4, 1.0)
    second = (torch.full((2, 3, 1, 1), 0.5), torch.full((3, 2, 1, 1), 0.25), 2.0)
    return [
        LoraPair(Target("x", nn.Identity(), "unet"), nn.Parameter(down), nn.Parameter(up), alpha)
        for down, up, alpha in (first, second)
    ]


def test_norms_are_those_of_sd_scripts() -> None:
    """From apply_max_norm_regularization(1.0): the first layer is shrunk to 1, the second (0.75) stays."""
    first, second = norm_pairs()
    assert float(delta_norm(second)) == pytest.approx(0.75)
    limit_norms([first, second], 1.0)
    assert first.down[0].tolist() == pytest.approx([-1.029381275177002, -0.514690637588501, 0.0], rel=1e-5)
    assert first.up[3].tolist() == pytest.approx([0.7720359563827515, 0.9007086157798767], rel=1e-5)
    assert float(delta_norm(first)) == pytest.approx(1.0)
    assert torch.equal(second.down, norm_pairs()[1].down) and torch.equal(second.up, norm_pairs()[1].up)


def test_a_norm_of_zero_is_no_harm() -> None:
    fresh = pair("x", value=0.0)
    limit_norms([fresh], 1.0)
    assert not fresh.down.any() and bool(torch.isfinite(fresh.up).all())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_updater_keeps_norms_small(ema: float) -> None:
    """After each step, and before the average takes it in."""
    trained, still = pair("a"), pair("b", value=5.0)
    for half in (still.down, still.up):
        half.requires_grad_(False)
    config = SettledOptimizer(unet_lr=0.5, ema_decay=ema)
    updater = Updater([trained, still], config, 5, Precision("no", torch.float32), AdapterConfig(scale_weight_norms=0.5))
    updater.accumulate(-(trained.down.sum() + trained.up.sum()))
    updater.update()
    assert float(delta_norm(trained)) == pytest.approx(0.5)
    assert float(still.down.mean()) == 5.0, "what is not trained stays as it is"
