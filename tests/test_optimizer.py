"""Parameter groups, optimizers and clipping, against torch's own AdamW, and doubles of what needs CUDA."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.optimizer_specs import OPTIMIZERS, optimizer_spec
from lib_lora.config.precision import PrecisionConfig
from lib_lora.config.settled import SettledOptimizer
from lib_lora.errors import ConfigError
from lib_lora.families.sd1 import SD1
from lib_lora.families.sdxl import SDXL
from lib_lora.model.adapter import LoraPair, parameters
from lib_lora.model.base import Part, Target
from lib_lora.model.checkpointing import Choice, choose_checkpointing
from lib_lora.training.optimizer import Updater, loss_scaler, make_optimizer, parameter_groups, settings_problem
from lib_lora.training.precision import Precision, choose_precision

FULL = Precision("no", torch.float32)


def train_once(updater: Updater, loss: torch.Tensor) -> None:
    updater.accumulate(loss)
    updater.update()


def pair(part: Part, value: float = 1.0) -> LoraPair:
    down, up = nn.Parameter(torch.full((2, 3), value)), nn.Parameter(torch.full((4, 2), value))
    return LoraPair(Target(f"lora_{part}", nn.Linear(3, 4), part), down, up, 1.0)


def test_groups_are_text_encoder_then_unet_with_their_rates() -> None:
    pairs = [pair("unet"), pair("text_encoder")]
    groups = parameter_groups(pairs, SettledOptimizer(unet_lr=2e-4, text_encoder_lr=3e-5), AdapterConfig())
    assert [group["lr"] for group in groups] == [3e-5, 2e-4]
    assert groups[0]["params"] == list(parameters(pairs[1:])) and groups[1]["params"] == list(parameters(pairs[:1]))


@pytest.mark.parametrize("norm", [0.0, 0.5])
def test_one_update_is_torchs_adamw_on_the_clipped_gradient(norm: float) -> None:
    ours, theirs = pair("unet"), pair("unet")
    config = SettledOptimizer(unet_lr=0.1, max_grad_norm=norm)
    updater = Updater([ours], config, 5, FULL)
    plain = torch.optim.AdamW(list(parameters([theirs])), lr=0.1)
    for factor in (3.0, -40.0):
        train_once(updater, factor * (ours.down.pow(2).sum() + ours.up.sum()))
        (factor * (theirs.down.pow(2).sum() + theirs.up.sum())).backward()
        if norm:
            nn.utils.clip_grad_norm_(list(parameters([theirs])), norm)
        plain.step()
        plain.zero_grad()
    assert torch.equal(ours.down, theirs.down) and torch.equal(ours.up, theirs.up)
    assert ours.down.grad is None


CUDA_GROUPS = [{"params": [SimpleNamespace(device=torch.device("cuda"))], "lr": 1e-4}]
NESTEROV = {"nesterov": True, "momentum": 0.9}


@pytest.mark.parametrize(
    ("name", "cls", "arguments"),
    [("AdamW8bit", "AdamW8bit", {}), ("adamw8BIT", "AdamW8bit", {}), ("PagedAdamW", "PagedAdamW", {}),
     ("PagedAdamW8bit", "PagedAdamW8bit", {}), ("PagedAdamW32bit", "PagedAdamW32bit", {}), ("Lion8bit", "Lion8bit", {}),
     ("PagedLion8bit", "PagedLion8bit", {}), ("SGDNesterov8bit", "SGD8bit", NESTEROV)],
)  # fmt: skip
def test_what_needs_cuda_gets_kohyas_class_and_arguments(
    name: str, cls: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package needs CUDA; what it would be called with is recorded."""
    calls: list[Any] = []
    double = ModuleType("bitsandbytes")
    double.optim = ModuleType("bitsandbytes.optim")
    setattr(double.optim, cls, lambda groups, **options: calls.append((groups, options)))
    monkeypatch.setitem(sys.modules, "bitsandbytes", double)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", double.optim)
    make_optimizer(SettledOptimizer(optimizer=name, unet_lr=1e-4, optimizer_args=("weight_decay=0.2",)), CUDA_GROUPS)
    assert calls == [(CUDA_GROUPS, {"lr": 1e-4, "weight_decay": 0.2, **arguments})]


