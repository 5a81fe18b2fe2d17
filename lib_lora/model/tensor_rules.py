"""What the tensors of any LoRA file must be: of types and numbers that can be trained, and of shapes that fit together.

Every file that is continued from, merged, truncated or described is checked here first, layer by layer, without a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from lib_lora.errors import LoraFileError
from lib_lora.model.delta import (
    BIAS,
    BLOCKS,
    DOWN,
    GENERAL,
    HADAMARD,
    IA3_IN,
    IA3_OUT,
    NORM,
    SCALE,
    UP,
    Tensors,
    adapter_type_of,
    is_part,
    rank_of,
)
from lib_lora.model.layer_names.further import is_norm

Layers = Mapping[str, Tensors]

MOST_NUMBERS = 2**27  # of a weight; SDXL's largest has 30 million
_SINGLE = ("alpha", "on_input")  # one number each, of any dtype: sd-scripts and LyCORIS also write integers
_VECTORS = ("weight", IA3_IN, IA3_OUT)  # of an (IA)³
_DIMENSIONS = {  # allowed numbers of dimensions: those of the layer's weight, or always the same
    **dict.fromkeys((DOWN, UP, *GENERAL, "lokr_w2"), (2, 4)),
    **dict.fromkeys((*HADAMARD, "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"), (2,)),
    **{BLOCKS: (3, 4), "diff": (1, 2, 3, 4), SCALE: (1, 2, 4)},
}
_TUCKER = "with Tucker's decomposition; choose one made without use_tucker (use_cp)"
_BY_KEY = {  # a key that only this type has -> what it is; what to do
    "lora_mid.weight": f"a LoCon {_TUCKER}",
    "hada_t1": f"a LoHa {_TUCKER}",
    "lokr_t2": f"a LoKr {_TUCKER}",
    "rescale": "an OFT with rescaled outputs; choose one made without rescaled",
    "oft_diag": "an OFT in an older format; choose one that has oft_blocks",
    "bm.weight": f"a GLoRA {_TUCKER}",
    "scalar": "scaled by a tensor; choose a file made without use_scalar",
    "scale": "scaled by a tensor; choose a file with alphas instead",
}
_BUTTERFLY = "a BOFT (butterfly); choose an OFT (diag-oft)"
_KERNEL = "a GLoRA of a convolution; choose one of the transformers only (LyCORIS' preset attn-mlp)"
_OTHER = "choose a file of another type"


def alpha_of(tensors: Tensors) -> float:
    """Alpha of a layer; if the file has none, the rank (no scaling), 1 without a rank, 0 (no limit) for an OFT.

    A full difference is never scaled, whatever its file states: no program that reads it does.
    """
    if "alpha" in tensors and not adapter_type_of(tensors).startswith("full"):
        return float(tensors["alpha"])
    return 0.0 if adapter_type_of(tensors) == "diag-oft" else float(rank_of(tensors) or 1)


def check_layers(layers: Layers, start: str, *, finite: bool = True) -> None:
    """Check the tensors of all layers. `start`: names the file and its option. `finite`: every number must be finite.

    Raises:
        LoraFileError: one sentence with the first layer of each type of damage, and how many more have it.
    """
    found: dict[str, list[str]] = {}
    for name, tensors in layers.items():
        kind, words = layer_problem(tensors) if adapter_type_of(tensors) else ("", "")
        if not kind and finite and not is_finite(tensors):
            kind, words = "finite", "has numbers that are not finite (NaN or infinite)"
        if kind:
            found.setdefault(kind, []).append(f"{name!r} {words}")
    if found:
        told = [first + (f" (and {len(more)} more)" if more else "") for first, *more in found.values()]
        raise LoraFileError(f"{start}is damaged: layer {'; layer '.join(told)}. Choose an undamaged file.")


def not_finite(layers: Layers) -> list[str]:
    """The layers that have a number that is not finite."""
    return [name for name, tensors in layers.items() if not is_finite(tensors)]


def is_finite(tensors: Tensors) -> bool:
    """Whether every number is finite, also in fp32, in which adapters are trained."""
    return all(bool(torch.isfinite(_real(value)).all()) for value in tensors.values())


def layer_problem(tensors: Tensors) -> tuple[str, str]:
    """Type of damage of a layer of a known type, and a phrase to follow the layer's name; "" and "" if there is none."""
    looks = (("single", _single_problems), ("numbers", _number_problems), ("shapes", _shape_problems), ("halves", _half_problems))
    return next(((kind, words) for kind, look in looks for words in look(tensors)), ("", ""))


