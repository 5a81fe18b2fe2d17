"""The LoRA files that a run starts from (to continue from, and base LoRAs merged first): reading and checking them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import get_args, get_type_hints

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.groups import TrainConfig
from lib_lora.config.settled import Settled, with_rates
from lib_lora.errors import ConfigError, LoraFileError, Problem
from lib_lora.families.family import DetectedModel, Family
from lib_lora.model.adapter import State, by_layer
from lib_lora.model.base import BaseModel, Part
from lib_lora.model.delta import BLOCKS, SCALE, adapter_type_of, factorization, rank_of
from lib_lora.model.embeddings import bundled, without_bundle
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.layer_settings import rank_and_alpha
from lib_lora.model.lora_layers import LoraFiles, LoraLayers, names_problem
from lib_lora.model.norm_shifts import norms_of
from lib_lora.model.targets import further_targets
from lib_lora.model.tensor_rules import alpha_of, check_layers, rarer_problem, rarer_type

CONTINUE, BASE = "Continue from (network_weights)", "Merge first (base_weights)"
_TEXT = ("lora_te_", "lora_te1_", "lora_te2_")
KEEP_THEIR_ALPHA = ("diag-oft", "glora")  # diag-oft's is a limit that is not trained; glora's has no effect
_FROM_FILE = "Ranks from the file (dim_from_weights)"
OURS = "kohya's names"


def weights_problems(config: Settled, kind: DetectedModel | None = None, files: LoraFiles | None = None) -> list[Problem]:
    """Problems of the LoRA files in the configuration that show without a model.

    `kind`: the detected model, if known; files of another family are then refused.
    """
    adapter, files, problems = config.adapter, files or LoraFiles(), list[Problem]()
    own = [adapter.network_weights] if adapter.network_weights else []
    for option, paths, check in (("network_weights", own, _check_continued), ("base_weights", adapter.base_weights, _check_base)):
        for path in paths:
            try:
                check(path, config, kind, files)
            except LoraFileError as error:
                problems.append(Problem(option, str(error)))
    return problems


def kept_tensors(config: Settled, family: Family, files: LoraFiles | None = None) -> tuple[State, frozenset[str]]:
    """Tensors of untrained layers in the file to continue from, for the new file, bit for bit; and the names of these layers.

    Raises:
        LoraFileError: the file cannot be read.
    """
    if not config.adapter.network_weights:
        return {}, frozenset()
    file = (files or LoraFiles()).layers(config.adapter.network_weights, family)
    layers = frozenset(name for name in by_layer(without_bundle(file.state)) if not is_trained(config, name, part_of(name)))
    return file.kept(layers), layers


def is_trained(config: Settled, name: str, part: Part) -> bool:
    """Whether the layer's part has a learning rate, and its block a rank and a factor."""
    rate = config.optimizer.unet_lr if part == "unet" else config.optimizer.text_encoder_lr
    return rate > 0 and rank_and_alpha(name, config.adapter)[0] > 0


def _check_continued(path: str, config: Settled, of_model: DetectedModel | None, files: LoraFiles) -> None:
    """Check the file to continue from: it must have the configured family, type, ranks and alphas.

    Raises:
        LoraFileError: it cannot be continued from.
    """
    adapter = config.adapter
    file = _of_the_family(path, CONTINUE, of_model, files)
    layers = _checked(file, path, CONTINUE)
    start = f"{CONTINUE}: {path!r} "
    if of_model is None and file.names.family is not None:
        config = with_rates(config.given, file.names.family.text_encoder_lr)
    _check_word(config, start, file)
    for name, tensors in layers.items():
        kind = adapter_type_of(tensors)
        if kind != adapter.adapter_type and not is_further(name):
            raise LoraFileError(
                f"{start}has type {kind} at {name!r}, but Type (adapter_type) is {adapter.adapter_type}; {other_type(kind)}."
            )
    with suppress(ConfigError):  # unreadable ranks, alphas or factors: their rules report them
        trained = {name: tensors for name, tensors in layers.items() if is_trained(config, name, part_of(name))}
        if adapter.dim_from_weights and not trained:
            raise LoraFileError(f"{start}has no layers of a part with a learning rate above 0; nothing would be trained.")
        for name in () if adapter.dim_from_weights else trained:
            _check_size(name, trained[name], adapter, start)


