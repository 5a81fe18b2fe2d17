"""The contents of a LoRA file, in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lib_lora.config.adapter import MULTIPLYING
from lib_lora.errors import LoraFileError
from lib_lora.model.adapter import by_layer
from lib_lora.model.delta import DOWN, NORM, SCALE, Tensors, adapter_type_of, is_over_inputs, plain_norm, rank_of
from lib_lora.model.embeddings import bundled, without_bundle
from lib_lora.model.lora_layers import names_problem, read_layers
from lib_lora.model.tensor_rules import alpha_of, check_layers, not_finite, rarer_problem, rarer_type

NAMES = {
    **{"lora": "LoRA", "locon": "LoCon", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr", "full": "full differences"},
    **{"ia3": "(IA)³", "diag-oft": "OFT", "glora": "GLoRA", NORM: "norms"},
}
AXES = {
    "input": "inputs: the webui's loader reads these; diffusers takes them for those of outputs and applies them wrongly",
    "output": "outputs: diffusers and LyCORIS' wd_on_output read these; the webui's loader applies them wrongly",
    "unknown": "of no axis that is known",
}
ORDERS = {
    True: "a1 and b1 over inputs: the webui's loader and LyCORIS before 3.0 read these",
    False: "a2 and b2 over inputs: LyCORIS since 3.0 reads these; the webui's loader fails",
}


def describe(path: Path) -> dict[str, Any]:
    """Family, key layout, type, ranks, alphas, modules, norms and metadata of the file, and which layers are not finite or of
    rarer types.

    Norms of DoRA layers are those before normalisation; types that multiply the checkpoint's weight have none without it.

    Raises:
        LoraFileError: it cannot be read, its tensors match no type, or it holds no layer of a known type.
    """
    file = read_layers(path)
    others = {key: file.raw[key] for key in file.names.unknown if key.startswith("lora_")}  # layers of other models count, too
    # values that are not finite are reported below
    check_layers(by_layer({**file.state, **others}), f"{str(path)!r} ", finite=False)
    layers, words = by_layer({**without_bundle(file.state), **others}), bundled(file.state)
    rarer = {name: said for name, tensors in sorted(layers.items()) if (said := rarer_type(name, tensors))}
    whole = {name: tensors for name, tensors in sorted(layers.items()) if adapter_type_of(tensors) and name not in rarer}
    if not whole and not layers and file.names.unknown:
        raise LoraFileError(names_problem(str(path), file.names))
    if not whole and rarer:
        raise LoraFileError(rarer_problem(str(path), {name: layers[name] for name in rarer}))
    if not whole:
        raise LoraFileError(
            f"{str(path)!r} contains no LoRA: no layer has lora_down and lora_up, or tensors of another known type."
        )
    values = {name: {key: value for key, value in tensors.items() if key != "alpha"} for name, tensors in whole.items()}
    alphas = {name: alpha_of(tensors) for name, tensors in whole.items()}
    scaled = [name for name, tensors in whole.items() if "alpha" in tensors or rank_of(tensors) is not None]
    alone = [name for name in whole if adapter_type_of(values[name]) not in (*MULTIPLYING, NORM)]
    norms = {name: float(plain_norm(values[name], alphas[name])) for name in alone}
    bad = sorted({*not_finite(by_layer(file.state)), *(name for name in norms if not math.isfinite(norms[name]))})
    orders = sorted({is_over_inputs(tensors) for tensors in values.values() if adapter_type_of(tensors) == "glora"})
    ranks = {rank for tensors in values.values() if (rank := rank_of(tensors)) is not None}
    axes = sorted({_axis(tensors[SCALE].shape) for tensors in values.values() if SCALE in tensors})
    first = next(iter(next(iter(values.values())).values()))
    return {
        "file": str(path),
        "family": file.names.other or file.names.family_words,
        "layout": file.names.layout,
        "type": " and ".join(_types(whole.values())),
        "dtype": str(first.dtype).removeprefix("torch."),
        "modules": len(whole),
        "modules_text_encoder": sum(name.startswith("lora_te") for name in whole),
        "modules_unet": sum(name.startswith("lora_unet") for name in whole),
        "ranks": sorted(ranks),
        "alphas": sorted({alphas[name] for name in scaled if math.isfinite(alphas[name])}),
        **({"dora_axis": " and ".join(AXES[axis] for axis in axes)} if axes else {}),
        **({"glora_order": " and ".join(ORDERS[order] for order in orders)} if orders else {}),
        **({"embeddings": {word.name: [list(vectors.shape) for vectors in word.vectors] for word in words}} if words else {}),
        "incomplete": [name for name in sorted(layers) if name not in whole and name not in rarer],
        **({"rarer_types": rarer} if rarer else {}),
        "not_finite": bad,
        **_norms(list(norms.values())),
        "strongest": sorted((name for name in norms if math.isfinite(norms[name])), key=lambda name: -norms[name])[:5],
        **({"unknown": list(file.names.unknown)} if file.names.unknown else {}),
        "metadata": dict(file.metadata),
    }


def _norms(norms: Sequence[float]) -> dict[str, float | None]:
    """Mean and largest norm, None if any norm is not finite, since JSON cannot write it; empty without norms."""
    if not norms:
        return {}
    whole = all(map(math.isfinite, norms))
    return {"norm_mean": sum(norms) / len(norms) if whole else None, "norm_max": max(norms) if whole else None}


def _types(layers: Iterable[Tensors]) -> list[str]:
    """Names of the types; a LoRA with convolutions larger than 1×1 is a LoCon."""
    found: dict[str, None] = {}
    for tensors in layers:
        kind, _, dora = adapter_type_of(tensors).partition("+")
        found[NAMES[kind] + (" with DoRA" if dora else "")] = None
    convolutions = any(DOWN in tensors and max(tensors[DOWN].shape[2:], default=1) > 1 for tensors in layers)
    return [NAMES["locon"] if name == NAMES["lora"] and convolutions else name for name in found]


def _axis(shape: Iterable[int]) -> str:
    """The axis of a dora_scale: one number for each input, `[1, in, …]`, or for each output, `[out, 1, …]`."""
    first, second, *rest = [*shape, 1, 1][: max(2, len(list(shape)))]
    if any(side != 1 for side in rest) or (first != 1 and second != 1):
        return "unknown"
    return "input" if first == 1 and second != 1 else "output"
