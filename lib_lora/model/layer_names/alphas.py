"""Alphas in a file's metadata instead of tensors.

Read from diffusers' lora_adapter_metadata, PEFT's adapter_config, and the older network_alphas. PEFT scales a product by
alpha / rank, with use_rslora by alpha / √rank; here it is always alpha / rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lib_lora.errors import LoraFileError
from lib_lora.model.layer_names.keys import TEXT, TEXT_1, TEXT_2, UNET, Key, Named, key_of

ADAPTER, CONFIG, OLD = "lora_adapter_metadata", "adapter_config", "network_alphas"
_COMPONENTS = {UNET: "unet", TEXT: "text_encoder", TEXT_1: "text_encoder", TEXT_2: "text_encoder_2"}
_PLAIN = re.compile(r"[\w.-]+")
_MOST = 1e30  # of an alpha; excludes NaN and integers of 400 digits, too
_DOWN = "lora_down.weight"
_RANKED = (_DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b")  # tensors whose first dimension is the rank


def said_alphas(
    metadata: Mapping[str, str], keys: Mapping[str, tuple[Key, Sequence[int]]], names: Mapping[str, Sequence[Named]]
) -> dict[str, float]:
    """Internal layer name -> alpha in the metadata, for layers without an alpha tensor.

    Raises:
        LoraFileError: the alphas in the metadata cannot be read.
    """
    told, old = _object(metadata, ADAPTER), _object(metadata, OLD)
    told = told or _object(metadata, CONFIG)
    if not told and not old:
        return {}
    said = {(taken.part, taken.path): number for key, number in old.items() if (taken := key_of(key)) and taken.end == "alpha"}
    have = {one.name for key, (taken, _) in keys.items() if taken.end == "alpha" for one in names.get(key, ())}
    found = {}
    for key, (taken, shape) in keys.items():
        if taken.end not in _RANKED or not shape:
            continue
        alpha = said.get((taken.part, taken.path))
        alpha = _of_config(told, taken, shape[0]) if alpha is None else alpha
        if alpha is not None:
            found.update({one.name: _number(alpha) for one in names.get(key, ()) if one.name not in have})
    return found


def said_scales(
    metadata: Mapping[str, str], keys: Mapping[str, tuple[Key, Sequence[int]]], names: Mapping[str, Sequence[Named]]
) -> dict[str, float]:
    """Internal name of a LoKr of two whole matrices -> PEFT's factor on it: alpha / rank, although it has no rank.

    Raises:
        LoraFileError: the alphas or ranks in the metadata cannot be read.
    """
    told = _object(metadata, ADAPTER) or _object(metadata, CONFIG)
    whole = {(taken.part, taken.path) for taken, _ in keys.values() if taken.end == "lokr_w2"} if told else set()
    found = {}
    for key, (taken, _) in keys.items():
        if taken.end == "lokr_w1" and (taken.part, taken.path) in whole:
            alpha, rank = _said(told, taken, ("alpha",), "alpha_pattern"), _said(told, taken, ("r",), "rank_pattern")
            if alpha and rank:
                found.update({one.name: alpha[1] / rank[1] for one in names.get(key, ()) if rank[1] > 0})
    return found


def _of_config(told: Mapping[str, Any], key: Key, rank: int) -> float | None:
    """The layer's alpha in PEFT's configuration; None if it has none."""
    said = _said(told, key, ("lora_alpha", "alpha"), "alpha_pattern")
    if said is None:
        return None
    start, alpha = said
    return alpha * math.sqrt(rank) if told.get(f"{start}use_rslora") else alpha


def _said(told: Mapping[str, Any], key: Key, words: Sequence[str], own: str) -> tuple[str, float] | None:
    """Prefix of the entries for the layer's part of the model, and the layer's number (its own or the general one), or None."""
    starts = [f"{_COMPONENTS[key.part]}.", ""] if key.part in _COMPONENTS else [""]
    general = [(start, told[start + name]) for start in starts for name in words if start + name in told]
    if not general:
        return None
    start, value = general[0]
    patterns = told.get(f"{start}{own}") or {}
    if not isinstance(patterns, dict):
        raise LoraFileError(f"its metadata contain a value per layer ({own}) that cannot be read")
    return start, _number(next((number for pattern, number in patterns.items() if _is_of(pattern, key.dotted)), value))


def _is_of(pattern: str, path: str) -> bool:
    """Whether PEFT's `pattern` names the layer: its whole path or the end of it. Only plain names, no regular expressions."""
    plain = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not _PLAIN.fullmatch(plain):
        raise LoraFileError(
            f"its metadata contain alphas for a pattern of layer names, {pattern!r:.80}, which is not supported; choose one with "
            "complete names"
        )
    return path == plain or (not pattern.startswith("^") and path.endswith(f".{plain}"))


def _object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object under a key of the metadata; empty if there is none."""
    text = metadata.get(key, "")
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise LoraFileError(f"its metadata {key} cannot be read") from error
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and -_MOST <= value <= _MOST:
        return float(value)
    raise LoraFileError(f"its metadata contain an alpha that is not a number, {str(value)!r:.40}")