def test_what_needs_cuda_is_one_sentence_on_a_cpu() -> None:
    config = SettledOptimizer(optimizer="AdamW8bit")
    with pytest.raises(ConfigError, match="works only on CUDA"):
        make_optimizer(config, parameter_groups([pair("unet")], config, AdapterConfig()))


def made(name: str, *arguments: str, **options: Any) -> torch.optim.Optimizer:
    config = SettledOptimizer(optimizer=name, optimizer_args=arguments, **options)
    return make_optimizer(config, parameter_groups([pair("unet")], config, AdapterConfig()))


def test_optimizers_of_torch_get_their_arguments() -> None:
    adamw = made("adamw", "weight_decay=0.1", "betas=(0.8, 0.95) eps=1e-6", unet_lr=3e-4)
    assert isinstance(adamw, torch.optim.AdamW)
    assert {key: adamw.defaults[key] for key in ("lr", "betas", "eps", "weight_decay")} == {
        "lr": 3e-4, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1,
    }  # fmt: skip
    sgd = made("SGDNesterov", "momentum=0.5")
    assert isinstance(sgd, torch.optim.SGD) and sgd.defaults["momentum"] == 0.5 and sgd.defaults["nesterov"]
    assert isinstance(made("RAdam"), torch.optim.RAdam) and isinstance(made("torch.optim.Adagrad"), torch.optim.Adagrad)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [("Nonsense", (), "cannot be found"), ("no.such.Thing", (), "cannot be found"), ("shutil.rmtree", (), "not a torch optimizer"),
     ("collections.OrderedDict", (), "is not a torch optimizer"), ("AdamW", ("warp=9",), "does not take these"), ("AdamW", ("eps=-1",), "does not take")],
)  # fmt: skip
def test_what_is_no_optimizer_is_one_sentence(name: str, arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        made(name, *arguments)


def test_adafactor_makes_its_own_rate() -> None:
    relative = made("AdaFactor", unet_lr=1e-3)
    assert relative.defaults["relative_step"] and all(group["lr"] is None for group in relative.param_groups)
    fixed = made("AdaFactor", "relative_step=False", "scale_parameter=False", unet_lr=1e-3)
    assert [group["lr"] for group in fixed.param_groups] == [1e-3]
    config = SettledOptimizer(optimizer="AdaFactor", lr_scheduler="adafactor", unet_lr=1e-3)
    updater = Updater([pair("unet")], config, 5, FULL)
    weight = updater.optimizer.param_groups[0]["params"][0]
    before = weight.detach().clone()
    train_once(updater, weight.sum())
    assert type(updater.scheduler).__name__ == "AdafactorSchedule"
    assert not torch.equal(weight, before) and updater.learning_rates()[0] >= 0


@pytest.mark.parametrize("name", [name for name, spec in OPTIMIZERS.items() if not spec.needs_cuda and spec.installed()])
def test_every_installed_optimizer_works(name: str) -> None:
    spec = OPTIMIZERS[name]
    schedule = "adafactor" if name == "AdaFactor" else "constant"
    rate = 1.0 if spec.one_rate else 0.05
    trained = pair("unet")
    updater = Updater([trained], SettledOptimizer(optimizer=name, unet_lr=rate, lr_scheduler=schedule), 30, FULL)

    def loss() -> torch.Tensor:
        return trained.down.square().mean() + trained.up.square().mean()

    before, start = float(loss().detach()), trained.down.detach().clone()
    for _ in range(30):
        train_once(updater, loss())
    with updater.kept_weights():
        assert bool(torch.isfinite(trained.down).all()) and not torch.equal(trained.down, start)
        if not name.startswith("DAdapt"):  # they overshoot on so simple a loss before they settle
            assert float(loss().detach()) < before


def test_schedule_free_weights_are_the_averaged_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A double that swaps weights between training and keeping, as the package does."""
    modes: list[str] = []

    class Double(torch.optim.SGD):
        def train(self) -> None:
            modes.append("train")

        def eval(self) -> None:
            modes.append("eval")

    package = ModuleType("schedulefree")
    package.AdamWScheduleFree = Double
    monkeypatch.setitem(sys.modules, "schedulefree", package)
    updater = Updater([pair("unet")], SettledOptimizer(optimizer="AdamWScheduleFree", unet_lr=0.1), 5, FULL)
    train_once(updater, updater.optimizer.param_groups[0]["params"][0].sum())
    assert modes == ["train"] and updater.learning_rates() == [0.1]
    with updater.kept_weights():
        assert modes == ["train", "eval"]
    assert modes == ["train", "eval", "train"]


def test_what_is_kept_can_be_looked_at_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A double whose way back is not exact, as the package's: a seventh times seven is not what it was."""

    class Double(torch.optim.SGD):
        def train(self) -> None:
            self._move(7.0)

        def eval(self) -> None:
            self._move(1 / 7)

        @torch.no_grad()
        def _move(self, factor: float) -> None:
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(factor)

    package = ModuleType("schedulefree")
    package.AdamWScheduleFree = Double
    monkeypatch.setitem(sys.modules, "schedulefree", package)
    mine = pair("unet")
    updater = Updater([mine], SettledOptimizer(optimizer="AdamWScheduleFree", unet_lr=0.1), 5, FULL)
    with torch.no_grad():
        mine.down.copy_(torch.rand(mine.down.shape, generator=torch.Generator().manual_seed(1)))
    trained = mine.down.detach().clone()
    with updater.kept_weights():
        assert torch.equal(mine.down, trained * (1 / 7))
    assert torch.equal(mine.down, trained) and not torch.equal(trained * (1 / 7) * 7.0, trained)
    plain = Updater([mine], SettledOptimizer(unet_lr=0.1), 5, FULL)
    with plain.kept_weights():
        assert torch.equal(mine.down, trained)


def test_a_loss_scaler_is_part_of_the_state() -> None:
    class Scaler:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        def state_dict(self) -> dict[str, float]:
            return {"scale": self.scale}

        def load_state_dict(self, state: dict[str, float]) -> None:
            self.scale = state["scale"]

    first, second = (Updater([pair("unet")], SettledOptimizer(unet_lr=0.1), 5, FULL) for _ in range(2))
    first._scaler, second._scaler = Scaler(512.0), Scaler(65536.0)
    second.load_state_dict(first.state_dict())
    assert second._scaler.scale == 512.0


def test_full_names_are_the_same_optimizers() -> None:
    assert optimizer_spec("schedulefree.AdamWScheduleFree") is OPTIMIZERS["AdamWScheduleFree"]
    assert optimizer_spec("prodigyopt.Prodigy").one_rate
    assert optimizer_spec("prodigyplus.ProdigyPlusScheduleFree").schedule_free
    assert not optimizer_spec("torch.optim.RAdam").schedule_free


@pytest.mark.parametrize(
    "options",
    [{"optimizer_args": ("weight_decy=0.1",)}, {"optimizer_args": ("fused=True foreach=True",)}, {"optimizer_args": ("betas=(0.9,)",)},
     {"optimizer": "SparseAdam"}, {"lr_scheduler_type": "ReduceLROnPlateau"}, {"lr_scheduler_type": ".x.Y"},
     {"lr_scheduler_type": "StepLR", "lr_scheduler_args": ("step_size=0",)},
     {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ("step_rules=abc",)}],
    ids=str,
)  # fmt: skip
def test_arguments_that_do_not_work_are_told_before_the_model_is_touched(options: dict[str, Any]) -> None:
    problem = settings_problem(SettledOptimizer(**options), torch.device("cpu"))
    assert problem is not None and problem.endswith(".")


def test_arguments_that_work() -> None:
    assert (
        settings_problem(SettledOptimizer(optimizer_args=("weight_decay=0.2",), lr_scheduler="cosine"), torch.device("cpu"))
        is None
    )
    assert settings_problem(SettledOptimizer(optimizer="AdaFactor", lr_scheduler="adafactor"), torch.device("cpu")) is None


def test_precision_of_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert (
        choose_precision(PrecisionConfig(), cpu).dtype == torch.float32
        and choose_precision(PrecisionConfig(mixed_precision="bf16"), cpu).dtype == torch.bfloat16
    )
    with pytest.raises(ConfigError, match="fp16, which a CPU does not support"):
        choose_precision(PrecisionConfig(mixed_precision="fp16"), cpu)
    assert choose_precision(PrecisionConfig(), cpu, torch.float16).name == "bf16"
    with pytest.raises(ConfigError, match="got no, but the model is loaded in float16"):
        choose_precision(PrecisionConfig(mixed_precision="no"), cpu, torch.float16)
    assert Precision("fp16", torch.float16).scales_loss and not FULL.scales_loss


@pytest.mark.parametrize(("bf16", "wanted"), [(True, "bf16"), (False, "fp16")])
def test_precision_of_a_gpu(bf16: bool, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8 if bf16 else 7, 5))
    assert choose_precision(PrecisionConfig(), torch.device("cuda")).name == wanted
    if not bf16:
        with pytest.raises(ConfigError, match="bf16, which this GPU does not support"):
            choose_precision(PrecisionConfig(mixed_precision="bf16"), torch.device("cuda"))