def _real(value: torch.Tensor) -> torch.Tensor:
    return value if value.is_complex() else value.float()


def _single_problems(tensors: Tensors) -> Iterator[str]:
    """`alpha` and `on_input` must be one number."""
    for key in _SINGLE:
        value = tensors.get(key)
        if value is not None and value.numel() != 1:
            yield f"has {value.numel()} numbers in {key}, must be one"
        elif value is not None and (value.is_complex() or (value.dtype == torch.bool and key == "alpha")):
            yield f"has {_dtype(value)} in {key}, must be a number"


def _number_problems(tensors: Tensors) -> Iterator[str]:
    """Numbers must be floating point: integers are those of a compressed file, which states their meaning elsewhere."""
    for key, value in tensors.items():
        if key not in _SINGLE and not value.is_floating_point():
            yield f"has {key} in {_dtype(value)}, must be floating point"
        elif key not in _SINGLE and not value.numel():
            yield f"has an empty {key} with the shape {shape_words(value)}"


def _shape_problems(tensors: Tensors) -> Iterator[str]:
    """Tensors must have as many dimensions as a weight, or a factor of it, can have."""
    for key, value in tensors.items():
        wanted = _DIMENSIONS.get(key)
        if key in _VECTORS:
            if max(value.shape, default=1) != value.numel():
                yield f"has {key} with the shape {shape_words(value)}, must be a single row"
        elif wanted and value.dim() not in wanted:
            yield f"has {key} with the shape {shape_words(value)}, must have {' or '.join(map(str, wanted))} dimensions"


def _half_problems(tensors: Tensors) -> Iterator[str]:
    """Factors of a product must share their rank, and terms that are added or multiplied their shape."""
    kind = adapter_type_of(tensors).partition("+")[0].replace("dora", "lora")
    if kind == "lora":
        down, up = tensors[DOWN], tensors[UP]
        if up.shape[1] != len(down) or math.prod(up.shape[2:]) != 1:
            yield _apart(tensors, DOWN, UP)
    elif kind == "loha":
        yield from _hadamard_problems(tensors)
    elif kind == "lokr":
        yield from _kronecker_problems(tensors)
    elif kind == "diag-oft" and tensors[BLOCKS].shape[-1] != tensors[BLOCKS].shape[-2]:
        yield f"has {BLOCKS} with the shape {shape_words(tensors[BLOCKS])}, must be square blocks"
    elif kind == "glora":
        yield from _general_problems(tensors)
    if kind in ("lora", "loha", "lokr") and _size(tensors) > MOST_NUMBERS:
        yield f"belongs to a weight of {_size(tensors)} numbers, must have at most {MOST_NUMBERS}"
    if SCALE in tensors and not _is_row_or_column(tensors):
        yield (
            f"has {SCALE} with the shape {shape_words(tensors[SCALE])}, must be one number for every input or output of its layer"
        )


def _hadamard_problems(tensors: Tensors) -> Iterator[str]:
    shapes = [tuple(tensors[key].shape) for key in HADAMARD]
    (out, rank), (_, inner), *_ = shapes
    if shapes != [(out, rank), (rank, inner)] * 2:
        yield _apart(tensors, *HADAMARD)


def _kronecker_problems(tensors: Tensors) -> Iterator[str]:
    ranks = set()
    for half in (1, 2):
        a, b = f"lokr_w{half}_a", f"lokr_w{half}_b"
        if a in tensors:
            ranks |= {tensors[a].shape[1], tensors[b].shape[0]}
    if len(ranks) > 1:
        yield _apart(tensors, *(key for key in sorted(tensors) if key.startswith("lokr_") and key.endswith(("_a", "_b"))))


