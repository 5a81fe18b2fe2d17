"""What a LoRA file holds, in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib_lora.config.adapter import MULTIPLYING
from lib_lora.errors import LoraFileError
from lib_lora.model.adapter import by_layer
from lib_lora.model.delta import DOWN, NORM, SCALE, Tensors, kind_of, rank_of
from lib_lora.model.norms import plain_norm
from lib_lora.model.words import bundled, without_bundle
from lib_lora.output.lora_layers import names_problem, read_layers

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
    """Family, layout of the names, type, ranks, alphas, modules, norms and metadata of the file.

    Of DoRA the norms are those before its step; types that multiply the checkpoint's weight have none without it.

    Raises:
        LoraFileError: it cannot be read or holds no layer of a known type.
    """
    file = read_layers(path)
    others = {key: file.raw[key] for key in file.names.unknown if key.startswith("lora_")}  # a layer of another model is one, too
    layers, words = by_layer({**without_bundle(file.state), **others}), bundled(file.state)
    whole = {name: tensors for name, tensors in sorted(layers.items()) if kind_of(tensors)}
    if not whole and not layers and file.names.unknown:
        raise LoraFileError(names_problem(str(path), file.names))
    if not whole:
        raise LoraFileError(f"{str(path)!r} holds no LoRA: no layer has lora_down and lora_up, or tensors of another known type.")
    values = {name: {key: value for key, value in tensors.items() if key != "alpha"} for name, tensors in whole.items()}
    alphas = {name: _alpha(tensors) for name, tensors in whole.items()}
    alone = [name for name in whole if kind_of(values[name]) not in (*MULTIPLYING, NORM)]
    norms = {name: float(plain_norm(values[name], alphas[name])) for name in alone}
    orders = sorted({_over_inputs(tensors) for tensors in values.values() if kind_of(tensors) == "glora"})
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
        "alphas": sorted({alpha for alpha in alphas.values() if alpha is not None}),
        **({"dora_axis": " and ".join(AXES[axis] for axis in axes)} if axes else {}),
        **({"glora_order": " and ".join(ORDERS[order] for order in orders)} if orders else {}),
        **({"embeddings": {word.name: [list(vectors.shape) for vectors in word.vectors] for word in words}} if words else {}),
        "incomplete": [name for name in sorted(layers) if name not in whole],
        **({"norm_mean": sum(norms.values()) / len(norms), "norm_max": max(norms.values())} if norms else {}),
        "strongest": sorted(norms, key=lambda name: -norms[name])[:5],
        **({"unknown": list(file.names.unknown)} if file.names.unknown else {}),
        "metadata": dict(file.metadata),
    }


def _alpha(tensors: Tensors) -> float | None:
    if "alpha" in tensors:
        return float(tensors["alpha"])
    rank = rank_of(tensors)
    return None if rank is None else float(rank)


def _types(layers: Iterable[Tensors]) -> list[str]:
    """Names of the types; a LoRA with convolutions larger than 1×1 is a LoCon."""
    found: dict[str, None] = {}
    for tensors in layers:
        kind, _, dora = kind_of(tensors).partition("+")
        found[NAMES[kind] + (" with DoRA" if dora else "")] = None
    convolutions = any(DOWN in tensors and max(tensors[DOWN].shape[2:], default=1) > 1 for tensors in layers)
    return [NAMES["locon"] if name == NAMES["lora"] and convolutions else name for name in found]


def _over_inputs(tensors: Tensors) -> bool:
    """Of a GLoRA: whether a1 is `[rank, in]`, as the webui's loader has it, or `[in, rank]`."""
    rank, inputs = tensors["a1.weight"].shape
    return rank <= inputs


def _axis(shape: Iterable[int]) -> str:
    """Of a dora_scale: one number for every input, `[1, in, …]`, or for every output, `[out, 1, …]`."""
    first, second, *rest = [*shape, 1, 1][: max(2, len(list(shape)))]
    if any(side != 1 for side in rest) or (first != 1 and second != 1):
        return "unknown"
    return "input" if first == 1 and second != 1 else "output"
