"""Whether a well-formed state fits these settings (adapters, optimizer and schedule), and the model, which is only read.

The optimizer's state is compared with that of an optimizer like the run's, after a step on parameters of the same shapes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn

from lib_lora.config.optimizer_specs import OPTIMIZERS, optimizer_spec
from lib_lora.config.settled import Settled, SettledOptimizer
from lib_lora.errors import LoraFileError
from lib_lora.model.adapter import adapters_from_state
from lib_lora.model.adapter_types import Adapter, WeightAdapter
from lib_lora.model.base import BaseModel, Embedding, Target
from lib_lora.model.delta import adapter_type_of, rank_of
from lib_lora.model.layer_settings import rank_and_alpha
from lib_lora.model.targets import adaptable, further_targets
from lib_lora.training.continued_files import is_trained, part_of
from lib_lora.training.lr_schedules import make_scheduler
from lib_lora.training.optimizer import device_problem, embedding_groups, make_optimizer, parameter_groups
from lib_lora.training.state_rules import layers_in

Tree = Mapping[str, Any]
Groups = list[dict[str, Any]]

_WITHOUT_RANK = ("lokr", "diag-oft", "ia3", "glora")  # or whose rank depends on the layer's shape
_SCHEDULED = ("lr", "betas", "momentum")  # arguments of an optimizer that a schedule may change


def misfits(config: Settled, tree: Tree, precision: str, steps: int, device: torch.device) -> Iterator[str]:
    """Why the state does not fit these settings, in words.

    Args:
        config: with the learning rates of the model's family.
        tree: from `state_rules.checked_tree`.
        precision: of the state.
        steps: of the run.
        device: the run's.
    """
    session, updater = tree["session"], tree["session"]["updater"]
    wanted = config.embedding.embedding_vectors
    if [len(value) for value in session.get("vectors", [])] not in ([[], []] if not wanted else [[wanted], [wanted] * 2]):
        yield f"its embedding does not have the {wanted} vectors of these settings"
    half = torch.float16 if config.precision.full_fp16 else torch.bfloat16 if config.precision.full_bf16 else torch.float32
    if any(value.dtype != half for value in session["adapters"]):
        yield f"its LoRA is not in {str(half).removeprefix('torch.')}"
        return  # the optimizer may not support their dtype
    if config.precision.mixed_precision not in ("auto", precision):
        yield f"it was trained in {precision}, not in {config.precision.mixed_precision}"
    if bool(updater["scaler"]) != (precision == "fp16"):
        yield f"its loss scaler does not belong to {precision}"
    if (updater["average"] is None) != (config.optimizer.ema_decay == 0):
        yield "its moving average does not match EMA decay (ema_decay)"
    layers = layers_in(session)
    if layers is not None:
        odd = next((name for name, tensors in layers.items() if _is_odd(config, name, tensors)), None)
        if odd is not None:
            yield f"its layer {odd!r} has another type or rank than in these settings"
        else:
            yield from _of_the_optimizer(config, layers, session, steps, device)


def unplaced(tree: Tree, base: BaseModel | None) -> Iterator[str]:
    """Why the adapters do not fit the model, in words. `base` is only read; None if there is no model yet."""
    layers = layers_in(tree["session"])
    if base is None or layers is None:
        return
    state = {f"{name}.{key}": value for name, tensors in layers.items() for key, value in tensors.items()}
    try:
        adapters_from_state([*adaptable(base), *further_targets(base)], state, torch.device("meta"))
    except LoraFileError as error:
        yield str(error).rstrip(".")


def _is_odd(config: Settled, name: str, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether the settings give this layer another type or rank."""
    adapter = config.adapter
    if adapter_type_of(tensors) != adapter.adapter_type:
        return True
    trained = is_trained(config, name, part_of(name))
    if adapter.dim_from_weights or adapter.adapter_type in _WITHOUT_RANK or not trained:
        return False
    return rank_of(tensors) != rank_and_alpha(name, adapter)[0]


def _of_the_optimizer(
    config: Settled, layers: Mapping[str, Mapping[str, torch.Tensor]], session: Tree, steps: int, device: torch.device
) -> Iterator[str]:
    """Misfits of parameter groups, state per parameter, and schedule. For the user's own classes, only of groups."""
    if device_problem(config.optimizer, device):
        return
    adapters = [_stand_in(config, name, tensors) for name, tensors in layers.items()]
    vectors = tuple(nn.Parameter(value) for value in session.get("vectors", []))
    further = embedding_groups(Embedding("", vectors) if vectors else None, config.embedding)
    groups = [*parameter_groups(adapters, config.optimizer, config.adapter), *further]
    state = session["updater"]["optimizer"]
    if [len(group["params"]) for group in state["param_groups"]] != [len(group["params"]) for group in groups]:
        yield "its optimizer has other parameter groups than in these settings"
        return
    if optimizer_spec(config.optimizer.optimizer) not in OPTIMIZERS.values():
        return
    model = _Model(config.optimizer, groups, steps, device)
    yield from model.groups_unlike(state["param_groups"])
    shapes = [(number, tuple(value.shape)) for number, group in enumerate(groups) for value in group["params"]]
    for index, entry in state["state"].items():
        if not model.keeps(shapes[index], entry):
            yield f"its optimizer has other values for parameter {index} than {config.optimizer.optimizer} uses"
            return
    schedule = session["updater"]["scheduler"]
    if not model.schedule.keys() & {"last_epoch"} <= schedule.keys() or not _alike(
        schedule, model.schedule, type(model.scheduler)
    ):
        yield f"its schedule is not a {type(model.scheduler).__name__}"