def _general_problems(tensors: Tensors) -> Iterator[str]:
    """Factors must fit in either order: LyCORIS swapped them in 3.0."""
    for first, second in (GENERAL[:2], GENERAL[2:]):
        (a, b, *_), (c, d, *_) = tensors[first].shape, tensors[second].shape
        if a != d and b != c:
            yield _apart(tensors, first, second)


def _is_row_or_column(tensors: Tensors) -> bool:
    """Whether a DoRA's magnitudes fit one side of the weight; the length of a convolution's folded side is unknown."""
    scale, (out, inner) = tensors[SCALE], _sides(tensors)
    if max(scale.shape, default=1) != scale.numel() or max(scale.shape[2:], default=1) > 1:
        return False
    return scale.numel() == out or (
        scale.numel() == inner if DOWN in tensors or "diff" in tensors else inner % scale.numel() == 0
    )


def _sides(tensors: Tensors) -> tuple[int, int]:
    """Outputs and inputs of the decomposed weight; inputs times the kernel if the two are folded together."""
    if DOWN in tensors:
        return len(tensors[UP]), tensors[DOWN].shape[1]
    if "diff" in tensors:
        return len(tensors["diff"]), [*tensors["diff"].shape, 1][1]
    if HADAMARD[0] in tensors:
        return len(tensors[HADAMARD[0]]), tensors[HADAMARD[1]].shape[1]
    whole = [tensors.get(f"lokr_w{half}", tensors.get(f"lokr_w{half}_a")) for half in (1, 2)]
    inner = [tensors.get(f"lokr_w{half}", tensors.get(f"lokr_w{half}_b")) for half in (1, 2)]
    return math.prod(len(value) for value in whole if value is not None), math.prod(
        math.prod(value.shape[1:]) for value in inner if value is not None
    )


def _size(tensors: Tensors) -> int:
    """Number of elements of the weight, or of the largest intermediate product."""
    kernel = math.prod(tensors[DOWN].shape[2:]) if DOWN in tensors else 1
    return max(math.prod(_sides(tensors)) * kernel, (rank_of(tensors) or 0) ** 2)


def _apart(tensors: Tensors, *keys: str) -> str:
    shapes = ", ".join(f"{key} {shape_words(tensors[key])}" for key in keys)
    return f"has factors with shapes that do not match: {shapes}"


def shape_words(value: torch.Tensor) -> str:
    """`[2, 64]` -> `2×64`."""
    return "×".join(map(str, value.shape)) or "scalar"


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def rarer_type(name: str, tensors: Tensors) -> str:
    """What a layer of an unknown type is and what to do, in words; "" if its type is known, or it is an incomplete known type.

    Norms must have the type of norms, and no other layer may. The blocks of a BOFT have four dimensions.
    """
    if BLOCKS in tensors and tensors[BLOCKS].dim() == 4:
        return _BUTTERFLY
    kind = adapter_type_of(tensors)
    if kind == "glora" and tensors["b1.weight"].dim() == 4:
        return _KERNEL
    if kind and (kind == NORM) == is_norm(name):
        return ""
    if is_part(tensors) and ("w_norm" in tensors or "b_norm" in tensors) == is_norm(name):
        return ""
    found = next((words for key, words in _BY_KEY.items() if key in tensors), "")
    if not found and not is_norm(name) and BIAS in tensors and adapter_type_of(set(tensors) - {BIAS}):
        return "a change of the bias as well as of the weight; choose a file made without biases (ComfyUI's bias_diff)"
    return found or f"with {', '.join(sorted(set(tensors) - {'alpha'})) or 'alpha only'}; {_OTHER}"


def rarer_problem(path: str, layers: Mapping[str, Tensors]) -> str | None:
    """Which layers of the file cannot be continued from because of their type, in one sentence; None if all can."""
    found = {name: words for name, tensors in layers.items() if (words := rarer_type(name, tensors))}
    if not found:
        return None
    name, words = next(iter(found.items()))
    many = f"{len(found)} layers of types that" if len(found) > 1 else "a layer of a type that"
    return f"{path!r} has {many} cannot be trained, {'such as ' if len(found) > 1 else ''}{name!r}, {words}."
