"""What an adapter of any type adds to the weight of its layer: pure functions of the tensors that a file holds.

Tensors go by the end of their key in a file (`lora_up.weight`, `hada_w1_a` …); formulas as in LyCORIS and the webui's loader.

    LoRA  s · up down                                        Hu et al. 2021
    LoHa  s · (w1_a w1_b) ∘ (w2_a w2_b)                      Hyeon-Woo et al. 2022, FedPara
    LoKr  s · w1 ⊗ w2, each whole or a product               Yeh et al. 2024, LyCORIS
    DoRA  m · (W + Δ) / ‖W + Δ‖ − W, Δ as LoRA's             Liu et al. 2024, norms of input columns

s = alpha / rank; 1 for a LoKr of two whole matrices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

Tensors = Mapping[str, torch.Tensor]

DOWN, UP, SCALE = "lora_down.weight", "lora_up.weight", "dora_scale"
HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_HALF_KEYS = [({f"lokr_w{half}"}, {f"lokr_w{half}_a", f"lokr_w{half}_b"}) for half in (1, 2)]


def kind_of(keys: Collection[str]) -> str:
    """lora, dora, loha, lokr, full, the last three with `+dora` too; "" for what is none of them, or not whole."""
    names = set(keys) - {"alpha"}
    rest = names - {SCALE}
    found = ""
    if rest == {DOWN, UP}:
        found = "lora"
    elif rest == set(HADAMARD):
        found = "loha"
    elif any(rest == first | second for first in _HALF_KEYS[0] for second in _HALF_KEYS[1]):
        found = "lokr"
    elif rest == {"diff"}:
        found = "full"
    if not found or rest == names:
        return found
    return "dora" if found == "lora" else f"{found}+dora"


def rank_of(tensors: Tensors) -> int | None:
    """The rank that alpha is divided by; None where no product is in it."""
    for key in (DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if key in tensors:
            return len(tensors[key])
    return None


def scale_of(tensors: Tensors, alpha: float | None) -> float:
    """What a product is multiplied with: alpha / rank, where no alpha means the rank."""
    rank = rank_of(tensors)
    return 1.0 if rank is None or alpha is None else alpha / rank


def delta(tensors: Tensors, alpha: float | None, weight: torch.Tensor) -> torch.Tensor:
    """What is added to `weight`, fp32, of its shape.

    Raises:
        ValueError: a type that is unknown, or a DoRA over the other axis.
        RuntimeError: shapes do not fit.
    """
    plain = plain_delta(tensors, alpha, weight.shape)
    return decomposed(weight.float(), plain, tensors[SCALE].float()) if SCALE in tensors else plain


def plain_delta(tensors: Tensors, alpha: float | None, shape: Sequence[int]) -> torch.Tensor:
    """The same before DoRA's step, which alone needs the weight."""
    kind = kind_of(tensors).removesuffix("+dora")
    scale = scale_of(tensors, alpha)
    values = {key: value.float() for key, value in tensors.items()}
    if kind in ("lora", "dora"):
        return low_rank(values[DOWN], values[UP]).reshape(*shape) * scale
    if kind == "loha":
        return hadamard(*(values[key] for key in HADAMARD)).reshape(*shape) * scale
    if kind == "lokr":
        return kronecker(_half(values, 1), _half(values, 2)).reshape(*shape) * scale
    if kind == "full":
        return values["diff"].reshape(*shape) * (1.0 if alpha is None else alpha)
    raise ValueError(f"no adapter of a known type: {sorted(tensors)}")


def low_rank(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Shapes: `[rank, in, …]`, `[out, rank, …]` -> `[out, in · …]`."""
    return up.flatten(1) @ down.flatten(1)


def hadamard(w1_a: torch.Tensor, w1_b: torch.Tensor, w2_a: torch.Tensor, w2_b: torch.Tensor) -> torch.Tensor:
    """Shapes: twice `[out, rank]`, `[rank, in · …]` -> `[out, in · …]`."""
    return (w1_a @ w1_b) * (w2_a @ w2_b)


def kronecker(w1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
    """Shapes: `[a, c]`, `[b, d]` or `[b, d, k, k]` -> `[a · b, c · d, …]`."""
    return torch.kron(w1.reshape(*w1.shape, *[1] * (w2.dim() - 2)), w2.contiguous())


def decomposed(weight: torch.Tensor, plain: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """DoRA's delta. Shapes: `[out, in, …]` twice, `[1, in, …]` of ones.

    Raises:
        ValueError: `magnitude` is one of output rows, `[out, 1, …]`.
    """
    if magnitude.shape != (1, weight.shape[1], *[1] * (weight.dim() - 2)):
        raise ValueError(f"dora_scale is {tuple(magnitude.shape)}, not one number for every input")
    merged = weight + plain
    return merged * (magnitude / input_norms(merged)) - weight


def input_norms(weight: torch.Tensor) -> torch.Tensor:
    """The norm of what each input contributes. Shapes: `[out, in, …]` -> `[1, in, …]` of ones."""
    norms: torch.Tensor = torch.linalg.vector_norm(weight, dim=[0, *range(2, weight.dim())], keepdim=True)
    return norms


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """`dimension` as a product of two whole numbers, the smaller first (LyCORIS `factorization`).

    With a factor that divides it, that one and the rest. Else the pair nearest to a square whose smaller number is at most
    `factor`, or any for -1.
    """
    if factor > 0 and dimension % factor == 0:
        return min(factor, dimension // factor), max(factor, dimension // factor)
    most = dimension if factor < 0 else factor
    smaller = max(n for n in range(1, int(dimension**0.5) + 1) if dimension % n == 0 and (n == 1 or n <= most))
    return smaller, dimension // smaller


def _half(values: Tensors, half: int) -> torch.Tensor:
    whole = values.get(f"lokr_w{half}")
    return values[f"lokr_w{half}_a"] @ values[f"lokr_w{half}_b"] if whole is None else whole
