"""A finished LoRA -> the settings of a run that continues from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_lora.config.blocks import MOST_RANK
from lib_lora.config.lycoris import DYLORA
from lib_lora.errors import LoraFileError
from lib_lora.families.family import Family
from lib_lora.model.adapter import State
from lib_lora.model.delta import adapter_type_of, rank_of
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.layer_settings import conv_place
from lib_lora.model.tensor_rules import alpha_of
from lib_lora.training.continued_files import is_trainable, layers_of, other_type

Sizes = set[tuple[int, float]]  # rank and alpha


@dataclass(frozen=True)
class ContinueSettings:
    """`settings`: option name -> value, all that must match the file. `description`: of the file."""

    settings: Mapping[str, Any]
    description: str


def continue_settings(path: Path) -> ContinueSettings:
    """The settings to continue from the LoRA at `path`.

    If all layers have one rank and one alpha (convolutions another), these are set; otherwise ranks come from the file.

    Raises:
        LoraFileError: the file cannot be read, or its type cannot be continued from.
    """
    file, layers = layers_of(str(path))
    metadata = file.metadata
    trained = {name: tensors for name, tensors in layers.items() if not is_further(name)}
    kinds = {adapter_type_of(tensors) for tensors in (trained or layers).values()}
    kind = next(iter(kinds))
    if len(kinds) > 1 or not is_trainable(kind):
        what = other_type(kind) if len(kinds) == 1 else "all layers must have the same type; choose another file"
        raise LoraFileError(
            f"Continue from: {path.name!r} has type {' and '.join(sorted(kinds))}, which cannot be continued; {what}."
        )
    places: dict[bool, Sizes] = {False: set(), True: set()}
    for name, tensors in trained.items():
        rank = rank_of(tensors)
        if rank is not None:
            alpha = float(f"{alpha_of(tensors):.3g}")  # without rounding errors of half precision
            places[conv_place(name) == "conv"].add((rank, alpha))
    settings: dict[str, Any] = {"network_weights": str(path), "adapter_type": kind}
    single = len(places[False]) == 1 and len(places[True]) <= 1
    settings["dim_from_weights"] = not single
    if single:
        ((settings["rank"], settings["alpha"]),) = places[False]
        settings["conv_dim"], settings["conv_alpha"] = next(iter(places[True]), (0, 1.0))
        if kind == "glora":  # not scaled, whatever the file states
            settings["alpha"] = float(settings["rank"])
    settings["unit"] = unit_of(path, metadata) if metadata.get("ss_network_module") == DYLORA else 0
    return ContinueSettings(settings, _words(path, kind, file.names.family, layers, places))


def _words(path: Path, kind: str, family: Family | None, layers: Mapping[str, State], places: Mapping[bool, Sizes]) -> str:
    sizes = [f"rank {rank}, alpha {alpha:g}" for rank, alpha in sorted(places[False])]
    told = (
        sizes[0] if len(sizes) == 1 else f"{len(sizes)} ranks and alphas, which are taken from the file" if sizes else "no ranks"
    )
    convolutions = "".join(f"; convolutions rank {rank}, alpha {alpha:g}" for rank, alpha in sorted(places[True])[:1])
    text = sum(name.startswith("lora_te") for name in layers)
    of = f" of {family.name}" if family else ""
    return f"{path.stem}: {kind}{of}, {told}{convolutions}; {text} layers of the text encoder, {len(layers) - text} of the U-Net."


def unit_of(source: Path, metadata: Mapping[str, str]) -> int:
    """Number of ranks that were trained together; default 1, as in sd-scripts.

    Raises:
        LoraFileError: the file is not a DyLoRA, or its unit is not a valid whole number.
    """
    if metadata.get("ss_network_module") != DYLORA:
        raise LoraFileError(
            f"{str(source)!r} was not trained to be cut down: its first ranks alone are not a LoRA. Train with DyLoRA: unit "
            "(unit) above 0."
        )
    told = metadata.get("ss_network_args", "{}")
    try:
        arguments = json.loads(told)
        unit = int(arguments.get("unit", 1)) if isinstance(arguments, dict) else 0
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise LoraFileError(f"The unit of {str(source)!r} cannot be read ({error}).") from error
    if not 1 <= unit <= MOST_RANK:
        raise LoraFileError(f"The unit of {str(source)!r} is {told[:60]!r}, must be a whole number from 1 to {MOST_RANK}.")
    return unit
