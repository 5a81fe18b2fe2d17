"""Names, and rules over several options."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from lib_lora.config.groups import build_config
from lib_lora.config.names import name_problem, next_free
from lib_lora.config.rules import MODEL_RULES, RULES, config_notes, config_problems, taken_problems
from lib_lora.errors import ConfigError

GOOD = {"name": "my_cat"}


def problems(out: Path | None = None, **flat: object) -> list[str]:
    config = build_config({**GOOD, **flat})
    return [*config_problems(config), *(taken_problems(config, out) if out else [])]


def test_defaults_with_a_name_are_fine(tmp_path: Path) -> None:
    assert problems(tmp_path) == []


CASES: list[tuple[dict[str, object], str]] = [
    ({"unet_lr": 0, "text_encoder_lr": 0}, "unet_lr"),
    ({"lr_warmup_steps": 5}, "lr_warmup_steps"),
    ({"caption_extension": "txt"}, "caption_extension"),
    ({"caption_separator": "", "shuffle_caption": True}, "caption_separator"),
    ({"min_timestep": 500, "max_timestep": 500}, "min_timestep"),
    ({"scale_v_pred_loss_like_noise_pred": True}, "scale_v_pred_loss_like_noise_pred"),
    ({"v_pred_like_loss": 0.1, "v_parameterization": True}, "v_pred_like_loss"),
    ({"optimizer": "AdamW8bit"}, "bitsandbytes==0.45.5"),
    ({"optimizer": "no_such.Thing"}, "package no_such"),
    ({"optimizer": ""}, "optimizer"),
    ({"lr_scheduler_type": "no_such.Thing"}, "lr_scheduler_type"),
    ({"optimizer_args": ["weight_decay"]}, "optimizer_args"),
    ({"lr_scheduler_args": ["x"], "lr_scheduler_type": "StepLR"}, "lr_scheduler_args"),
    ({"lr_scheduler_args": ["num_cycles=1"], "lr_scheduler": "cosine"}, "takes none"),
    ({"lr_warmup_steps": 5, "lr_scheduler": "cosine", "lr_scheduler_type": "StepLR"}, "lr_warmup_steps"),
    ({"lr_warmup_steps": 2.5, "lr_scheduler": "cosine"}, "lr_warmup_steps"),
    ({"lr_decay_steps": 2.5, "lr_scheduler": "warmup_stable_decay"}, "lr_decay_steps"),
    ({"optimizer": "AdaFactor"}, "lr_scheduler"),
    ({"lr_scheduler": "adafactor"}, "lr_scheduler"),
    ({"full_fp16": True, "optimizer": "SGDNesterov"}, "mixed_precision"),
    ({"full_fp16": True, "mixed_precision": "fp16"}, "squared gradients"),
    ({"full_bf16": True, "mixed_precision": "fp16"}, "full_bf16"),
    ({"stop_text_encoder_training": 5, "unet_lr": 0}, "stop_text_encoder_training"),
    ({"stop_text_encoder_training": 1.5}, "stop_text_encoder_training"),
    ({"stop_embedding_training": 1.5, "embedding_vectors": 1, "trigger": "ohwx"}, "stop_embedding_training"),
    ({"sample_prompts": "# no prompt", "sample_at_first": True}, "sample_prompts"),
]


@pytest.mark.parametrize(("flat", "option"), CASES)
def test_each_rule_speaks(flat: dict[str, object], option: str) -> None:
    found = problems(**flat)
    assert len(found) == 1 and option in found[0] and found[0].endswith(".")


def test_the_cases_above_cover_every_rule() -> None:
    own = "lib_lora.config.rules"  # the other rooms have tests of their own
    rates = {"optimizer": "Prodigy", "unet_lr": 1, "text_encoder_lr": 0.5}  # has a test of its own below
    fired = {
        rule
        for flat in [*(flat for flat, _ in CASES), rates]
        for rule in (*RULES, *MODEL_RULES)
        if rule(build_config({**GOOD, **flat}))
    }
    assert [rule.__name__ for rule in (*RULES, *MODEL_RULES) if rule.__module__ == own and rule not in fired] == []


@pytest.mark.skipif(torch.__version__.startswith("2.1."), reason="it has no Adam in fp16 on a CPU")
@pytest.mark.parametrize("eps", ["1e-8", "1e-6"])
def test_adam_in_fp16_is_refused_with_any_eps(eps: str) -> None:
    """The square of a gradient of 1e-3 is lost, and the step is infinite or 1000 times as long as the rate wants."""
    weight = torch.nn.Parameter(torch.full((4,), 0.01, dtype=torch.float16))
    optimizer = torch.optim.AdamW([weight], lr=1e-3, eps=float(eps))
    weight.grad = torch.full((4,), 1e-3, dtype=torch.float16)
    optimizer.step()
    assert not bool(((weight - 0.01).abs() < 0.1).any())  # the rate is 1e-3
    assert len(problems(full_fp16=True, mixed_precision="fp16", optimizer_args=(f"eps={eps}",))) == 1
    assert problems(full_fp16=True, mixed_precision="fp16", optimizer="Lion") == []


@pytest.mark.parametrize(
    ("flat", "option"),
    [
        ({"caption_separator": ""}, "caption_separator"),
        ({"lr_decay_steps": 2.5}, "lr_decay_steps"),
        ({"lr_scheduler": "piecewise_constant", "lr_warmup_steps": 2.5}, "lr_warmup_steps"),
        ({"stop_text_encoder_training": 1.5, "text_encoder_lr": 0}, "stop_text_encoder_training"),
        ({"init_word": "cat"}, "init_word"),
        ({"stop_embedding_training": 1.5}, "stop_embedding_training"),
        ({"huber_c": 0}, "huber_c"),
        ({"token_warmup_min": 0}, "token_warmup_min"),
        ({"max_validation_steps": -1}, "max_validation_steps"),
    ],
)
def test_what_nothing_reads_is_told_and_refuses_nothing(flat: dict[str, object], option: str) -> None:
    assert problems(**flat) == []
    assert [f"({option}): no effect, because " in note for note in config_notes(build_config(flat))] == [True]


def test_a_number_out_of_bounds_is_refused_where_it_is_read() -> None:
    with pytest.raises(ConfigError, match="huber_c.*must be a number from 0.0001 to 1"):
        build_config({"huber_c": 0, "loss_type": "huber"})
    assert build_config({"huber_c": 0}).objective.huber_c == 0


def test_bucket_rules_are_silent_without_buckets() -> None:
    assert problems(resolution=128, bucket_reso_steps=12, enable_bucket=False) == []


def test_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "my_cat.safetensors").touch()
    found = problems(tmp_path, resolution=500, lr_warmup_steps=5)
    assert len(found) == 3 and "'my_cat-2'" in found[2]


@pytest.mark.parametrize("name", ["my_cat", "Zoë v2.1", "猫", "a-b (c)+d", "x" * 100])
def test_good_names(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "  ", "../x", "a/b", "C:\\x", "/etc/x", "NUL", "con.txt", ".", "..", ".hidden", "x.", "x ", "{x}", "Addams", "none",
     "a\nb", "a:b", "a<b", "é" * 51, "\u202egnp", "cat, dog", "a\x00"],
)  # fmt: skip
@pytest.mark.case(48)
def test_bad_names(name: str) -> None:
    found = name_problem(name)
    assert found is not None and found.startswith("Name (name):") and found.endswith(".")


@pytest.mark.case(66)
def test_taken_names_ignore_case_and_look_below(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "My_Cat.safetensors").touch()
    (tmp_path / "my_cat-2.pt").touch()
    assert problems(tmp_path) == ["Name (name): 'my_cat' is taken; use 'my_cat-3', or turn on Overwrite (overwrite)."]
    assert "'my_cat' is also the name of " in problems(tmp_path, overwrite=True)[0]
    (tmp_path / "your_cat.safetensors").touch()
    assert taken_problems(build_config({"name": "your_cat", "overwrite": True}), tmp_path) == []
    assert next_free("other", tmp_path) == "other-2"


def test_optimizers_of_missing_packages_are_told_with_all_their_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert "one learning rate for everything" in problems(optimizer="Prodigy", unet_lr=1, text_encoder_lr=0.5)[0]
    assert problems(optimizer="Prodigy", unet_lr=1, text_encoder_lr=1) == []
    assert problems(optimizer="Prodigy", unet_lr=1, text_encoder_lr=0) == []
    assert problems(optimizer="AdamWScheduleFree", lr_scheduler="cosine", lr_warmup_steps=5, lr_scheduler_args=["x"]) == []
    assert problems(optimizer="AdaFactor", optimizer_args=["relative_step=False"]) == []
    assert problems(optimizer="AdaFactor", lr_scheduler="adafactor") == []


@pytest.mark.parametrize("name", ["a1²3", "m²", "①", "x₂"])
def test_digits_that_the_webui_cannot_sort(name: str) -> None:
    """Its `natural_sort_key` takes `int` of whatever `isdigit`."""
    with pytest.raises(ValueError, match="invalid literal"):
        [int(part) for part in re.split("([0-9]+)", name) for part in part if part.isdigit()]
    assert "superscript, subscript or circled digits" in str(name_problem(name))


@pytest.mark.parametrize("name", ["١٢3", "a1٢3"])
def test_digits_that_the_webui_compares_with_letters(name: str) -> None:
    def key(text: str) -> list[int | str]:
        return [int(part) if part.isdigit() else part for part in re.split("([0-9]+)", f"{text}.safetensors")]

    with pytest.raises(TypeError):
        sorted(["cat", "a1b2", name], key=key)
    assert "digits of another script" in str(name_problem(name))
    assert name_problem("١٢") is None and name_problem("cat ١٢") is None and sorted(["cat", "١٢"], key=key)
