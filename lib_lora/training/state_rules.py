"""Checks that a state is well-formed, whoever wrote it: names, types, shapes and numbers, all before it is used.

`training/state_fits.py` checks whether it fits the settings and the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from lib_lora.files.plain_values import StateError, Tensors, from_plain
from lib_lora.model.delta import adapter_type_of
from lib_lora.model.embeddings import BUNDLE
from lib_lora.model.tensor_rules import is_finite, layer_problem

_PRECISIONS = ("no", "fp16", "bf16")
_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
_MOST_STEPS = 2**53


def step_of(values: Mapping[str, Any]) -> int:
    """Number of updates before a state was written, from its `state.json`.

    Raises:
        StateError: the position is malformed.
    """
    position = _table(values.get("position"), "position", ("step",))
    return _whole(position["step"], "position/step", 1, _MOST_STEPS)


def checked_tree(values: Mapping[str, Any], tensors: Tensors) -> dict[str, Any]:
    """The nested state, from `state.json` and the tensors beside it.

    Raises:
        StateError: the state is malformed; names the first fault.
    """
    step = step_of(values)
    _whole(values["position"].get("epoch"), "position/epoch", 0, step)
    _whole(values.get("steps"), "steps", step, _MOST_STEPS)
    _table(values.get("configuration"), "configuration")
    _need(values.get("precision") in _PRECISIONS, f"precision must be one of {', '.join(_PRECISIONS)}")
    _need(values.get("model", 0) is None or isinstance(values.get("model"), str), "model must be a hash or null")
    _need(isinstance(values.get("data"), str), "data must be a hash")
    _need(isinstance(_table(values.get("versions"), "versions", ("torch",))["torch"], str), "versions/torch must be a text")
    tree = _table(from_plain(values.get("state"), tensors), "state", ("session", "best"))
    _check_places(values["state"], tensors)
    session = _table(tree["session"], "session", ("layers", "adapters", "updater"))
    _check_session(session)
    weights = [*session["adapters"], *session.get("vectors", [])]
    _check_updater(session["updater"], weights, step)
    _check_best(tree["best"], session, step)
    return tree


def layers_in(session: Mapping[str, Any]) -> dict[str, Tensors] | None:
    """Layer -> its tensors by the end of their key; None if the state has no `keys`."""
    if "keys" not in session:
        return None
    values = iter(session["adapters"])
    return {name: {key: next(values) for key in keys} for name, keys in zip(session["layers"], session["keys"])}


def _check_places(plain: Any, tensors: Tensors) -> None:
    named = sorted(_places(plain))
    twice = next((a for a, b in zip(named, named[1:]) if a == b), None)
    _need(twice is None, f"the tensor {twice!r} is used twice")
    surplus = sorted(tensors.keys() - set(named))
    _need(not surplus, f"{len(surplus)} tensors are not used, such as {surplus[:1]}")


def _places(plain: Any) -> Iterator[str]:
    """The names of the tensors in a tree."""
    if isinstance(plain, list):
        for item in plain:
            yield from _places(item)
    elif isinstance(plain, dict):
        ((kind, content),) = plain.items()
        if kind == "tensor":
            yield content
        elif kind in ("tuple", "dict"):
            yield from _places(content)


def _check_session(session: Mapping[str, Any]) -> None:
    layers, adapters = session["layers"], _tensors(session["adapters"], "adapters")
    _need(_are(layers, str) and len(set(layers)) == len(layers), "layers must be names, each once")
    _need(all(name.startswith(("lora_te", "lora_unet_")) for name in layers), "layers must be those of a LoRA")
    _need(len({value.dtype for value in adapters}) <= 1, "adapters must have one number format")
    vectors = _tensors(session.get("vectors", []), "vectors")
    _need(
        len({len(value) for value in vectors if value.dim() == 2}) <= 1 and len(vectors) <= 2, "vectors must be those of one word"
    )
    _need(all(value.dim() == 2 and value.dtype == torch.float32 for value in vectors), "vectors must be rows of fp32 numbers")
    if "keys" not in session:
        _need(len(adapters) >= len(layers), "adapters must be as many as layers at least")
        return
    keys = session["keys"]
    _need(isinstance(keys, list) and all(_are(ends, str) for ends in keys), "keys must be lists of names")
    _need(len(keys) == len(layers) and sum(map(len, keys)) == len(adapters), "layers, keys and adapters must go together")
    for name, found in (layers_in(session) or {}).items():
        _need(bool(adapter_type_of(found)), f"the layer {name!r} has an unknown type")
        words = layer_problem(found)[1]
        _need(not words, f"the layer {name!r} {words}")


def _check_updater(updater: Any, weights: Sequence[torch.Tensor], step: int) -> None:
    """Check optimizer, schedule, loss scaler and EMA, as far as possible without knowing their types."""
    _table(updater, "updater", ("optimizer", "scheduler", "scaler", "average"))
    optimizer = _table(updater["optimizer"], "optimizer", ("state", "param_groups"))
    groups = optimizer["param_groups"]
    _need(isinstance(groups, list) and bool(groups), "optimizer/param_groups must be a list")
    numbers: list[Any] = []
    for group in groups:
        own = _table(group, "optimizer/param_groups", ("params", "lr"))["params"]
        _need(isinstance(own, list), "optimizer/param_groups/params must be a list")
        numbers += own
        rate = group["lr"].item() if _is_scalar(group["lr"]) else group["lr"]
        _need(rate is None or (_is_number(rate) and rate >= 0), "optimizer/param_groups/lr must be a number, at least 0")
    _need(_are(numbers, int) and numbers == list(range(len(numbers))), "optimizer/param_groups/params must count up from 0")
    _need(len(numbers) <= len(weights), "optimizer/param_groups has more parameters than there are")
    for number, entry in _table(optimizer["state"], "optimizer/state").items():
        _need(type(number) is int and 0 <= number < len(numbers), f"optimizer/state has an entry {number!r}")
        _check_entry(number, _table(entry, f"optimizer/state/{number}"))
    scheduler = _table(updater["scheduler"], "scheduler")
    _whole(scheduler.get("last_epoch", 0), "scheduler/last_epoch", 0, step)
    scaler = _table(updater["scaler"], "scaler")
    if scaler:
        values = [_table(scaler, "scaler", _SCALER)[key] for key in _SCALER]
        _need(all(_is_number(value) and value > 0 for value in values[:-1]), "scaler must have numbers above 0")
        _whole(values[-1], "scaler/_growth_tracker", 0, _MOST_STEPS)
    if updater["average"] is not None:
        average = _table(updater["average"], "average", ("steps", "averages"))
        _whole(average["steps"], "average/steps", 0, step)
        _like(_tensors(average["averages"], "average/averages"), weights, "average/averages")


def _check_entry(number: int, entry: Mapping[Any, Any]) -> None:
    """Check the optimizer's state of one parameter. Infinities are allowed in fp16, which may overflow; NaN is not."""
    for key, value in entry.items():
        place = f"optimizer/state/{number}/{key}"
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            bad = torch.isnan(value) if value.dtype == torch.float16 else ~torch.isfinite(value.float())
            _need(not bool(bad.any()), f"{place} is not finite")
        if key == "step":
            count = value.item() if _is_scalar(value) else value
            _need(_is_number(count) and count >= 0, f"{place} must be a number of steps")


