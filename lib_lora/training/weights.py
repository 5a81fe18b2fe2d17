"""What a run starts from: fresh pairs, those of a file to go on with, and LoRAs that lie below the new one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from lib_lora.config.groups import TrainConfig
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.model.adapter import LoraPair, State, joined, new_pair, pairs_from_state
from lib_lora.model.base import BaseModel, Part
from lib_lora.model.blocks import block_index, conv_place, rank_and_alpha
from lib_lora.model.conv_targets import adaptable
from lib_lora.output.lora_file import read

_CONTINUE, _BASE = "Continue from (network_weights)", "Merged first (base_weights)"
_HALVES = ("lora_down.weight", "lora_up.weight", "alpha")
_FROM_FILE = "or turn on Ranks from that file (dim_from_weights)"


def weights_problems(config: TrainConfig) -> list[str]:
    """What is wrong with the files that the configuration names, as far as they tell it without a model."""
    adapter = config.adapter
    try:
        problems = _continue_problems(config) if adapter.network_weights else []
    except ConfigError:
        problems = []  # ranks, alphas or factors that cannot be read: their rules tell
    for path in adapter.base_weights:
        try:
            _layers(path, _BASE)
        except LoraFileError as error:
            problems.append(str(error))
    return problems


def start_pairs(config: TrainConfig, base: BaseModel, dtype: torch.dtype = torch.float32) -> list[LoraPair]:
    """The pairs of a run, with the values of the file to go on with where it has them.

    What the file holds of layers that are not trained stays as it is, in the model and in the new file. Layers that it lacks get
    fresh pairs, unless ranks come from the file: then they are not trained, as in sd-scripts.

    Raises:
        LoraFileError: the file does not fit the model.
    """
    adapter, seed = config.adapter, config.run.seed
    state = read(Path(adapter.network_weights))[0] if adapter.network_weights else {}
    loaded = {pair.target.name: pair for pair in pairs_from_state(adaptable(base), state, base.device, dtype)}
    pairs = []
    for target in adaptable(base):
        (rank, alpha), pair = rank_and_alpha(target.name, adapter), loaded.get(target.name)
        trained = is_trained(config, target.name, target.part)
        if pair is not None:
            if trained and not adapter.dim_from_weights:
                pair = dataclasses.replace(pair, alpha=alpha)  # the same but for rounding
            for half in (pair.down, pair.up):
                half.requires_grad_(trained)
            pairs.append(pair)
        elif trained and not adapter.dim_from_weights:
            pairs.append(new_pair(target, rank, alpha, seed, base.device, dtype))
    return pairs


def frozen_pairs(config: TrainConfig, base: BaseModel) -> list[LoraPair]:
    """The LoRAs below the new one, each with its strength: one pair for every layer that any of them changes.

    Raises:
        LoraFileError: a file does not fit the model.
    """
    adapter = config.adapter
    strengths = [float(text) for text in adapter.base_weights_multiplier]
    strengths += [1.0] * (len(adapter.base_weights) - len(strengths))
    by_name: dict[str, list[LoraPair]] = {}
    for path, strength in zip(adapter.base_weights, strengths):
        for pair in pairs_from_state(adaptable(base), read(Path(path))[0], base.device):
            by_name.setdefault(pair.target.name, []).append(dataclasses.replace(pair, alpha=pair.alpha * strength))
    return [joined(pairs) for pairs in by_name.values()]


def is_trained(config: TrainConfig, name: str, part: Part) -> bool:
    """Whether the layer's part has a learning rate, and its block a rank and a factor."""
    rates = {"unet": config.optimizer.unet_lr, "text_encoder": config.optimizer.text_encoder_lr}
    return rates[part] > 0 and rank_and_alpha(name, config.adapter)[0] > 0


def _continue_problems(config: TrainConfig) -> list[str]:
    """The file is read and fits the ranks and alphas that are asked for."""
    adapter = config.adapter
    try:
        layers = _layers(adapter.network_weights, _CONTINUE)
    except LoraFileError as error:
        return [str(error)]
    trained = {name: pair for name, pair in layers.items() if is_trained(config, name, _part(name))}
    start = f"{_CONTINUE}: {adapter.network_weights!r} "
    if adapter.dim_from_weights:
        return [] if trained else [start + "has no layer of a part that has a learning rate; nothing would be trained."]
    for name, (rank, alpha) in trained.items():
        wanted_rank, wanted_alpha = rank_and_alpha(name, adapter)
        if rank != wanted_rank:
            return [
                start + f"has rank {rank} at {name!r}, where {wanted_rank} is wanted; set Rank (rank) to {rank}, {_FROM_FILE}."
            ]
        if not math.isclose(alpha, wanted_alpha, rel_tol=1e-2):  # half precision rounds it
            alpha_text = f"has alpha {alpha:g} at {name!r}, where {wanted_alpha:g} is wanted; set Alpha (alpha) to {alpha:g}, "
            return [start + alpha_text + f"{_FROM_FILE}."]
    return []


def _layers(path: str, title: str) -> dict[str, tuple[int, float]]:
    """Layer -> rank and alpha of a LoRA file of the kind that is trained here.

    Raises:
        LoraFileError: one sentence, with the option's `title`.
    """
    try:
        state, _ = read(Path(path))
    except LoraFileError as error:
        raise LoraFileError(f"{title}: {error}") from error
    others = _other_kinds(state)
    if others:
        raise LoraFileError(
            f"{title}: {path!r} holds {len(others)} tensors of kinds that are not trained here, such as {others[0]!r}; "
            "LyCORIS and LoRAs of other model families cannot be used."
        )
    layers = {}
    for name in dict.fromkeys(key.partition(".")[0] for key in state):
        down = state.get(f"{name}.lora_down.weight")
        if down is None or f"{name}.lora_up.weight" not in state:
            raise LoraFileError(f"{title}: {path!r} is not whole, its layer {name!r} lacks a tensor.")
        layers[name] = (len(down), float(state.get(f"{name}.alpha", torch.tensor(float(len(down))))))
    if not layers:
        raise LoraFileError(f"{title}: {path!r} holds no layers.")
    return layers


def _other_kinds(state: State) -> Sequence[str]:
    """Keys that belong to no layer of SD 1.x."""
    return [
        key
        for key, value in state.items()
        if key.partition(".")[2] not in _HALVES
        or (_part(key) == "unet" and block_index(key) is None)
        or not key.startswith(("lora_unet_", "lora_te_"))
        or (conv_place(key.partition(".")[0]) != "conv" and any(side != 1 for side in value.shape[2:]))
    ]


def _part(name: str) -> Part:
    return "text_encoder" if name.startswith("lora_te_") else "unet"