def _check_base(path: str, config: Settled, of_model: DetectedModel | None, files: LoraFiles) -> None:
    file = _of_the_family(path, BASE, of_model, files)
    if len(without_bundle(file.state)) < len(file.state):
        raise LoraFileError(f"{BASE}: {path!r} contains an embedding, which does not work in a base LoRA; leave the file out.")
    _checked(file, path, BASE)


def _of_the_family(path: str, title: str, model: DetectedModel | None, files: LoraFiles) -> LoraLayers:
    """The file, which must be of the model's family."""
    file = _opened(path, title, model.family if model else None, files)
    if model is not None and all(family.id != model.family.id for family in file.names.families):
        raise LoraFileError(
            f"{title}: {path!r} is a LoRA of {file.names.family_words}, but the model is {model.family.name}; choose a file of "
            "that family."
        )
    return file


def is_trainable(kind: str) -> bool:
    """Whether adapters of this type can be trained."""
    return kind in get_args(get_type_hints(AdapterConfig)["adapter_type"])


def _check_word(config: TrainConfig, start: str, file: LoraLayers) -> None:
    """An embedding in the file must be continued, or the LoRA would lose the word that it was trained with."""
    wanted = (config.text.trigger, config.embedding.embedding_vectors)
    try:
        words = [(word.name, word.count) for word in bundled(file.state)]
    except LoraFileError as error:
        raise LoraFileError(f"{start}cannot be continued: {error} Choose a file without it.") from error
    if len(words) > 1:
        raise LoraFileError(
            f"{start}contains {len(words)} embeddings, such as {words[0][0]!r}, must have at most one; choose another file."
        )
    if words and words[0] != wanted:
        name, count = words[0]
        raise LoraFileError(
            f"{start}contains the embedding {name!r} with {count} vectors; set Trigger word (trigger) to {name} and "
            f"Embedding vectors (embedding_vectors) to {count}."
        )


def other_type(kind: str) -> str:
    """The remedy for a file of this type, in words."""
    if is_trainable(kind):
        return f"set Type (adapter_type) to {kind}"
    return "this type cannot be trained; use the file in Merge first (base_weights), or choose another"


def _check_size(name: str, tensors: State, adapter: AdapterConfig, start: str) -> None:
    """Check one layer's rank and alpha. A LoKr of whole matrices has neither."""
    rank, (wanted_rank, wanted_alpha) = rank_of(tensors), rank_and_alpha(name, adapter)
    if BLOCKS in tensors:
        count, size, _ = tensors[BLOCKS].shape
        wanted, _ = factorization(count * size, wanted_rank)
        if size != wanted:
            raise LoraFileError(
                f"{start}has blocks of {size} at {name!r}, but Rank (rank) {wanted_rank} gives {wanted}; turn on {_FROM_FILE}."
            )
        return
    if rank is None:
        return
    if rank != wanted_rank:
        raise LoraFileError(
            f"{start}has rank {rank} at {name!r}, but the settings give {wanted_rank}; set Rank (rank) to {rank}, or turn on "
            f"{_FROM_FILE}."
        )
    alpha = alpha_of(tensors)
    rounded = math.isclose(alpha, wanted_alpha, rel_tol=1e-2)  # half precision
    if adapter_type_of(tensors) not in KEEP_THEIR_ALPHA and not rounded:
        raise LoraFileError(
            f"{start}has alpha {alpha:g} at {name!r}, but the settings give {wanted_alpha:g}; set Alpha (alpha) to {alpha:g}, or "
            f"turn on {_FROM_FILE}."
        )


