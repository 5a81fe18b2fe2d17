"""Learning rate schedules against those that sd-scripts uses (transformers' and diffusers')."""

from __future__ import annotations

import importlib
from typing import Any, get_args

import pytest
import torch
from torch import nn

from lib_lora.config.keyword_arguments import parse_arguments
from lib_lora.config.optimizer import Scheduler
from lib_lora.config.settled import SettledOptimizer
from lib_lora.errors import ConfigError
from lib_lora.training.lr_schedules import in_steps, make_scheduler

STEPS, WARMUP, DECAY = 20, 3, 5
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "constant": ("get_constant_schedule", {}),
    "constant_with_warmup": ("get_constant_schedule_with_warmup", {"num_warmup_steps": WARMUP}),
    "linear": ("get_linear_schedule_with_warmup", {"num_warmup_steps": WARMUP, "num_training_steps": STEPS}),
    "cosine": ("get_cosine_schedule_with_warmup", {"num_warmup_steps": WARMUP, "num_training_steps": STEPS}),
    "cosine_with_restarts": ("get_cosine_with_hard_restarts_schedule_with_warmup",
                             {"num_warmup_steps": WARMUP, "num_training_steps": STEPS, "num_cycles": 2}),
    "polynomial": ("get_polynomial_decay_schedule_with_warmup",
                   {"num_warmup_steps": WARMUP, "num_training_steps": STEPS, "power": 2.0}),
    "cosine_with_min_lr": ("get_cosine_with_min_lr_schedule_with_warmup",
                           {"num_warmup_steps": WARMUP, "num_training_steps": STEPS, "num_cycles": 1.0, "min_lr_rate": 0.1}),
    "inverse_sqrt": ("get_inverse_sqrt_schedule", {"num_warmup_steps": WARMUP}),
    "warmup_stable_decay": ("get_wsd_schedule",
                            {"num_warmup_steps": WARMUP, "num_stable_steps": STEPS - WARMUP - DECAY, "num_decay_steps": DECAY,
                             "num_cycles": 1.0, "min_lr_ratio": 0.1}),
}  # fmt: skip


def rates(make: Any) -> list[float]:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=1e-3)
    schedule, found = make(optimizer), []
    for _ in range(STEPS):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return found


def ours(name: str, **changes: Any) -> list[float]:
    options: dict[str, Any] = {"lr_scheduler": name, "lr_warmup_steps": 0.0 if name == "constant" else float(WARMUP),
                               "lr_decay_steps": float(DECAY), "lr_scheduler_num_cycles": 2, "lr_scheduler_power": 2.0,
                               "lr_scheduler_min_lr_ratio": 0.1, "unet_lr": 1e-3, **changes}  # fmt: skip
    return rates(lambda optimizer: make_scheduler(SettledOptimizer(**options), optimizer, STEPS))


@pytest.mark.parametrize("name", CASES)
def test_schedules_equal_transformers(name: str) -> None:
    function, arguments = CASES[name]
    schedules = importlib.import_module("transformers.optimization")
    if not hasattr(schedules, function):
        pytest.skip("this transformers has no such schedule")
    theirs = rates(lambda optimizer: getattr(schedules, function)(optimizer, **arguments))
    assert ours(name) == pytest.approx(theirs, rel=1e-9, abs=1e-15)
    assert name == "constant" or len(set(theirs)) > 2


def test_every_schedule_is_held_against_another() -> None:
    assert set(get_args(Scheduler)) == {*CASES, "piecewise_constant", "adafactor"}


def test_piecewise_constant_equals_diffusers() -> None:
    schedules = pytest.importorskip("diffusers.optimization")
    rules = "1:4,0.1:9,0.01"
    theirs = rates(lambda optimizer: schedules.get_piecewise_constant_schedule(optimizer, rules))
    assert ours("piecewise_constant", lr_warmup_steps=0.0, lr_scheduler_args=(f"step_rules='{rules}'",)) == pytest.approx(theirs)
    assert len(set(theirs)) == 3
    with pytest.raises(ConfigError, match="needs step_rules"):
        ours("piecewise_constant", lr_warmup_steps=0.0, lr_scheduler_args=("step_rules=a:b",))


def test_timescale_of_inverse_sqrt() -> None:
    assert ours("inverse_sqrt", lr_scheduler_timescale=50)[10] == pytest.approx(1e-3 / ((10 - 3 + 50) / 50) ** 0.5)
    assert ours("inverse_sqrt", lr_warmup_steps=0.0)[10] == pytest.approx(1e-3 / (10010 / 10000) ** 0.5)


def test_warm_up_as_a_share_of_all_steps() -> None:
    assert ours("linear", lr_warmup_steps=0.25) == ours("linear", lr_warmup_steps=5.0) != ours("linear")
    assert [in_steps(value, 200) for value in (0, 0.1, 0.999, 1, 7)] == [0, 20, 199, 1, 7]


def test_any_class_of_torch() -> None:
    told = ours("constant", lr_scheduler_type="StepLR", lr_scheduler_args=("step_size=5", "gamma=0.5"))
    assert told == pytest.approx([1e-3 * 0.5 ** (step // 5) for step in range(STEPS)])
    full = ours("constant", lr_scheduler_type="torch.optim.lr_scheduler.StepLR", lr_scheduler_args=("step_size=5 gamma=0.5",))
    assert full == told


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NoSuch", "cannot be found"),
        ("no.such.Class", "cannot be found"),
        ("torch.nn.Linear", "is not a torch schedule"),
        ("StepLR", "does not take"),
    ],
)
def test_what_is_no_schedule_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ours("constant", lr_scheduler_type=name)


def test_a_schedule_free_optimizer_keeps_its_rate() -> None:
    config = SettledOptimizer(optimizer="AdamWScheduleFree", lr_scheduler="linear", unet_lr=1e-3)
    assert set(rates(lambda optimizer: make_scheduler(config, optimizer, STEPS))) == {1e-3}


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ((), {}),
        (("weight_decay=0.1",), {"weight_decay": 0.1}),
        (("weight_decay=0.1 betas=(0.9, 0.99)", "decouple=True"), {"weight_decay": 0.1, "betas": (0.9, 0.99), "decouple": True}),
        (("betas=0.9,0.999 eps=1e-8",), {"betas": (0.9, 0.999), "eps": 1e-8}),
        (("a=1, b=true, c=None",), {"a": 1, "b": True, "c": None}),
        (("decouple=True,weight_decay=0.01",), {"decouple": True, "weight_decay": 0.01}),
        (("mode=fast", "rules='1:10, 0.1'"), {"mode": "fast", "rules": "1:10, 0.1"}),
    ],
)
def test_arguments(texts: tuple[str, ...], wanted: dict[str, Any]) -> None:
    assert parse_arguments(texts) == wanted


@pytest.mark.parametrize("text", ["weight_decay", "=3", "a=1 b", "a=(1"])
def test_what_is_no_argument(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_arguments((text,))
