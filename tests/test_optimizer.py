"""Groups, optimizer, schedules and clipping: against diffusers' schedules and torch's own AdamW."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lib_lora.config.groups import OptimizerConfig
from lib_lora.errors import ConfigError
from lib_lora.model.adapter import LoraPair, parameters
from lib_lora.model.base import Part, Target
from lib_lora.training.optimizer import Updater, make_optimizer, make_scheduler, parameter_groups
from lib_lora.training.precision import Precision, choose_precision

FULL = Precision("no", torch.float32)


def pair(part: Part, value: float = 1.0) -> LoraPair:
    down, up = nn.Parameter(torch.full((2, 3), value)), nn.Parameter(torch.full((4, 2), value))
    return LoraPair(Target(f"lora_{part}", nn.Linear(3, 4), part), down, up, 1.0)


def test_groups_are_text_encoder_then_unet_with_their_rates() -> None:
    pairs = [pair("unet"), pair("text_encoder")]
    groups = parameter_groups(pairs, OptimizerConfig(unet_lr=2e-4, text_encoder_lr=3e-5))
    assert [group["lr"] for group in groups] == [3e-5, 2e-4]
    assert groups[0]["params"] == list(parameters(pairs[1:])) and groups[1]["params"] == list(parameters(pairs[:1]))


@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"])
def test_schedules_are_those_that_sd_scripts_takes_from_diffusers(name: str) -> None:
    schedules = pytest.importorskip("diffusers.optimization")
    warmup = 0 if name == "constant" else 3
    config = OptimizerConfig(
        lr_scheduler=name, lr_warmup_steps=warmup, lr_scheduler_num_cycles=2, lr_scheduler_power=2.0, unet_lr=1e-3
    )

    def rates(make: Any) -> list[float]:
        optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=1e-3)
        schedule, found = make(optimizer), []
        for _ in range(20):
            found.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            schedule.step()
        return found

    theirs = rates(lambda optimizer: schedules.get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=20, num_cycles=2, power=2.0))  # fmt: skip
    ours = rates(lambda optimizer: make_scheduler(config, optimizer, 20))
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert name == "constant" or len(set(ours)) > 2


@pytest.mark.parametrize("norm", [0.0, 0.5])
def test_one_update_is_torchs_adamw_on_the_clipped_gradient(norm: float) -> None:
    ours, theirs = pair("unet"), pair("unet")
    config = OptimizerConfig(unet_lr=0.1, max_grad_norm=norm)
    updater = Updater([ours], config, 5, FULL)
    plain = torch.optim.AdamW(list(parameters([theirs])), lr=0.1)
    for factor in (3.0, -40.0):
        updater.update(factor * (ours.down.pow(2).sum() + ours.up.sum()))
        (factor * (theirs.down.pow(2).sum() + theirs.up.sum())).backward()
        if norm:
            nn.utils.clip_grad_norm_(list(parameters([theirs])), norm)
        plain.step()
        plain.zero_grad()
    assert torch.equal(ours.down, theirs.down) and torch.equal(ours.up, theirs.up)
    assert ours.down.grad is None


def test_eight_bit_adamw_gets_kohyas_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package needs CUDA; what it would be called with is recorded."""
    calls: list[tuple[Any, dict[str, Any]]] = []
    double = ModuleType("bitsandbytes")
    double.optim = SimpleNamespace(AdamW8bit=lambda groups, **options: calls.append((groups, options)))
    monkeypatch.setitem(sys.modules, "bitsandbytes", double)
    groups = [{"params": [SimpleNamespace(device=torch.device("cuda"))], "lr": 1e-4}]
    make_optimizer(OptimizerConfig(optimizer="AdamW8bit", unet_lr=1e-4), groups)
    assert calls == [(groups, {"lr": 1e-4})]


def test_eight_bit_adamw_on_a_cpu_is_one_sentence() -> None:
    config = OptimizerConfig(optimizer="AdamW8bit")
    with pytest.raises(ConfigError, match="works on CUDA only"):
        make_optimizer(config, parameter_groups([pair("unet")], config))


def test_precision_of_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == FULL and choose_precision("bf16", cpu).dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="fp16, which a CPU cannot compute in"):
        choose_precision("fp16", cpu)
    assert choose_precision("auto", cpu, torch.float16).name == "bf16"
    with pytest.raises(ConfigError, match="got no, but the model is held in float16"):
        choose_precision("no", cpu, torch.float16)
    assert Precision("fp16", torch.float16).scales_loss and not FULL.scales_loss


@pytest.mark.parametrize(("bf16", "wanted"), [(True, "bf16"), (False, "fp16")])
def test_precision_of_a_gpu(bf16: bool, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8 if bf16 else 7, 5))
    assert choose_precision("auto", torch.device("cuda")).name == wanted
    if not bf16:
        with pytest.raises(ConfigError, match="bf16, which this GPU does not have"):
            choose_precision("bf16", torch.device("cuda"))


def test_the_schedule_waits_while_the_scaler_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 on CUDA: the first updates overflow and are skipped until the scale fits; a double stands for the scaler."""
    scales = iter([65536.0, 32768.0, 32768.0, 32768.0])
    updater = Updater([pair("unet")], OptimizerConfig(unet_lr=0.1, lr_scheduler="linear"), 4, FULL)
    double = SimpleNamespace(scale=lambda loss: loss, unscale_=lambda _: None, step=lambda _: None, update=lambda: None,
                             get_scale=lambda: next(scales))  # fmt: skip
    monkeypatch.setattr(updater, "_scaler", double)
    weight = updater.optimizer.param_groups[0]["params"][0]
    updater.update(weight.sum())
    assert updater.learning_rates() == [0.1]
    updater.update(weight.sum())
    assert updater.learning_rates() == pytest.approx([0.075])