def layers_of(path: str, title: str = "Continue from", family: Family | None = None) -> tuple[LoraLayers, dict[str, State]]:
    """A LoRA file, and its layer -> tensors, all of known types.

    Raises:
        LoraFileError: the file cannot be used; the message starts with `title`.
    """
    file = _opened(path, title, family, LoraFiles())
    return file, _checked(file, path, title)


def _opened(path: str, title: str, family: Family | None, files: LoraFiles) -> LoraLayers:
    try:
        return files.layers(path, family)
    except LoraFileError as error:
        raise LoraFileError(f"{title}: {error}") from error


def _checked(file: LoraLayers, path: str, title: str) -> dict[str, State]:
    """Layer -> tensors, all with known names and types.

    Raises:
        LoraFileError: the file cannot be used; the message starts with `title`.
    """
    check_layers(by_layer(file.state), f"{title}: {path!r} ")
    layers = by_layer(without_bundle(file.state))
    for name, tensors in layers.items():
        if not adapter_type_of(tensors) and not rarer_type(name, tensors):
            raise LoraFileError(f"{title}: {path!r} is incomplete: its layer {name!r} lacks a tensor; choose a complete file.")
        if SCALE in tensors and tensors[SCALE].dim() and tensors[SCALE].numel() == len(tensors[SCALE]) > 1:
            raise LoraFileError(
                f"{title}: {path!r} is a dora with magnitudes per output at {name!r}, which the webui does not support; choose a "
                "LoRA without dora, or one with magnitudes per input (LyCORIS' wd_on_output=False)."
            )
    problem = names_problem(path, file.names) or rarer_problem(path, layers)
    if problem:
        raise LoraFileError(f"{title}: {problem}")
    if not layers:
        raise LoraFileError(f"{title}: {path!r} contains no layers.")
    return layers


def part_of(name: str) -> Part:
    """The part of the model that has the layer `name`."""
    return "text_encoder" if name.startswith(_TEXT) else "unet"


def continued_notes(config: TrainConfig, base: BaseModel, files: LoraFiles | None = None) -> list[str]:
    """Notes, one for each thing that a user would not expect.

    Raises:
        LoraFileError: a file cannot be read.
    """
    told: list[str] = []
    if not config.adapter.network_weights and not config.adapter.base_weights:
        return told
    files = files or LoraFiles()
    heard = {target.name for target in further_targets(base)} | norms_of(base).keys()
    if config.adapter.network_weights:
        path = config.adapter.network_weights
        file = files.layers(path, base.family)
        start, further = f"{CONTINUE}: {path!r} has ", _further(file)
        if file.names.layout != OURS:
            told.append(f"{start}{file.names.layout}; the new file has {OURS}.")
        told += _alpha_told(file, start)
        if further:
            silent = [name for name in further if name not in heard]
            tail = f"; training ignores {_listed(silent)}" if silent else ""
            told.append(f"{start}{_listed(further)}, which are not trained and stay unchanged in the new file{tail}.")
    for path in config.adapter.base_weights:
        file = files.layers(path, base.family)
        start, silent = f"{BASE}: {path!r} has ", [name for name in _further(file) if name not in heard]
        told += _alpha_told(file, start)
        if silent:
            told.append(f"{start}{_listed(silent)}, which cannot be merged and are ignored.")
    return told


def _alpha_told(file: LoraLayers, start: str) -> list[str]:
    """A note if a PEFT file has no alphas: they are in its configuration, which may be lost."""
    peft = "PEFT" in file.names.layout and not any(key.endswith(".alpha") for key in file.state)
    return [f"{start}no alphas; each is taken as its layer's rank, so nothing is scaled."] if peft else []


def _further(file: LoraLayers) -> list[str]:
    return [name for name in by_layer(without_bundle(file.state)) if is_further(name)]


def _listed(names: Sequence[str]) -> str:
    return f"the layer {names[0]!r}" if len(names) == 1 else f"{len(names)} layers, such as {names[0]!r}"
