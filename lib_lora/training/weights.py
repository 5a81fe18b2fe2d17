"""What a run starts from: fresh pairs, those of a file to go on with, and LoRAs that lie below the new one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args, get_type_hints

import torch

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.groups import TrainConfig
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.model.adapter import Adapter, State, by_layer, joined, pairs_from_state
from lib_lora.model.base import BaseModel, Part
from lib_lora.model.blocks import block_index, is_of_sdxl, rank_and_alpha
from lib_lora.model.conv_targets import adaptable
from lib_lora.model.delta import BLOCKS, DOWN, SCALE, UP, factorization, kind_of, rank_of
from lib_lora.model.family import SD1, SD2, SDXL, Family, Kind
from lib_lora.model.kinds import new_adapter, with_alpha
from lib_lora.model.rates import with_rates
from lib_lora.model.targets import fitted
from lib_lora.model.tensor_rules import alpha_of, check_layers
from lib_lora.model.words import bundled, without_bundle
from lib_lora.output.lora_file import read

_CONTINUE, _BASE = "Continue from (network_weights)", "Merged first (base_weights)"
_TEXT = ("lora_te_", "lora_te1_", "lora_te2_")
_READS_TEXT = re.compile(r"_(attn2_to_[kv]|self_attn_[a-z]+_proj|mlp_fc1)$")  # layers that are as wide as the text encoder
_KEEP_THEIR_ALPHA = ("diag-oft", "glora")  # of one it is a limit that is not trained, of the other without effect
_FROM_FILE = "or turn on Ranks from that file (dim_from_weights)"


def weights_problems(config: TrainConfig, kind: Kind | None = None) -> list[str]:
    """What is wrong with the files that the configuration names, as far as they tell it without a model.

    `kind`: what the model is, where that is known; a file of another family is refused then.
    """
    adapter = config.adapter
    try:
        problems = _continue_problems(config, kind) if adapter.network_weights else []
    except ConfigError:
        problems = []  # ranks, alphas or factors that cannot be read: their rules tell
    for path in adapter.base_weights:
        try:
            problems += _family_problems(path, _BASE, layers_of(path, _BASE), kind)
        except LoraFileError as error:
            problems.append(str(error))
    return problems


def start_pairs(config: TrainConfig, base: BaseModel, dtype: torch.dtype = torch.float32) -> list[Adapter]:
    """The adapters of a run, with the values of the file to go on with where it has them.

    What the file holds of layers that are not trained stays as it is, in the model and in the new file. Layers that it lacks get
    fresh ones, unless ranks come from the file: then they are not trained, as in sd-scripts.

    Raises:
        LoraFileError: the file does not fit the model.
    """
    adapter, seed = config.adapter, config.run.seed
    targets = adaptable(base)
    state = fitted(targets, without_bundle(read(Path(adapter.network_weights))[0])) if adapter.network_weights else {}
    loaded = {pair.target.name: pair for pair in pairs_from_state(targets, state, base.device, dtype)}
    pairs = []
    for target in targets:
        (rank, alpha), pair = rank_and_alpha(target.name, adapter), loaded.get(target.name)
        trained = is_trained(config, target.name, target.part)
        if pair is not None:
            if trained and not adapter.dim_from_weights and kind_of(pair.named()) not in _KEEP_THEIR_ALPHA:
                pair = with_alpha(pair, alpha)  # the same but for rounding
            for parameter in pair.named().values():
                parameter.requires_grad_(trained)
            pairs.append(pair)
        elif trained and not adapter.dim_from_weights:
            pairs.append(new_adapter(target, rank, alpha, adapter, seed, base.device, dtype))
    return pairs


def frozen_pairs(config: TrainConfig, base: BaseModel) -> list[Adapter]:
    """The LoRAs below the new one, each with its strength: one adapter for every layer that any of them changes.

    Raises:
        LoraFileError: a file does not fit the model.
    """
    adapter = config.adapter
    strengths = [float(text) for text in adapter.base_weights_multiplier[: len(adapter.base_weights)]]
    strengths += [1.0] * (len(adapter.base_weights) - len(strengths))
    by_name: dict[str, list[tuple[Adapter, float]]] = {}
    for path, strength in zip(adapter.base_weights, strengths):
        for pair in pairs_from_state(adaptable(base), fitted(adaptable(base), read(Path(path))[0]), base.device):
            by_name.setdefault(pair.target.name, []).append((pair, strength))
    return [joined([pair for pair, _ in found], [strength for _, strength in found]) for found in by_name.values()]


def is_trained(config: TrainConfig, name: str, part: Part) -> bool:
    """Whether the layer's part has a learning rate, and its block a rank and a factor."""
    rate = config.optimizer.unet_lr if part == "unet" else config.optimizer.text_rate
    return rate > 0 and rank_and_alpha(name, config.adapter)[0] > 0