@pytest.mark.case(5)
def test_the_schedule_waits_while_the_scaler_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 on CUDA: the first updates overflow and are skipped until the scale fits; a double stands for the scaler."""
    scales = iter([65536.0, 32768.0, 32768.0, 32768.0])
    updater = Updater([pair("unet")], SettledOptimizer(unet_lr=0.1, lr_scheduler="linear"), 4, FULL)
    double = SimpleNamespace(scale=lambda loss: loss, unscale_=lambda _: None, step=lambda _: None, update=lambda: None,
                             get_scale=lambda: next(scales))  # fmt: skip
    monkeypatch.setattr(updater, "_scaler", double)
    weight = updater.optimizer.param_groups[0]["params"][0]
    train_once(updater, weight.sum())
    assert updater.learning_rates() == [0.1]
    train_once(updater, weight.sum())
    assert updater.learning_rates() == pytest.approx([0.075])


@pytest.mark.parametrize("together", [1, 3])
def test_accumulated_batches_are_one_step_on_their_mean(together: int) -> None:
    ours, theirs = pair("unet"), pair("unet")
    config = SettledOptimizer(unet_lr=0.1, max_grad_norm=0, gradient_accumulation_steps=together)
    updater = Updater([ours], config, 5, FULL)
    plain = torch.optim.SGD(list(parameters([theirs])), lr=0.1)
    updater.optimizer = torch.optim.SGD(list(parameters([ours])), lr=0.1)
    for factor in range(1, together + 1):
        updater.accumulate(factor * ours.down.pow(2).sum())
        (factor * theirs.down.pow(2).sum() / together).backward()
        assert torch.equal(ours.down, pair("unet").down)
    updater.update()
    plain.step()
    assert torch.equal(ours.down, theirs.down) and ours.down.grad is None


def test_a_batch_whose_loss_is_no_number_leaves_nothing_behind() -> None:
    ours = pair("unet")
    updater = Updater([ours], SettledOptimizer(gradient_accumulation_steps=2), 5, FULL)
    updater.accumulate(ours.down.sum())
    updater.drop_gradients()
    assert ours.down.grad is None


def test_the_moving_average_is_what_is_kept() -> None:
    """By hand: decays 2/11 and 3/12, then 0.3, on weights 1 → 0.9 → 0.8 → 0.7 (SGD, gradient 1)."""
    ours = pair("unet")
    updater = Updater([ours], SettledOptimizer(ema_decay=0.3, max_grad_norm=0), 5, FULL)
    updater.optimizer = torch.optim.SGD(list(parameters([ours])), lr=0.1)
    average = 1.0
    for decay, weight in ((2 / 11, 0.9), (3 / 12, 0.8), (0.3, 0.7)):
        train_once(updater, ours.down.sum())
        average = decay * average + (1 - decay) * weight
    with updater.kept_weights():
        assert torch.allclose(ours.down, torch.full((2, 3), average), atol=1e-6)
        assert torch.equal(ours.up, pair("unet").up)
    assert torch.allclose(ours.down, torch.full((2, 3), 0.7), atol=1e-6)


def test_full_fp16_lets_the_scaler_take_fp16_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class Double:
        def __init__(self, enabled: bool) -> None:
            self.enabled = enabled

        def _unscale_grads_(self, optimizer: object, inv_scale: object, found_inf: object, allow_fp16: bool) -> None:
            asked.append(allow_fp16)

    monkeypatch.setattr(torch.amp, "GradScaler", Double, raising=False)
    for half in (False, True):
        loss_scaler(enabled=True, half_weights=half)._unscale_grads_(None, None, None, False)
    assert asked == [False, True]


def test_full_bf16_holds_the_adapters_in_bf16() -> None:
    chosen = choose_precision(PrecisionConfig(mixed_precision="bf16", full_bf16=True), torch.device("cpu"))
    assert chosen.weights == torch.bfloat16
    assert choose_precision(PrecisionConfig(mixed_precision="bf16"), torch.device("cpu")).weights == torch.float32


def test_automatic_choices_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert (
        choose_precision(PrecisionConfig(), cpu).reason
        and not choose_precision(PrecisionConfig(mixed_precision="no"), cpu).reason
    )
    assert choose_checkpointing("on", cpu, SD1) == Choice(True) and choose_checkpointing("off", gpu, SD1) == Choice(False)
    assert not choose_checkpointing("auto", cpu, SD1).on
    for gigabytes, on in ((8, True), (24, False)):
        card = SimpleNamespace(total_memory=gigabytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, card=card: card)
        choice = choose_checkpointing("auto", gpu, SD1)
        assert choice.on is on and f"{gigabytes} GB" in choice.reason
        assert choose_checkpointing("auto", gpu, SDXL).on, "it is larger"


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("norm", [0.0, 1.0])
@pytest.mark.parametrize("precision", ["no", "bf16", "full_bf16", "fp16", "scaled fp16"])
def test_a_gradient_that_is_no_number_is_never_applied(precision: str, norm: float, together: int, bad: float) -> None:
    """One element of one of several batches; clipped or not, in every precision. The next good step is made."""
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "full_bf16": torch.bfloat16}.get(precision, torch.float16)
    weights = torch.bfloat16 if precision == "full_bf16" else torch.float32
    ours = pair("unet")
    for parameter in parameters([ours]):
        parameter.data = parameter.data.to(weights)
    config = SettledOptimizer(unet_lr=0.1, max_grad_norm=norm, gradient_accumulation_steps=together)
    updater = Updater([ours], config, 5, Precision(precision, dtype, weights))
    if precision == "scaled fp16":  # on a GPU alone; here the same class does on the CPU what it does there
        if not hasattr(torch.amp, "GradScaler"):
            pytest.skip("this torch scales losses on a GPU alone")
        updater._scaler, updater._scales_loss = torch.amp.GradScaler("cpu", enabled=True), True
    before = {key: value.detach().clone() for key, value in ours.named().items()}
    for number in range(together):
        updater.accumulate(ours.down.sum() + ours.up.sum())
        if number == 0:
            assert ours.up.grad is not None
            ours.up.grad[1, 1] = bad
    good = updater.update()
    assert good is updater._scales_loss, "the loss scaler tells nobody, and skips the step itself"
    assert all(torch.equal(value, before[key]) for key, value in ours.named().items()) and ours.up.grad is None
    for _ in range(together):
        updater.accumulate(ours.down.sum() + ours.up.sum())
    assert updater.update() and not torch.equal(ours.up, before["lora_up.weight"])
    assert all(bool(torch.isfinite(value).all()) for value in ours.named().values())


def test_finite_gradients_are_not_mistaken_for_others() -> None:
    """Their norm overflows where none of them does: without clipping nothing is asked of the norm."""
    ours = pair("unet")
    updater = Updater([ours], SettledOptimizer(unet_lr=0.1, max_grad_norm=0), 5, FULL)
    updater.accumulate(3e38 * ours.up.sum())
    assert updater.update() and not torch.equal(ours.up, pair("unet").up)
