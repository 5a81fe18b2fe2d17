"""Rules of the LoRA's options, one sentence each."""

from __future__ import annotations

import pytest

from lib_lora.config.adapter_rules import MODEL_RULES, RULES
from lib_lora.config.groups import build_config
from lib_lora.config.rules import config_notes
from lib_lora.model.layer_settings import rank_and_alpha, rate_factor

LISTS = ",".join(["4"] * 25)
LISTS_XL = ",".join(["4"] * 23)
ENDS_XL = ",".join(["4", *["0"] * 21, "4"])  # which have no layers


def problems(**flat: object) -> list[str]:
    config = build_config(flat)
    return [problem for rule in (*MODEL_RULES, *RULES) if (problem := rule(config))]


@pytest.mark.parametrize(
    ("flat", "option"),
    [
        ({"block_dims": "4"}, "block_dims"),
        ({"block_alphas": "4", "block_dims": LISTS}, "block_alphas"),
        ({"conv_block_dims": "4", "block_dims": LISTS}, "conv_block_dims"),
        ({"conv_block_alphas": "4", "conv_block_dims": LISTS, "block_dims": LISTS}, "conv_block_alphas"),
        ({"down_lr_weight": "up"}, "down_lr_weight"),
        ({"mid_lr_weight": "half"}, "mid_lr_weight"),
        ({"up_lr_weight": "1;2"}, "up_lr_weight"),
        ({"block_dims": ",".join(["0"] * 25), "text_encoder_lr": 0}, "nothing would be trained"),
        ({"block_dims": ENDS_XL, "text_encoder_lr": 0}, "nothing would be trained"),
        ({"mid_lr_weight": "1,1,1,1"}, "mid_lr_weight"),
        (
            {"down_lr_weight": "zeros", "mid_lr_weight": "0,0,0", "up_lr_weight": "zeros", "text_encoder_lr": 0},
            "nothing would be trained",
        ),
        ({"dim_from_weights": True}, "network_weights"),
        ({"dim_from_weights": True, "network_weights": "a", "block_dims": LISTS}, "dim_from_weights"),
        ({"base_weights": ["a"], "base_weights_multiplier": ["strong"]}, "base_weights_multiplier"),
        ({"base_weights": ["a"], "base_weights_multiplier": ["nan"]}, "base_weights_multiplier"),
        ({"loraplus_lr_ratio": 4, "optimizer": "Prodigy"}, "loraplus_lr_ratio"),
        ({"train_layers": "attention", "conv_dim": 4}, "train_layers"),
        ({"train_layers": "cross-attention", "conv_block_dims": LISTS, "block_dims": LISTS}, "train_layers"),
        ({"adapter_type": "lokr", "loraplus_lr_ratio": 4}, "adapter_type"),
        ({"adapter_type": "dora", "base_weights": ["a"]}, "base_weights"),
        ({"adapter_type": "diag-oft", "base_weights": ["a"]}, "base_weights"),
        ({"adapter_type": "ia3", "conv_dim": 4}, "conv_dim"),
        ({"adapter_type": "glora", "block_dims": LISTS, "conv_block_dims": LISTS}, "conv_block_dims"),
        ({"adapter_type": "glora", "scale_weight_norms": 1}, "scale_weight_norms"),
        ({"adapter_type": "glora", "alpha": 8}, "alpha"),
        ({"adapter_type": "loha", "unit": 4}, "unit"),
        ({"unit": 16}, "unit"),
        ({"unit": 6}, "must divide"),
        ({"unit": 4, "conv_dim": 8}, "same rank"),
        ({"unit": 4, "block_dims": LISTS}, "same rank"),
        ({"adapter_type": "diag-oft", "rank": 1, "alpha": 1}, "got 1"),
        ({"adapter_type": "diag-oft", "rank": 320}, "got 320"),
        ({"adapter_type": "diag-oft", "block_dims": LISTS.replace("4", "1", 1)}, "got 1"),
        ({"adapter_type": "glora", "block_dims": LISTS, "block_alphas": LISTS}, "block_alphas"),
        ({"mid_lr_weight": "0.5", "optimizer": "AdaFactor", "lr_scheduler": "adafactor"}, "down_lr_weight"),
    ],
    ids=str,
)
def test_each_rule_speaks(flat: dict[str, object], option: str) -> None:
    found = problems(**flat)
    assert len(found) == 1 and option in found[0] and found[0].endswith(".")