def _continue_problems(config: TrainConfig, of_model: Kind | None) -> list[str]:
    """The file is read and fits the family, the type, the ranks and the alphas that are asked for."""
    adapter = config.adapter
    try:
        layers = layers_of(adapter.network_weights, _CONTINUE)
    except LoraFileError as error:
        return [str(error)]
    problems = _family_problems(adapter.network_weights, _CONTINUE, layers, of_model)
    if problems:
        return problems
    start = f"{_CONTINUE}: {adapter.network_weights!r} "
    config = with_rates(config, of_model.family if of_model else _family_of(adapter.network_weights, layers) or SD1)
    problem = _word_problem(config, start)
    if problem:
        return [problem]
    for name, tensors in layers.items():
        kind = kind_of(tensors)
        if kind != adapter.adapter_type:
            return [start + f"has type {kind} at {name!r}, where {adapter.adapter_type} is wanted{_choose(kind)}."]
        if kind == "dora" and tensors[SCALE].shape[0] != 1:
            return [start + f"is a dora over output rows at {name!r}, which the webui does not read; it cannot be gone on with."]
    trained = {name: tensors for name, tensors in layers.items() if is_trained(config, name, part_of(name))}
    if adapter.dim_from_weights:
        return [] if trained else [start + "has no layer of a part that has a learning rate; nothing would be trained."]
    return next((problems for name in trained if (problems := _size_problems(name, trained[name], adapter, start))), [])


def family_of_lora(layers: Mapping[str, State], metadata: Mapping[str, str]) -> Family | None:
    """The family that the file names, or whose names and widths its layers have; None where nothing tells it."""
    said = metadata.get("ss_base_model_version", "")
    for start, family in (("sdxl_", SDXL), ("sd_v1", SD1), ("sd_v2", SD2)):
        if said.startswith(start):
            return family
    if any(name.startswith(("lora_te1_", "lora_te2_")) or is_of_sdxl(name) for name in layers):
        return SDXL
    widths = {tensors[DOWN].shape[1] for name, tensors in layers.items() if DOWN in tensors and _READS_TEXT.search(name)}
    return next((family for family, width in ((SD1, 768), (SD2, 1024)) if width in widths), None)


def _family_problems(path: str, title: str, layers: dict[str, State], kind: Kind | None) -> list[str]:
    found = _family_of(path, layers)
    if kind is None or found is None or found.card == kind.family.card:
        return []
    return [f"{title}: {path!r} is a LoRA of {found.name}, but the model is {kind.family.name}; choose a file of that family."]


def _family_of(path: str, layers: Mapping[str, State]) -> Family | None:
    return family_of_lora(layers, read(Path(path))[1])


def goes_on(kind: str) -> bool:
    """Whether layers of this type can be trained."""
    return kind in get_args(get_type_hints(AdapterConfig)["adapter_type"])


