"""What is told of LoRA files that a run goes on from or lies on: other programs' names, and layers that are not trained here."""

from __future__ import annotations

from collections.abc import Sequence

from lib_lora.config.groups import TrainConfig
from lib_lora.model.adapter import by_layer
from lib_lora.model.base import BaseModel
from lib_lora.model.embeddings import without_bundle
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.lora_layers import LoraFiles, LoraLayers
from lib_lora.model.norm_shifts import norms_of
from lib_lora.model.targets import further_targets
from lib_lora.training.continued_files import BASE, CONTINUE

OURS = "kohya's names"


def continued_notes(config: TrainConfig, base: BaseModel, files: LoraFiles | None = None) -> list[str]:
    """Sentences, one for each thing that a person would not expect.

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
    """PEFT's form is scaled by its configuration, which may be lost."""
    peft = "PEFT" in file.names.layout and not any(key.endswith(".alpha") for key in file.state)
    return [f"{start}no alphas; each is taken as its layer's rank, so nothing is scaled."] if peft else []


def _further(file: LoraLayers) -> list[str]:
    return [name for name in by_layer(without_bundle(file.state)) if is_further(name)]


def _listed(names: Sequence[str]) -> str:
    return f"the layer {names[0]!r}" if len(names) == 1 else f"{len(names)} layers, such as {names[0]!r}"