@pytest.mark.parametrize(
    "flat",
    [{}, {"block_dims": LISTS, "block_alphas": LISTS}, {"down_lr_weight": "cosine", "block_alphas": LISTS}, {"loraplus_unet_lr_ratio": 4},
     {"dim_from_weights": True, "network_weights": "a"}, {"base_weights": ["a", "b"], "base_weights_multiplier": ["-0.5"]},
     {"block_dims": ",".join(["0"] * 25)}, {"mid_lr_weight": "0.5", "conv_block_dims": LISTS, "conv_block_alphas": LISTS},
     {"adapter_type": "lokr", "factor": 4, "full_matrix": True, "decompose_both": True, "base_weights": ["a"]},
     {"adapter_type": "diag-oft", "conv_dim": 4, "alpha": 8}, {"adapter_type": "ia3", "alpha": 1}, {"adapter_type": "glora"}, {"unit": 8},
     {"block_dims": LISTS_XL, "block_alphas": LISTS_XL, "mid_lr_weight": "1,1,1", "text_encoder_lr": 0},
     {"adapter_type": "dora", "loraplus_lr_ratio": 4}, {"train_layers": "attention", "conv_alpha": 4},
     {"block_dims": ",".join(["0"] * 25), "conv_dim": 4, "text_encoder_lr": 0}],
    ids=str,
)  # fmt: skip
def test_what_fits_is_not_refused(flat: dict[str, object]) -> None:
    assert problems(**flat) == []


@pytest.mark.parametrize(
    ("flat", "option"),
    [
        ({"block_alphas": "4"}, "block_alphas"),
        ({"conv_block_dims": "4"}, "conv_block_dims"),
        ({"conv_block_alphas": "x", "conv_dim": 4, "block_dims": LISTS}, "conv_block_alphas"),
        ({"block_lr_zero_threshold": 0.1}, "block_lr_zero_threshold"),
        ({"base_weights_multiplier": ["strong"]}, "base_weights_multiplier"),
        ({"factor": 4}, "factor"),
        ({"adapter_type": "loha", "full_matrix": True}, "full_matrix"),
        ({"adapter_type": "dora", "decompose_both": True}, "decompose_both"),
        ({"adapter_type": "diag-oft", "block_dims": LISTS, "block_alphas": "4"}, "block_alphas"),
        ({"conv_block_dims": LISTS, "train_layers": "attention"}, "conv_block_dims"),
        ({"adapter_type": "glora", "block_alphas": LISTS, "conv_block_dims": LISTS}, "conv_block_dims"),
        ({"loraplus_unet_lr_ratio": 4, "unet_lr": 0, "adapter_type": "lokr"}, "loraplus_unet_lr_ratio"),
    ],
    ids=str,
)
def test_what_the_lora_does_not_read_is_told_and_refuses_nothing(flat: dict[str, object], option: str) -> None:
    assert problems(**flat) == []
    assert any(f"({option})" in note and "no effect" in note for note in config_notes(build_config(flat)))
    assert layer_values(**flat) == layer_values(**{name: value for name, value in flat.items() if name != option})


def layer_values(**flat: object) -> list[object]:
    """What layers of every place are made with."""
    adapter = build_config(flat).adapter
    names = (
        "lora_unet_down_blocks_1_attentions_0_proj_in",
        "lora_unet_mid_block_resnets_0_conv1",
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
    )
    return [(rank_and_alpha(name, adapter), rate_factor(name, adapter)) for name in names]


def test_of_more_strengths_than_files_the_first_are_taken() -> None:
    assert problems(base_weights=["a"], base_weights_multiplier=["0.5", "strong"]) == []


def test_the_cases_above_cover_every_rule() -> None:
    assert len(RULES) + len(MODEL_RULES) == 19