def _word_problem(config: TrainConfig, start: str) -> str | None:
    """An embedding in the file is gone on with, or the LoRA would lose the word that it was trained with."""
    wanted = (config.text.trigger, config.embedding.embedding_vectors)
    try:
        words = [(word.name, word.count) for word in bundled(read(Path(config.adapter.network_weights))[0])]
    except LoraFileError as error:
        return str(error)
    if len(words) > 1:
        return start + f"holds {len(words)} embeddings, such as {words[0][0]!r}; a file with one at most can be gone on with."
    if words and words[0] != wanted:
        name, count = words[0]
        return start + (
            f"holds the embedding {name!r} of {count} vectors; set Trigger word (trigger) to {name} and Embedding vectors "
            f"(embedding_vectors) to {count}."
        )
    return None


def _choose(kind: str) -> str:
    return f"; set Type (adapter_type) to {kind}" if goes_on(kind) else ""


def _size_problems(name: str, tensors: State, adapter: AdapterConfig, start: str) -> list[str]:
    """Rank and alpha of one layer. A LoKr of whole matrices has neither."""
    rank, (wanted_rank, wanted_alpha) = rank_of(tensors), rank_and_alpha(name, adapter)
    if BLOCKS in tensors:
        count, size, _ = tensors[BLOCKS].shape
        wanted, _ = factorization(count * size, wanted_rank)
        if size == wanted:
            return []
        told = f"has blocks of {size} at {name!r}, where rank {wanted_rank} makes them {wanted}; turn on Ranks from that file "
        told += "(dim_from_weights)."
        return [start + told]
    if rank is None:
        return []
    if rank != wanted_rank:
        return [start + f"has rank {rank} at {name!r}, where {wanted_rank} is wanted; set Rank (rank) to {rank}, {_FROM_FILE}."]
    alpha = alpha_of(tensors)
    if kind_of(tensors) in _KEEP_THEIR_ALPHA or math.isclose(alpha, wanted_alpha, rel_tol=1e-2):  # half precision rounds it
        return []
    told = f"has alpha {alpha:g} at {name!r}, where {wanted_alpha:g} is wanted; set Alpha (alpha) to {alpha:g}, {_FROM_FILE}."
    return [start + told]


def layers_of(path: str, title: str = "Train again from") -> dict[str, State]:
    """Layer -> tensors of a LoRA file, of the types that are known here.

    Raises:
        LoraFileError: one sentence, with the option's `title`.
    """
    try:
        state, _ = read(Path(path))
    except LoraFileError as error:
        raise LoraFileError(f"{title}: {error}") from error
    if title == _BASE and len(without_bundle(state)) < len(state):
        raise LoraFileError(f"{title}: {path!r} holds an embedding, whose word a LoRA above it could not use; leave it out.")
    check_layers(by_layer(state), f"{title}: {path!r} ")
    layers = by_layer(without_bundle(state))
    for name, tensors in layers.items():
        if len(tensors.get(BLOCKS, torch.empty(0)).shape) > 3:
            raise LoraFileError(f"{title}: {path!r} has blocks of a butterfly (BOFT) at {name!r}, a rarer LyCORIS type.")
        if _has_place(name) and not kind_of(tensors) and set(tensors) <= {DOWN, UP, "alpha"}:
            raise LoraFileError(f"{title}: {path!r} is not whole, its layer {name!r} lacks a tensor.")
    others = [
        f"{name}.{end}" for name, tensors in layers.items() for end in tensors if not (_has_place(name) and kind_of(tensors))
    ]
    if others:
        raise LoraFileError(
            f"{title}: {path!r} holds {len(others)} tensors of kinds that are not trained here, such as {others[0]!r}; "
            "rarer LyCORIS types and SD3 cannot be used."
        )
    if not layers:
        raise LoraFileError(f"{title}: {path!r} holds no layers.")
    return layers


def _has_place(name: str) -> bool:
    """Whether a model that is trained here has such a layer."""
    return name.startswith(_TEXT) or (name.startswith("lora_unet_") and block_index(name) is not None)


def part_of(name: str) -> Part:
    """Where the layer of that name lies."""
    return "text_encoder" if name.startswith(_TEXT) else "unet"
