"""Foreign or changed states with correct checksums: one sentence each, before the model is borrowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.errors import ConfigError
from lib_lora.files.plain_values import Tensors
from lib_lora.files.state_file import write_state
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.output.removal import clean_up
from lib_lora.plan import Plan
from lib_lora.run_control import RunControl
from lib_lora.settle import settle
from lib_lora.train import train
from lib_lora.training.resume import find_resumed
from tests.conftest import small_config, write_picture
from tests.states import MIDDLE, TEXT, UNET, Lender, as_written, planned, run_state, state_folder


@dataclass
class Written:
    """A state before it lies on the disk: `values` of state.json, the nested `tree`, and what is done to both once they are plain."""

    values: dict[str, Any]
    tree: dict[str, Any]
    late: list[Callable[[dict[str, Any], Tensors], Any]] = field(default_factory=list)

    @property
    def trainer(self) -> dict[str, Any]:
        return self.tree["session"]

    @property
    def best(self) -> dict[str, Any]:
        return self.tree["best"]

    @property
    def optimizer(self) -> dict[str, Any]:
        return self.trainer["updater"]["optimizer"]

    @property
    def group(self) -> dict[str, Any]:
        return self.optimizer["param_groups"][0]

    @property
    def schedule(self) -> dict[str, Any]:
        return self.trainer["updater"]["scheduler"]

    @property
    def moments(self) -> dict[str, Any]:
        return self.optimizer["state"][0]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states") / "photos"
    for number in range(2):
        write_picture(folder / "3_blob" / f"{number}.png", seed=number)
    return folder


def settings(pictures: Path, folder: Path, **flat: Any) -> TrainConfig:
    return small_config(pictures, folder, **{"steps": 9, "overwrite": True, "resume": "blob", **flat})


@pytest.fixture(scope="module")
def made(pictures: Path) -> tuple[Plan, Callable[[], Written]]:
    """A plan, and a function that returns a new state of its run."""
    config = settings(pictures, pictures.parent, ema_decay=0.9)
    plan = planned(config)
    return plan, lambda: Written(*run_state(config, plan))


def written(folder: Path, state: Written) -> Path:
    values, tensors = as_written(state.values, state.tree)
    for change in state.late:
        change(values, tensors)
    place = folder / ".train-lora" / "blob" / "blob-state"
    write_state(place, values, tensors)
    return place


def put(owner: dict[Any, Any] | list[Any], key: Any, value: Any) -> None:
    owner[key] = value


def resized(value: torch.Tensor) -> torch.Tensor:
    return torch.zeros(*value.shape[:-1], value.shape[-1] + 1)


def spoiled(value: torch.Tensor) -> torch.Tensor:
    return torch.full_like(value, math.nan)


NAN = float("nan")
VARIANTS: dict[str, tuple[Callable[[Written], Any], str]] = {
    # state.json
    "no position": (lambda s: s.values.pop("position"), "position must be a table"),
    "a position that is a list": (lambda s: put(s.values, "position", [2]), "position must be a table"),
    "a position without a step": (lambda s: put(s.values, "position", {"epoch": 0}), "position lacks step"),
    "an infinite step": (lambda s: put(s.values["position"], "step", math.inf), "position/step must be a whole number"),
    "a step of text": (lambda s: put(s.values["position"], "step", "2"), "position/step must be a whole number"),
    "a step that is true": (lambda s: put(s.values["position"], "step", True), "position/step must be a whole number"),
    "a step below 0": (lambda s: put(s.values["position"], "step", -3), "position/step must be a whole number from 1"),
    "half a step": (lambda s: put(s.values["position"], "step", 1.5), "position/step must be a whole number"),
    "an epoch behind the step": (lambda s: put(s.values["position"], "epoch", 7), "position/epoch must be a whole number from 0"),
    "a step behind the plan": (lambda s: (put(s.values["position"], "step", 99), put(s.values, "steps", 99)), "is at step 99 of 9"),
    "fewer steps than made": (lambda s: put(s.values, "steps", 1), "steps must be a whole number from 2"),
    "no number of steps": (lambda s: s.values.pop("steps"), "steps must be a whole number"),
    "no settings": (lambda s: s.values.pop("configuration"), "configuration must be a table"),
    "settings that are text": (lambda s: put(s.values, "configuration", "x"), "configuration must be a table"),
    "other settings": (lambda s: put(s.values["configuration"], "rank", 7), "Rank (rank) was 7, is 2"),
    "settings of another kind": (lambda s: put(s.values["configuration"], "rank", [{}]), "Rank (rank) was [{}], is 2"),
    "no images": (lambda s: s.values.pop("data"), "data must be a hash"),
    "other images": (lambda s: put(s.values, "data", "x"), "other images or captions"),
    "no model": (lambda s: s.values.pop("model"), "model must be a hash or null"),
    "a model that is a number": (lambda s: put(s.values, "model", 7), "model must be a hash or null"),
    "no precision": (lambda s: s.values.pop("precision"), "precision must be one of no, fp16, bf16"),
    "an unknown precision": (lambda s: put(s.values, "precision", ["no"]), "precision must be one of"),
    "a precision with a scaler": (lambda s: put(s.values, "precision", "fp16"), "loss scaler does not belong to fp16"),
    "no versions": (lambda s: s.values.pop("versions"), "versions must be a table"),
    "versions without torch": (lambda s: s.values["versions"].pop("torch"), "versions lacks torch"),
    # the tree on the disk
    "no tree": (lambda s: s.late.append(lambda values, _: values.pop("state")), "state must be a table"),
    "a tree that is a list": (lambda s: s.late.append(lambda values, _: put(values, "state", [1])), "state must be a table"),
    "a table with keys that cannot be": (
        lambda s: s.late.append(lambda values, _: put(values, "state", {"dict": [[[1], 2]]})), "has no meaning"),
    "a number that is none": (
        lambda s: s.late.append(lambda values, _: put(values, "state", {"float": 10**400})), "has no meaning"),
    "endless nesting": (lambda s: put(s.schedule, "x", deep(90)), "nested more than 64 levels deep"),
    "a tensor that is missing": (lambda s: s.late.append(lambda _, tensors: tensors.pop("/session/adapters/0")), "is missing"),
    "a tensor too many": (lambda s: s.late.append(lambda _, tensors: put(tensors, "more", torch.zeros(2))), "tensors are not used"),
    "a tensor twice": (lambda s: s.late.append(lambda values, _: put(adapters_of(values), 2, adapters_of(values)[0])), "used twice"),
    # the adapters
    "no session": (lambda s: s.tree.pop("session"), "state lacks session"),
    "a session that is a list": (lambda s: put(s.tree, "session", []), "session must be a table"),
    "no adapters": (lambda s: s.trainer.pop("adapters"), "session lacks adapters"),
    "adapters that are numbers": (lambda s: put(s.trainer, "adapters", [1, 2, 3]), "adapters must be tensors"),
    "an adapter too few": (lambda s: s.trainer["adapters"].pop(), "must go together"),
    "an adapter of whole numbers": (lambda s: put(s.trainer["adapters"], 0, torch.ones(2, 12, dtype=torch.int64)), "one is int64"),
    "an empty adapter": (lambda s: put(s.trainer["adapters"], 0, torch.zeros(0, 12)), "adapters must not be empty|is damaged (both buffer length"),
    "an adapter of NaN": (lambda s: put(s.trainer["adapters"], 1, spoiled(s.trainer["adapters"][1])), "adapters must be finite"),
    "two number formats": (lambda s: put(s.trainer["adapters"], 0, s.trainer["adapters"][0].half()), "must have one number format"),
    "all in half precision": (
        lambda s: put(s.trainer, "adapters", [v.half() for v in s.trainer["adapters"]]), "its LoRA is not in float32"),
    "halves of two ranks": (lambda s: put(s.trainer["adapters"], 0, torch.zeros(3, 12)), "factors with shapes that do not match"),
    "another rank": (lambda s: [put(s.trainer["adapters"], 0, torch.zeros(3, 12)), put(s.trainer["adapters"], 1, torch.zeros(20, 3)),
        put(average(s), 0, torch.zeros(3, 12)), put(average(s), 1, torch.zeros(20, 3)), no_best(s)], "another type or rank"),
    "layers of numbers": (lambda s: put(s.trainer, "layers", [1, 2, 3]), "layers must be names"),
    "a layer twice": (lambda s: put(s.trainer["layers"], 1, TEXT), "each once"),
    "layers of another program": (lambda s: put(s.trainer["layers"], 1, "unet.down"), "must be those of a LoRA"),
    "keys of no type": (lambda s: put(s.trainer["keys"], 0, ["a", "b"]), "has an unknown type"),
    "keys of another type": (lambda s: [put(s.trainer["keys"], 0, ["hada_w1_a", "hada_w1_b"])], "has an unknown type"),
    "keys that are numbers": (lambda s: put(s.trainer, "keys", 3), "keys must be lists of names"),
    "vectors of no word": (lambda s: put(s.trainer, "vectors", [torch.zeros(2, 4)]), "must have the weights' shapes"),
    "vectors that are text": (lambda s: put(s.trainer, "vectors", "x"), "vectors must be tensors"),
    # optimizer, schedule, scaler, average
    "no updater": (lambda s: s.trainer.pop("updater"), "session lacks updater"),
    "an updater that is text": (lambda s: put(s.trainer, "updater", "x"), "updater must be a table"),
    "no optimizer": (lambda s: s.trainer["updater"].pop("optimizer"), "updater lacks optimizer"),
    "groups that are a table": (lambda s: put(s.optimizer, "param_groups", {}), "param_groups must be a list"),
    "a group that is a list": (lambda s: put(s.optimizer, "param_groups", [[]]), "param_groups must be a table"),
    "a group too few": (lambda s: s.optimizer["param_groups"].pop(), "optimizer/state has an entry|other parameter groups"),
    "a parameter too many": (lambda s: s.group["params"].append(99), "must count up from 0"),
    "a group without a rate": (lambda s: s.group.pop("lr"), "param_groups lacks lr"),
    "a rate of NaN": (lambda s: put(s.group, "lr", NAN), "lr must be a number"),
    "a group without betas": (lambda s: s.group.pop("betas"), "betas ="),
    "betas above 1": (lambda s: put(s.group, "betas", (2.0, 2.0)), "betas = (2.0, 2.0) in group 0"),
    "betas that are text": (lambda s: put(s.group, "betas", "x"), "betas = x in group 0"),
    "another weight decay": (lambda s: put(s.group, "weight_decay", -5.0), "weight_decay = -5.0 in group 0"),
    "moments of another shape": (lambda s: put(s.moments, "exp_avg", resized(s.moments["exp_avg"])), "other values for parameter 0"),
    "moments that are missing": (lambda s: s.moments.pop("exp_avg_sq"), "other values for parameter 0"),
    "moments that are numbers": (lambda s: put(s.moments, "exp_avg", 1.0), "other values for parameter 0"),
    "moments of NaN": (lambda s: put(s.moments, "exp_avg", spoiled(s.moments["exp_avg"])), "exp_avg is not finite"),
    "a count below 0": (lambda s: put(s.moments, "step", torch.tensor(-5.0)), "step must be a number of steps"),
    "a count that is text": (lambda s: put(s.moments, "step", "x"), "step must be a number of steps"),
    "an entry of nobody": (lambda s: put(s.optimizer["state"], 77, {}), "has an entry 77"),
    "entries that are a list": (lambda s: put(s.optimizer, "state", [1]), "optimizer/state must be a table"),
    "no schedule": (lambda s: put(s.trainer["updater"], "scheduler", None), "scheduler must be a table"),
    "a schedule without a place": (lambda s: s.schedule.pop("last_epoch"), "schedule is not a LambdaLR"),
    "a schedule ahead of the run": (lambda s: put(s.schedule, "last_epoch", 50), "last_epoch must be a whole number from 0 to 2"),
    "a schedule's place of text": (lambda s: put(s.schedule, "last_epoch", "x"), "last_epoch must be a whole number"),
    "too few rates": (lambda s: s.schedule["base_lrs"].pop(), "schedule is not a LambdaLR"),
    "a method that is a number": (lambda s: put(s.schedule, "get_lr", 5), "schedule is not a LambdaLR"),
    "a scaler of text": (lambda s: put(s.trainer["updater"], "scaler", "x"), "scaler must be a table"),
    "a scaler without a scale": (lambda s: put(s.trainer["updater"], "scaler", {"growth_factor": 2.0}), "scaler lacks scale"),
    "a scaler of NaN": (lambda s: put(s.trainer["updater"], "scaler", scaler(scale=NAN)), "scaler must have numbers above 0"),
    "a scaler where none is": (lambda s: put(s.trainer["updater"], "scaler", scaler()), "loss scaler does not belong to no"),
    "no average": (lambda s: put(s.trainer["updater"], "average", None), "moving average does not match"),
    "an average of text": (lambda s: put(s.trainer["updater"], "average", "x"), "average must be a table"),
    "an average of other shapes": (lambda s: put(average(s), 0, torch.zeros(1)), "averages must have the weights' shapes"),
    "an average too few": (lambda s: average(s).pop(), "averages must have the weights' shapes"),
    "an average of NaN": (lambda s: put(average(s), 0, spoiled(average(s)[0])), "averages must be finite"),
    "an average of more steps": (lambda s: put(s.trainer["updater"]["average"], "steps", 9), "average/steps must be a whole number"),
    # the best so far
    "no best": (lambda s: s.tree.pop("best"), "state lacks best"),
    "a best without a loss": (lambda s: s.best.pop("loss"), "best lacks loss"),
    "a best with a loss of text": (lambda s: put(s.best, "loss", "x"), "best/loss must be a number"),
    "a best with a loss of NaN": (lambda s: put(s.best, "loss", NAN), "best/loss must be a number"),
    "a best of the future": (lambda s: put(s.best, "step", 5), "best/step must be a whole number from 0 to 1"),
    "a best of no step": (lambda s: put(s.best, "step", 0), "must be empty"),
    "a best that is a list": (lambda s: put(s.best, "adapters", []), "best/adapters must be a table"),
    "a best of numbers": (lambda s: put(s.best["adapters"], f"{UNET}.alpha", 3), "best/adapters must be tensors"),
    "a best of other layers": (lambda s: put(s.best["adapters"], "lora_unet_x.alpha", torch.ones(())), "of the same layers"),
    "a best of other shapes": (lambda s: [put(s.best["adapters"], f"{MIDDLE}.lora_{half}.weight", torch.ones(sides))
        for half, sides in (("down", (9, 12)), ("up", (20, 9)))], "must have the shapes of the layer"),
    "a best of NaN": (lambda s: put(s.best["adapters"], f"{UNET}.alpha", torch.tensor(NAN)), "best/adapters must be finite"),
}  # fmt: skip


def deep(depth: int) -> Any:
    return [] if depth == 0 else [deep(depth - 1)]


def adapters_of(values: dict[str, Any]) -> list[Any]:
    """The list of tensors in state.json."""
    return dict(dict(values["state"]["dict"])["session"]["dict"])["adapters"]


def average(state: Written) -> list[Any]:
    return state.trainer["updater"]["average"]["averages"]


def scaler(**changes: Any) -> dict[str, Any]:
    return {"scale": 2.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 9, "_growth_tracker": 0, **changes}


def no_best(state: Written) -> None:
    state.tree["best"] = {"step": 0, "loss": None, "last_step": 0, "adapters": {}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_state_of_somebody_else_is_told_before_the_model_is_taken(
    variant: str, pictures: Path, made: tuple[Plan, Callable[[], Written]], tmp_path: Path
) -> None:
    change, said = VARIANTS[variant]
    plan, new = made
    state, host = new(), Lender(tmp_path)
    change(state)
    folder = written(tmp_path, state)
    config = settings(pictures, tmp_path, ema_decay=0.9)
    with pytest.raises(ConfigError) as caught:
        list(train(config, host, RunControl()))
    told = str(caught.value)
    assert any(part in told for part in said.split("|")) and len(caught.value.problems) == 1, told
    assert told.startswith("Resume from (resume): ") and len(told) < 600 and host.borrowed == 0
    assert state_folder("blob", tmp_path / ".train-lora") == folder
    clean_up(tmp_path, folder.parent)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("deadbeef", "the state was trained on another checkpoint than 'sd15-mini.safetensors'; select that one."),
        (None, f"does not fit: The LoRA's layer {TEXT!r} does not fit the model's layer with "),
    ],
)
def test_a_state_of_another_model_is_told_before_the_model_is_taken(
    model: str | None, said: str, pictures: Path, made: tuple[Plan, Callable[[], Written]], tmp_path: Path, mini_checkpoint: Path
) -> None:
    """By its hash, and where that is not known by its layers."""
    pytest.importorskip("diffusers")
    state, host = made[1](), Lender(tmp_path, StandaloneHost(mini_checkpoint, tmp_path / "out").look())
    put(state.values, "model", model)
    written(tmp_path, state)
    with pytest.raises(ConfigError) as caught:
        list(train(settings(pictures, tmp_path, ema_decay=0.9), host, RunControl()))
    assert said in str(caught.value) and len(caught.value.problems) == 1 and host.borrowed == 0


def test_there_are_as_many_variants_as_were_met() -> None:
    assert len(VARIANTS) >= 52


RUNS: dict[str, dict[str, Any]] = {
    "AdamW": {}, "average": {"ema_decay": 0.9}, "a word": {"embedding_vectors": 2, "text_encoder_lr": 0},
    "LoRA+": {"loraplus_lr_ratio": 4}, "blocks": {"down_lr_weight": "linear"}, "text stops": {"stop_text_encoder_training": 1},
    **{kind: {"adapter_type": kind} for kind in ("dora", "loha", "lokr", "ia3", "diag-oft", "glora")},
    **{name: {"optimizer": name} for name in ("Lion", "SGDNesterov", "AdaFactor", "AdamWScheduleFree")},
    **{name: {"optimizer": name, "unet_lr": 1, "text_encoder_lr": 1} for name in ("Prodigy", "DAdaptAdam")},
    "relative steps": {"optimizer": "AdaFactor", "optimizer_args": ["relative_step=True"], "lr_scheduler": "adafactor"},
    **{name: {"optimizer": f"torch.optim.{name}"} for name in ("RMSprop", "NAdam", "Rprop")},
    **{name: {"lr_scheduler_type": name, "lr_scheduler_args": list(arguments)} for name, arguments in {
        "OneCycleLR": ("max_lr=0.1", "total_steps=20"), "MultiStepLR": ("milestones=[2,3]",), "CosineAnnealingWarmRestarts": ("T_0=3",),
    }.items()},
}  # fmt: skip


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", RUNS)
def test_a_state_of_ones_own_is_taken(name: str, steps: int, pictures: Path, tmp_path: Path) -> None:
    flat = RUNS[name]
    if not optimizer_spec(str(flat.get("optimizer", "AdamW"))).installed():
        pytest.skip("its package is not installed")
    config = settings(pictures, tmp_path, **flat)
    plan, host = planned(config), Lender(tmp_path)
    values, tree = run_state(config, plan, steps)
    written(tmp_path, Written(values, tree))
    found = find_resumed(settle(config, host.detected_model()), plan, host, host.look())
    assert found is not None and found.step == steps and host.borrowed == 0
    assert all(torch.equal(a, b) for a, b in zip(found.state["session"]["adapters"], tree["session"]["adapters"]))


def test_a_damaged_newer_state_is_passed_over(pictures: Path, made: tuple[Plan, Callable[[], Written]], tmp_path: Path) -> None:
    plan, new = made
    written(tmp_path, new())
    later = new()
    later.values["position"]["step"] = 5
    later.trainer["adapters"][0] = spoiled(later.trainer["adapters"][0])
    written(tmp_path, later).rename(tmp_path / ".train-lora" / "blob" / "blob-step00000005-state")
    written(tmp_path, new())
    found = find_resumed(settle(settings(pictures, tmp_path, ema_decay=0.9), None), plan, Lender(tmp_path), None)
    assert found is not None and found.step == 2
    assert found.told[0] == "The state 'blob-step00000005-state' is damaged; the run resumes from 'blob-state'."


def test_a_precision_that_is_asked_for_is_that_of_the_state(
    pictures: Path, made: tuple[Plan, Callable[[], Written]], tmp_path: Path
) -> None:
    plan, new = made
    state = new()
    config = settings(pictures, tmp_path, ema_decay=0.9, mixed_precision="no")
    state.values["precision"] = "bf16"
    state.values["configuration"] = build_config(config.to_flat()).to_flat()
    written(tmp_path, state)
    with pytest.raises(ConfigError, match="was trained in bf16, not in no"):
        find_resumed(settle(config, None), plan, Lender(tmp_path), None)
