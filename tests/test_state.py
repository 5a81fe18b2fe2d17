"""States on disk: nested values and tensors written and read, whole or not at all; the best LoRA so far."""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib_lora.files import atomic
from lib_lora.files.plain_values import StateError, Tensors, from_plain, to_plain
from lib_lora.files.state_file import TENSORS, VALUES, read_tensors, read_values, remove_state, write_state
from lib_lora.training.best import BestSoFar


def there_and_back(value: Any) -> Any:
    tensors: Tensors = {}
    plain = json.loads(json.dumps(to_plain(value, tensors), allow_nan=False))
    return from_plain(plain, tensors)


def test_values_keep_their_kinds() -> None:
    value = {0: [1, 2.5, True, None, "x"], "t": (1, (2,)), (1, 2): {}, "inf": math.inf, "list": [], "tenth": 0.1, True: "yes"}
    assert there_and_back(value) == value and type(there_and_back(value)["t"]) is tuple
    assert math.isnan(there_and_back(math.nan)) and there_and_back(OrderedDict(a=1)) == {"a": 1}
    found = there_and_back({"flag": True, "one": 1})
    assert found["flag"] is True and found["one"] == 1 and type(found["one"]) is int


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_keep_every_bit(dtype: torch.dtype) -> None:
    values = (torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 50).to(dtype)
    back = there_and_back({"a": [values, values.t()], "scalar": values[0, 0]})
    assert back["a"][0].dtype == dtype and torch.equal(back["a"][0], values) and torch.equal(back["a"][1], values.t())
    assert back["scalar"].shape == () and torch.equal(back["scalar"], values[0, 0])


def test_functions_are_left_out_and_other_things_are_named() -> None:
    assert there_and_back({"lambda": lambda step: 1.0, "step": 3}) == {"step": 3}
    with pytest.raises(StateError, match=r"optimizer/state has the type set"):
        to_plain({"optimizer": {"state": {1, 2}}}, {}, "")
    for damaged in ({"tensor": "nowhere"}, {"tensor": [1]}, {"what": 1}, {"dict": [], "tuple": []}, {}, {"float": 10**400},
                    {"float": "1"}, {"dict": [1]}, {"dict": [[[1], 2]]}, {"dict": {"a": 1}}, {"tuple": "ab"}):  # fmt: skip
        with pytest.raises(StateError, match="is missing|has no meaning"):
            from_plain(damaged, {})


OPTIMIZERS = {
    "AdamW": {}, "Adam": {"amsgrad": True}, "SGD": {"momentum": 0.9, "nesterov": True}, "RMSprop": {"momentum": 0.5, "centered": True},
    "Adagrad": {}, "Adadelta": {}, "Adamax": {}, "NAdam": {}, "RAdam": {}, "ASGD": {}, "Rprop": {},
}  # fmt: skip


@pytest.mark.parametrize("name", [*OPTIMIZERS, "Lion", "Prodigy", "Adafactor", "AdafactorRelative"])
@pytest.mark.parametrize("schedule", ["LambdaLR", "StepLR", "CyclicLR", "SequentialLR"])
def test_an_optimizer_goes_on_bit_for_bit(name: str, schedule: str) -> None:
    def new() -> tuple[nn.Parameter, torch.optim.Optimizer, Any]:
        weight = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        optimizer = made(name, weight)
        return weight, optimizer, scheduled(schedule, optimizer)

    def steps(weight: nn.Parameter, optimizer: torch.optim.Optimizer, scheduler: Any, first: int, last: int) -> None:
        for step in range(first, last):
            weight.grad = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
            optimizer.step()
            scheduler.step()

    if schedule == "CyclicLR" and name in {"Adagrad", "Lion"}:
        pytest.skip("it cycles a momentum that they do not have")
    whole = new()
    steps(*whole, 0, 9)
    part = new()
    steps(*part, 0, 5)
    state = there_and_back({"weight": part[0], "optimizer": part[1].state_dict(), "schedule": part[2].state_dict()})
    again = new()
    with torch.no_grad():
        again[0].copy_(state["weight"])
    again[1].load_state_dict(state["optimizer"])
    again[2].load_state_dict(state["schedule"])
    steps(*again, 5, 9)
    assert torch.equal(again[0], whole[0]) and not torch.equal(part[0], whole[0])


