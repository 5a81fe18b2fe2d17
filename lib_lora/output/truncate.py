"""Truncation of a LoRA that was trained in units (DyLoRA) to a lower rank."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from lib_lora.errors import LoraFileError
from lib_lora.files.lora_file import read, serialise, write
from lib_lora.model.adapter import State, by_layer
from lib_lora.model.delta import DOWN, UP, adapter_type_of
from lib_lora.model.embeddings import without_bundle
from lib_lora.model.tensor_rules import check_layers
from lib_lora.training.continue_settings import unit_of


def truncate(source: Path, rank: int, out: Path) -> Path:
    """Write the first `rank` ranks of the LoRA `source` to `out`, alphas unchanged (sd-scripts `extract_lora_from_dylora.py`).

    Layers of rank `rank` or less stay whole.

    Raises:
        LoraFileError: `source` was not trained in units, `rank` is not a multiple of its unit or not less than its rank, or
            `out` exists or cannot be written.
    """
    state, metadata = read(source)
    check_layers(by_layer(state), f"{str(source)!r} ")
    unit, most = unit_of(source, metadata), _largest_rank(source, state)
    if not 0 < rank < most or rank % unit:
        raise LoraFileError(
            f"Rank (--rank): got {rank}, must be a multiple of {unit}, the LoRA's unit, and less than its rank, {most}."
        )
    if out.exists():
        raise LoraFileError(f"File (--out): {str(out)!r} exists already; choose another.")
    told = {"ss_network_dim": str(rank), "ss_training_comment": _comment(metadata, most, rank)}
    told |= {key: out.stem for key in ("ss_output_name", "modelspec.title") if metadata.get(key) == source.stem}
    kept = {key: value for key, value in metadata.items() if not key.startswith("sshs_")}
    dtype = next(
        tensors[DOWN].dtype for tensors in by_layer(state).values() if DOWN in tensors
    )  # sd-scripts may write alphas as integers
    write(out, serialise(truncated(state, rank), dtype, {**kept, **told}))
    return out


def truncated(state: State, rank: int) -> State:
    """The first `rank` ranks of every layer."""
    cut = {DOWN: lambda value: value[:rank], UP: lambda value: value[:, :rank]}
    found: State = {}
    for name, tensors in by_layer(state).items():
        for end, value in tensors.items():
            found[f"{name}.{end}"] = cut[end](value).contiguous() if end in cut else value
    return found


def _largest_rank(source: Path, state: Mapping[str, torch.Tensor]) -> int:
    layers = by_layer(without_bundle(state))
    others = [name for name, tensors in layers.items() if adapter_type_of(tensors) != "lora"]
    if others or not layers:
        raise LoraFileError(f"{str(source)!r} is not a LoRA that can be cut down; it has {len(others)} layers of other types.")
    return max(len(tensors[DOWN]) for tensors in layers.values())


def _comment(metadata: Mapping[str, str], most: int, rank: int) -> str:
    before = metadata.get("ss_training_comment", "")
    said = f"cut down from rank {most} to {rank}"
    return f"{said}; {before}" if before not in ("", "None") else said
