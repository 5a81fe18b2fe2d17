"""The adapters that a run starts with: new ones, those of a file to continue from, and base LoRAs that are merged first."""

from __future__ import annotations

from dataclasses import replace

import torch

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.groups import TrainConfig
from lib_lora.config.settled import Settled
from lib_lora.errors import LoraFileError, Problem
from lib_lora.model.adapter import Adapter, adapters_from_state, by_layer, joined
from lib_lora.model.adapter_types import new_adapter
from lib_lora.model.base import BaseModel
from lib_lora.model.delta import NORM, adapter_type_of
from lib_lora.model.embeddings import without_bundle
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.layer_settings import rank_and_alpha
from lib_lora.model.lora_layers import LoraFiles
from lib_lora.model.norm_shifts import Shift, check_fits, norms_of
from lib_lora.model.targets import adaptable, fitted, further_targets
from lib_lora.training.continued_files import BASE, CONTINUE, KEEP_THEIR_ALPHA, is_trained


def fit_problems(config: TrainConfig, base: BaseModel, files: LoraFiles | None = None) -> list[Problem]:
    """Problems of LoRA files that do not fit `base`: layers that it lacks, and shapes. `base` is only read."""
    adapter, problems, files = config.adapter, list[Problem](), files or LoraFiles()
    own = [adapter.network_weights] if adapter.network_weights else []
    for option, title, paths in (("network_weights", CONTINUE, own), ("base_weights", BASE, adapter.base_weights)):
        for path in paths:
            try:
                _adapters(path, title, base, torch.device("meta"), files=files)
            except LoraFileError as error:
                problems.append(Problem(option, str(error)))
    try:
        norm_shifts(config, base, files)
    except LoraFileError as error:
        problems.append(Problem("network_weights" if own else "base_weights", str(error)))
    except ValueError:
        pass  # multipliers that are not numbers: their rule reports them
    return problems


def initial_adapters(
    config: Settled, base: BaseModel, dtype: torch.dtype = torch.float32, files: LoraFiles | None = None
) -> list[Adapter]:
    """The adapters of a run: those of the file to continue from, and new ones for other layers.

    Adapters in the file whose layers are not trained stay unchanged, in the model and in the new file. Layers missing in the file
    get new adapters, unless ranks come from the file: then they are not trained, as in sd-scripts.

    Raises:
        LoraFileError: the file does not fit the model.
    """
    adapter, seed = config.adapter, config.run.seed
    path = adapter.network_weights
    found = _adapters(path, CONTINUE, base, base.device, dtype, files) if path else []
    loaded = {one.target.name: one for one in found}
    adapters = []
    for target in [*adaptable(base), *further_targets(base)]:
        (rank, alpha), one = rank_and_alpha(target.name, adapter), loaded.get(target.name)
        trained = is_trained(config, target.name, target.part)
        if one is not None:
            if trained and not adapter.dim_from_weights and adapter_type_of(one.named()) not in KEEP_THEIR_ALPHA:
                one = replace(one, alpha=alpha)  # equal up to rounding
            for parameter in one.named().values():
                parameter.requires_grad_(trained)
            adapters.append(one)
        elif trained and not adapter.dim_from_weights:
            adapters.append(new_adapter(target, rank, alpha, adapter, seed, base.device, dtype))
    return adapters


def merged_adapters(config: TrainConfig, base: BaseModel, files: LoraFiles | None = None) -> list[Adapter]:
    """The base LoRAs with their multipliers: one adapter for every layer that any of them changes.

    Raises:
        LoraFileError: a file does not fit the model.
    """
    by_name: dict[str, list[tuple[Adapter, float]]] = {}
    for path, strength in _strengths(config.adapter):
        for one in _adapters(path, BASE, base, base.device, files=files):
            by_name.setdefault(one.target.name, []).append((one, strength))
    return [joined([one for one, _ in found], [strength for _, strength in found]) for found in by_name.values()]


def norm_shifts(config: TrainConfig, base: BaseModel, files: LoraFiles | None = None) -> dict[str, Shift]:
    """The sums that the file to continue from and the base LoRAs, with their multipliers, add to norms.

    Raises:
        LoraFileError: a file does not fit the model.
    """
    adapter, found = config.adapter, dict[str, Shift]()
    own = [(adapter.network_weights, CONTINUE, 1.0)] if adapter.network_weights else []
    for path, title, strength in [*own, *((path, BASE, strength) for path, strength in _strengths(adapter))]:
        state = (files or LoraFiles()).layers(path, base.family).state
        layers = {name: tensors for name, tensors in by_layer(state).items() if adapter_type_of(tensors) == NORM}
        norms = norms_of(base) if layers else {}
        for name in layers.keys() & norms.keys():
            factor, bias = (layers[name][key].to(base.device).float() * strength for key in ("w_norm", "b_norm"))
            try:
                check_fits(name, norms[name], (factor, bias))
            except LoraFileError as error:
                raise _unfit(title, path, error) from error
            before = found.get(name)
            found[name] = (factor, bias) if before is None else (before[0] + factor, before[1] + bias)
    return found


def _strengths(adapter: AdapterConfig) -> list[tuple[str, float]]:
    """The base LoRAs with their multipliers; default 1."""
    strengths = [float(text) for text in adapter.base_weights_multiplier[: len(adapter.base_weights)]]
    return list(zip(adapter.base_weights, [*strengths, *[1.0] * (len(adapter.base_weights) - len(strengths))]))


def _unfit(title: str, path: str, error: LoraFileError) -> LoraFileError:
    return LoraFileError(f"{title}: {path!r} does not fit the model: {error} Choose a file of this model's family.")


def _adapters(
    path: str,
    title: str,
    base: BaseModel,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    files: LoraFiles | None = None,
) -> list[Adapter]:
    """The adapters of a file for the layers of `base`; layers that are never trained may be missing in `base`.

    Raises:
        LoraFileError: the model lacks a layer of the file, or it has another shape; the message starts with `title`.
    """
    targets, further = adaptable(base), further_targets(base)
    heard = {target.name for target in further}
    state = without_bundle((files or LoraFiles()).layers(path, base.family).state)
    state = {key: value for key, value in state.items() if (name := key.partition(".")[0]) in heard or not is_further(name)}
    try:
        return adapters_from_state([*targets, *further], fitted([*targets, *further], state), device, dtype)
    except LoraFileError as error:
        raise _unfit(title, path, error) from error