def _check_best(best: Any, session: Mapping[str, Any], step: int) -> None:
    """Check the best LoRA so far: none, or one of the same layers and shapes."""
    _table(best, "best", ("step", "loss", "last_step", "adapters"))
    last = _whole(best["last_step"], "best/last_step", 0, step)
    at, adapters = _whole(best["step"], "best/step", 0, last), _table(best["adapters"], "best/adapters")
    if at == 0:
        _need(best["loss"] is None and not adapters, "best/loss and best/adapters must be empty, as best/step is 0")
        return
    _need(_is_number(best["loss"]), "best/loss must be a number")
    _need(_are(list(adapters), str), "best/adapters must have names")
    _tensors(list(adapters.values()), "best/adapters")
    found: dict[str, Tensors] = {}
    for key, value in adapters.items():
        name, _, end = key.partition(".")
        found.setdefault(name, {})[end] = value
    words = found.pop(BUNDLE, {})
    _like(list(words.values()), session.get("vectors", []), "best/adapters of the word")
    _need(found.keys() == set(session["layers"]), "best/adapters must be of the same layers")
    for name, own in (layers_in(session) or {}).items():
        _need(
            bool(adapter_type_of(found[name])) and not layer_problem(found[name])[1],
            f"best/adapters of {name!r} are not an adapter",
        )
        kept = [value for key, value in found[name].items() if key not in ("alpha", "on_input")]
        _need(sorted(value.shape for value in kept) == sorted(value.shape for value in own.values()),
              f"best/adapters of {name!r} must have the shapes of the layer")  # fmt: skip


def _like(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], place: str) -> None:
    same = [value.shape for value in found] == [value.shape for value in wanted]
    _need(same and all(value.dtype == torch.float32 for value in found), f"{place} must have the weights' shapes, in fp32")


def _tensors(values: Any, place: str) -> list[torch.Tensor]:
    """`values` as a list of tensors that can be weights."""
    _need(_are(values, torch.Tensor), f"{place} must be tensors")
    for value in values:
        _need(value.is_floating_point(), f"{place} must be floating point, one is {str(value.dtype).removeprefix('torch.')}")
        _need(value.numel() > 0, f"{place} must not be empty")
    _need(is_finite({str(number): value for number, value in enumerate(values)}), f"{place} must be finite")
    return list(values)


def _table(value: Any, place: str, keys: Sequence[str] = ()) -> dict[Any, Any]:
    _need(isinstance(value, dict), f"{place} must be a table")
    lacking = [key for key in keys if key not in value]
    _need(not lacking, f"{place} lacks {', '.join(lacking)}")
    found: dict[Any, Any] = value
    return found


def _whole(value: Any, place: str, least: int, most: int) -> int:
    _need(type(value) is int and least <= value <= most, f"{place} must be a whole number from {least} to {most}")
    return int(value)


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2.0**1023 and math.isfinite(value)


def _need(condition: bool, words: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise StateError(words)