def made(name: str, weight: nn.Parameter) -> torch.optim.Optimizer:
    if name in OPTIMIZERS:
        return getattr(torch.optim, name)([weight], lr=0.1, **OPTIMIZERS[name])
    if name == "Lion":
        return pytest.importorskip("lion_pytorch").Lion([weight], lr=0.1)
    if name == "Prodigy":
        return pytest.importorskip("prodigyopt").Prodigy([weight], lr=1.0)
    from transformers.optimization import Adafactor

    relative = name == "AdafactorRelative"
    return Adafactor([weight], lr=None if relative else 0.1, relative_step=relative)


def scheduled(name: str, optimizer: torch.optim.Optimizer) -> Any:
    kinds = torch.optim.lr_scheduler
    if name == "LambdaLR" or optimizer.param_groups[0]["lr"] is None:
        if optimizer.param_groups[0]["lr"] is None:
            from transformers.optimization import AdafactorSchedule

            return AdafactorSchedule(optimizer, 0.1)
        return kinds.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    if name == "StepLR":
        return kinds.StepLR(optimizer, 2, 0.5)
    if name == "CyclicLR":
        return kinds.CyclicLR(optimizer, 0.01, 0.1, 3, cycle_momentum=False)
    return kinds.SequentialLR(optimizer, [kinds.ConstantLR(optimizer, 0.1, 2), kinds.ExponentialLR(optimizer, 0.9)], [3])


def write(folder: Path, value: float = 1.0) -> None:
    tensors: Tensors = {}
    plain = to_plain({"a": torch.full((2, 3), value)}, tensors, "")
    write_state(folder, {"state": plain, "position": {"step": 3}}, tensors)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "cat" / "cat-000001-state"
    write(folder)
    write(folder, 2.0)  # replaced
    values = read_values(folder)
    assert values["position"] == {"step": 3}
    assert torch.equal(from_plain(values["state"], read_tensors(folder, values))["a"], torch.full((2, 3), 2.0))
    assert sorted(os.listdir(folder)) == [VALUES, TENSORS] and os.listdir(folder.parent) == [folder.name]
    assert not list(tmp_path.rglob("*.safetensors")), "the webui would list it as a LoRA"
    remove_state(folder)
    assert os.listdir(folder.parent) == []


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize("before", [True, False])
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, before: bool
) -> None:
    folder = tmp_path / "cat-state"
    if before:
        write(folder, 1.0)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*{"fsync": (atomic.os, "fsync"), "replace": (Path, "replace")}[broken], fail)
        with pytest.raises(StateError, match="No space left on device"):
            write(folder, 2.0)
    assert os.listdir(tmp_path) == ["cat-state"] * before
    if before:
        values = read_values(folder)
        assert float(read_tensors(folder, values)["/a"][0, 0]) == 1.0


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "cat-state"
    with pytest.raises(StateError, match=r"contains no state\.json"):
        read_values(folder)
    write(folder)
    values, text, content = read_values(folder), (folder / VALUES).read_text(), (folder / TENSORS).read_bytes()
    for damaged in (text[:-20], text.replace('"step": 3', '"step": 4'), "[]", "{}"):
        (folder / VALUES).write_text(damaged)
        with pytest.raises(StateError, match=r"Resume from \(resume\)"):
            read_values(folder)
    for other in (content[:-1], content[:-1] + b"\x01", b""):
        (folder / TENSORS).write_bytes(other)
        with pytest.raises(StateError, match="is damaged; choose an older state"):
            read_tensors(folder, values)
    (folder / TENSORS).unlink()
    with pytest.raises(StateError, match=r"lacks its state\.tensors"):
        read_tensors(folder, values)


def measured(*losses: float) -> BestSoFar:
    best = BestSoFar()
    for number, loss in enumerate(losses, 1):
        best.measured(number * 10, loss, lambda number=number: {"a": torch.tensor(float(number))})
    return best


def test_the_best_is_the_first_lowest() -> None:
    best = measured(3.0, 1.0, math.nan, 1.0, 2.0)
    assert (best.step, best.loss, float(best.adapters["a"]), best.worth_saving) == (20, 1.0, 2.0, True)
    assert not measured(3.0, 2.0).worth_saving and not measured().worth_saving and not measured(math.nan, math.inf).worth_saving


def test_the_best_is_part_of_a_state() -> None:
    best, again = measured(3.0, 1.0, 2.0), BestSoFar()
    again.load_state(there_and_back(best.state()))
    assert (again.step, again.loss, again.worth_saving) == (20, 1.0, True) and torch.equal(again.adapters["a"], torch.tensor(2.0))
    assert not again.measured(40, 1.0, dict) and again.measured(50, 0.5, dict)
    empty = BestSoFar()
    empty.load_state(there_and_back(BestSoFar().state()))
    assert empty.measured(10, 5.0, dict)