def _stand_in(config: Settled, name: str, tensors: Mapping[str, torch.Tensor]) -> Adapter:
    part = part_of(name)
    learning = is_trained(config, name, part)
    own = {key: nn.Parameter(value, requires_grad=learning) for key, value in tensors.items()}
    return WeightAdapter(Target(name, nn.Identity(), part), own, 1.0)


class _Model:
    """An optimizer and a schedule like the run's, after a step on two parameters of every shape: zeros and ones."""

    def __init__(self, config: SettledOptimizer, groups: Groups, steps: int, device: torch.device) -> None:
        self._places: dict[tuple[int, tuple[int, ...]], list[nn.Parameter]] = {}
        small = []
        for number, group in enumerate(groups):
            for value in group["params"]:
                make = (torch.zeros_like, torch.ones_like)
                self._places.setdefault(
                    (number, tuple(value.shape)), [nn.Parameter(f(value.detach(), device=device)) for f in make]
                )
            own = [value for (at, _), values in self._places.items() if at == number for value in values]
            small.append({**group, "params": own})
        self._optimizer = make_optimizer(config, small)
        self.scheduler = make_scheduler(config, self._optimizer, steps)
        if optimizer_spec(config.optimizer).schedule_free:
            cast(Any, self._optimizer).train()
        for group in self._optimizer.param_groups:
            for value in group["params"]:
                value.grad = torch.ones_like(value)
        self._optimizer.step()
        self.scheduler.step()
        self.schedule = self.scheduler.state_dict()

    def groups_unlike(self, found: Groups) -> Iterator[str]:
        """Why the groups do not fit this optimizer, found by loading them into it."""
        own = self._optimizer.state_dict()["param_groups"]
        taken = [{**group, "params": mine["params"]} for group, mine in zip(found, own)]
        constant = set(inspect.signature(type(self._optimizer)).parameters) - set(_SCHEDULED)
        before = [dict(group) for group in self._optimizer.param_groups]
        kept = self._optimizer.state_dict()["state"]
        try:
            self._optimizer.load_state_dict({"state": kept, "param_groups": taken})
        except Exception as error:  # noqa: BLE001 - a library may raise anything for unknown values
            yield f"its optimizer does not accept its parameter groups ({type(error).__name__}: {error})"
            return
        for number, (group, mine) in enumerate(zip(self._optimizer.param_groups, before)):
            odd = next(
                (key for key in mine if key != "params" and not _same(key, group.get(key, _Model), mine[key], constant)), None
            )
            if odd is not None:
                found_value, own_value = str(group.get(odd))[:40], str(mine[odd])[:40]
                yield f"its optimizer has {odd} = {found_value} in group {number}, must be {own_value}"
                return

    def keeps(self, place: tuple[int, tuple[int, ...]], entry: Mapping[str, Any]) -> bool:
        """Whether `entry` can be the state of a parameter of that group and shape; empty if it was never updated."""
        if not entry:
            return True
        references = [self._optimizer.state[value] for value in self._places[place]]
        wanted = [{key: value for key, value in reference.items() if value is not None} for reference in references]
        return any(all(key in entry and _alike(entry[key], one[key]) for key in one) for one in wanted)


def _same(key: str, found: Any, wanted: Any, constant: set[str]) -> bool:
    """Whether a group's value fits: constant arguments must be equal, betas and momentum below 1, others of the same type."""
    if key in ("betas", "momentum"):
        several = isinstance(found, (list, tuple)) and isinstance(wanted, (list, tuple))
        pairs = zip(found, wanted) if several else [(found, wanted)]
        return _alike(found, wanted) and all(0 <= a < 1 for a, b in pairs if isinstance(b, (int, float)) and 0 <= b < 1)
    if key in constant and isinstance(wanted, (bool, int, float)):
        return bool(found == wanted)
    return wanted is None or found is None or _alike(found, wanted)


def _alike(found: Any, wanted: Any, owner: type = object) -> bool:
    """Whether `found` has the type of `wanted`, for tensors also the shape; numbers must be finite if `wanted` is.

    `owner`: class of the object that gets the values; no new key may have the name of one of its attributes.
    """
    if isinstance(wanted, (int, float)) and isinstance(found, torch.Tensor) and found.numel() == 1:
        found = found.item()  # a learning rate that the optimizer computes
    if isinstance(wanted, torch.Tensor):
        return isinstance(found, torch.Tensor) and found.shape == wanted.shape and _format(found) == _format(wanted)
    if isinstance(wanted, Mapping):
        shared = {key: value for key, value in wanted.items() if not callable(value)}
        taken = isinstance(found, Mapping) and not any(
            isinstance(key, str) and hasattr(owner, key) and key not in wanted for key in found
        )
        return taken and all(_alike(found[key], value) for key, value in shared.items() if key in found)
    if isinstance(wanted, (list, tuple)):
        return isinstance(found, (list, tuple)) and len(found) == len(wanted) and all(map(_alike, found, wanted))
    if wanted is None or found is None:
        return not isinstance(found, (torch.Tensor, Mapping, list, tuple))
    if isinstance(wanted, bool) or isinstance(found, bool):
        return isinstance(wanted, bool) and isinstance(found, bool)
    if isinstance(wanted, (int, float)):
        return isinstance(found, (int, float)) and (abs(found) < float("inf") or abs(wanted) == float("inf"))
    return type(found) is type(wanted)


def _format(value: torch.Tensor) -> torch.dtype | str:
    """The dtype; floating dtypes count as one, since a state is loaded into its parameter's dtype."""
    return "floating" if value.is_floating_point() else value.dtype
