"""Alphas that a file says in its metadata instead of in tensors: diffusers' lora_adapter_metadata, PEFT's adapter_config, and the
older network_alphas.

PEFT scales a product by alpha / rank, with use_rslora by alpha / √rank; here it is always alpha / rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lib_lora.errors import LoraFileError
from lib_lora.model.layer_names.keys import TEXT, TEXT_1, TEXT_2, UNET, Key, key_of

ADAPTER, CONFIG, OLD = "lora_adapter_metadata", "adapter_config", "network_alphas"
_COMPONENTS = {UNET: "unet", TEXT: "text_encoder", TEXT_1: "text_encoder", TEXT_2: "text_encoder_2"}
_PLAIN = re.compile(r"[\w.-]+")
_DOWN = "lora_down.weight"
_RANKED = (_DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b")  # whose first side is the rank


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def said_alphas(
    metadata: Mapping[str, str], keys: Mapping[str, tuple[Key, Sequence[int]]], names: Mapping[str, Sequence[_Named]]
) -> dict[str, float]:
    """Layer as it is named here -> its alpha, for layers without a tensor that says it.

    Raises:
        LoraFileError: what the metadata say of it cannot be read.
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


def _of_config(told: Mapping[str, Any], key: Key, rank: int) -> float | None:
    """The layer's alpha by a configuration of PEFT's, whose entries name the part of the model before them, or none."""
    starts = [f"{_COMPONENTS[key.part]}.", ""] if key.part in _COMPONENTS else [""]
    general = [(start, told[start + name]) for start in starts for name in ("lora_alpha", "alpha") if start + name in told]
    if not general:
        return None
    start, value = general[0]
    patterns = told.get(f"{start}alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise LoraFileError("its metadata say alphas of layers (alpha_pattern) in a form that cannot be read")
    alpha = _number(next((own for pattern, own in patterns.items() if _is_of(pattern, key.dotted)), value))
    return alpha * math.sqrt(rank) if told.get(f"{start}use_rslora") else alpha


def _is_of(pattern: str, path: str) -> bool:
    """Whether a pattern of PEFT's names the layer: its whole path, or the end of it. It is a plain name, never a search."""
    plain = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not _PLAIN.fullmatch(plain):
        raise LoraFileError(f"its metadata say alphas of layers by a pattern, {pattern!r:.80}, that is no plain name")
    return path == plain or (not pattern.startswith("^") and path.endswith(f".{plain}"))


def _object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object under a key of the metadata; empty where there is none."""
    text = metadata.get(key, "")
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise LoraFileError(f"its metadata {key} cannot be read") from error
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise LoraFileError(f"its metadata say an alpha that is no number, {value!r:.40}")
    return float(value)
