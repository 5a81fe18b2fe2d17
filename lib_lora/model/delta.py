"""What an adapter of any type adds to its layer's weight: pure functions of the tensors in a file.

Tensors are named by the suffix of their key (`lora_up.weight`, `hada_w1_a` …); formulas as in LyCORIS and the webui's loader.

    LoRA   s · up down                                       Hu et al. 2021
    LoHa   s · (w1_a w1_b) ∘ (w2_a w2_b)                     Hyeon-Woo et al. 2022, FedPara
    LoKr   s · w1 ⊗ w2, each whole or a product              Yeh et al. 2024, LyCORIS
    DoRA   m · (W + Δ) / ‖W + Δ‖ − W, Δ as LoRA's            Liu et al. 2024, norms of input columns
    (IA)³  W ∘ v, one number per input or output             Liu et al. 2022, v = l − 1
    OFT    (Rᵀ − 1) W, R = (1 + Q)(1 − Q)⁻¹ in blocks        Qiu et al. 2023, Cayley's form of rotations of outputs
    GLoRA  W a2 a1 + b2 b1                                   Chavan et al. 2023, A and B of low rank

s = alpha / rank; 1 for a LoKr of two whole matrices. The last three have no s. An OFT's alpha limits Q's norm to alpha times the
number of outputs; 0: no limit. (IA)³ is stored here as `ia3_in` or `ia3_out`, by the axis of v (`from_file`, `to_file`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

Tensors = Mapping[str, torch.Tensor]

DOWN, UP, SCALE = "lora_down.weight", "lora_up.weight", "dora_scale"
HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
IA3_IN, IA3_OUT, BLOCKS = "ia3_in", "ia3_out", "oft_blocks"
NORM, BIAS = "norm", "diff_b"  # changes of a norm's factor and bias; of a layer's bias beside its weight
GENERAL = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
_WHOLE = {  # the tensors of a layer, except alpha and dora_scale
    frozenset({DOWN, UP}): "lora",
    frozenset(HADAMARD): "loha",
    frozenset({"diff"}): "full",
    frozenset({"diff", BIAS}): "full",
    frozenset({"w_norm", "b_norm"}): NORM,
    frozenset({IA3_IN}): "ia3",
    frozenset({IA3_OUT}): "ia3",
    frozenset({"weight", "on_input"}): "ia3",
    frozenset({BLOCKS}): "diag-oft",
    frozenset(GENERAL): "glora",
}
_DECOMPOSED = {"lora": "dora", "loha": "loha+dora", "lokr": "lokr+dora", "full": "full+dora"}
_HALF_KEYS = [({f"lokr_w{half}"}, {f"lokr_w{half}_a", f"lokr_w{half}_b"}) for half in (1, 2)]
_KRONECKER = {key for halves in _HALF_KEYS for half in halves for key in half}


def adapter_type_of(keys: Collection[str]) -> str:
    """lora, dora, loha, lokr, full, the last three also with `+dora`, ia3, diag-oft, glora, norm; "" if unknown or incomplete."""
    names = set(keys) - {"alpha"}
    rest = names - {SCALE}
    found = _WHOLE.get(frozenset(rest), "")
    if any(rest == first | second for first in _HALF_KEYS[0] for second in _HALF_KEYS[1]):
        found = "lokr"
    return found if rest == names else _DECOMPOSED.get(found, "")


def is_part(keys: Collection[str]) -> bool:
    """Whether these are some, but not all, tensors of a known type."""
    rest = set(keys) - {"alpha", SCALE}
    return not adapter_type_of(keys) and (any(rest < whole for whole in _WHOLE) or rest <= _KRONECKER)


def rank_of(tensors: Tensors) -> int | None:
    """The rank that alpha is divided by; None if the adapter has no low-rank product."""
    for key in (DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if key in tensors:
            return len(tensors[key])
    return min(tensors["a1.weight"].shape[:2]) if "a1.weight" in tensors else None  # in either order of its factors


def is_over_inputs(tensors: Tensors) -> bool:
    """Whether a GLoRA's a1 is `[rank, in]`, as in the webui's loader and here, not `[in, rank]`, as in LyCORIS since 3.0."""
    rank, inputs, *_ = tensors["a1.weight"].shape
    return rank <= inputs


def from_file(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors as adapters hold them: (IA)³'s vector by its axis, GLoRA in the webui's order, other types unchanged."""
    if adapter_type_of(tensors) == "glora" and not is_over_inputs(tensors):
        a1, a2, b1, b2 = GENERAL
        return {**tensors, a1: tensors[a2], a2: tensors[a1], b1: tensors[b2], b2: tensors[b1]}
    if adapter_type_of(tensors) != "ia3" or "weight" not in tensors:
        return dict(tensors)
    rest = {key: value for key, value in tensors.items() if key not in ("weight", "on_input")}
    return {**rest, IA3_IN if float(tensors["on_input"]) else IA3_OUT: tensors["weight"].flatten()}


def to_file(tensors: Tensors, alpha: float) -> dict[str, torch.Tensor]:
    """The tensors as files hold them, with alpha if the type has one."""
    if adapter_type_of(tensors) == "ia3":
        ((key, value),) = tensors.items()
        return {"weight": value, "on_input": torch.tensor(float(key == IA3_IN))}
    return {**tensors, "alpha": torch.tensor(float(alpha))}


def scale_of(tensors: Tensors, alpha: float | None) -> float:
    """The factor on a product: alpha / rank; 1 if there is no alpha or no rank."""
    rank = rank_of(tensors)
    return 1.0 if rank is None or alpha is None else alpha / rank


def delta(tensors: Tensors, alpha: float | None, weight: torch.Tensor) -> torch.Tensor:
    """What the adapter adds to `weight`, fp32, of the same shape.

    Raises:
        ValueError: unknown type, DoRA over the other axis, or GLoRA for a convolution.
        RuntimeError: shapes do not fit.
    """
    kind = adapter_type_of(tensors)
    values = {key: value.float() for key, value in tensors.items()}
    if kind == "ia3":
        return scaled(weight.float(), values.get(IA3_IN), values.get(IA3_OUT))
    if kind == "diag-oft":
        return rotated(weight.float(), values[BLOCKS], alpha or 0.0)
    if kind == "glora":
        return general(weight.float(), *(values[key] for key in GENERAL))
    plain = plain_delta(tensors, alpha, weight.shape)
    return decomposed(weight.float(), plain, values[SCALE]) if SCALE in tensors else plain


def plain_delta(tensors: Tensors, alpha: float | None, shape: Sequence[int]) -> torch.Tensor:
    """The delta without the layer's weight; of a DoRA before its decomposition.

    Raises:
        ValueError: unknown type, or a type whose delta depends on the weight.
    """
    kind = adapter_type_of(tensors).removesuffix("+dora")
    values = {key: value.float() for key, value in tensors.items()}
    if kind == "full":
        return values["diff"].reshape(*shape) * (1.0 if alpha is None else alpha)
    if kind in ("lora", "dora"):
        product = values[UP].flatten(1) @ values[DOWN].flatten(1)  # [out, rank, …], [rank, in, …] -> [out, in · …]
    elif kind == "loha":
        w1_a, w1_b, w2_a, w2_b = (values[key] for key in HADAMARD)
        product = (w1_a @ w1_b) * (w2_a @ w2_b)  # two of [out, rank], [rank, in · …] -> [out, in · …]
    elif kind == "lokr":
        w1, w2 = _half(values, 1), _half(values, 2)  # [a, c], [b, d, …] -> [a · b, c · d, …]
        product = torch.kron(w1.reshape(*w1.shape, *[1] * (w2.dim() - 2)), w2.contiguous())
    else:
        raise ValueError(f"no adapter of a known type: {sorted(tensors)}")
    return product.reshape(*shape) * scale_of(tensors, alpha)


def plain_norm(tensors: Tensors, alpha: float | None) -> torch.Tensor:
    """Frobenius norm of `plain_delta`, a scalar, fp32; of a LoRA without computing the delta: √tr((UᵀU)(DDᵀ))."""
    if DOWN not in tensors:
        norm: torch.Tensor = torch.linalg.vector_norm(plain_delta(tensors, alpha, (-1,)))
        return norm
    down, up = (tensors[key].float().flatten(1) for key in (DOWN, UP))
    square = ((up.t() @ up) * (down @ down.t())).sum()
    return abs(scale_of(tensors, alpha)) * square.clamp(min=0.0).sqrt()


def decomposed(weight: torch.Tensor, plain: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """DoRA's delta. Shapes: weight and plain `[out, in, …]`, magnitude `[1, in, 1, …]`.

    Raises:
        ValueError: `magnitude` is that of output rows, `[out, 1, …]`.
    """
    if magnitude.shape != (1, weight.shape[1], *[1] * (weight.dim() - 2)):
        raise ValueError(f"dora_scale is {tuple(magnitude.shape)}, not one number for every input")
    merged = weight + plain
    return merged * (magnitude / input_norms(merged)) - weight


def input_norms(weight: torch.Tensor) -> torch.Tensor:
    """The norm of each input's weights. Shapes: `[out, in, …]` -> `[1, in, 1, …]`."""
    norms: torch.Tensor = torch.linalg.vector_norm(weight, dim=[0, *range(2, weight.dim())], keepdim=True)
    return norms


def scaled(weight: torch.Tensor, inputs: torch.Tensor | None, outputs: torch.Tensor | None) -> torch.Tensor:
    """(IA)³'s delta. Shapes: weight `[out, in, …]`, inputs `[in]` or outputs `[out]`."""
    ones = [1] * (weight.dim() - 2)
    if inputs is not None:
        return weight * inputs.reshape(1, weight.shape[1], *ones)
    assert outputs is not None
    return weight * outputs.reshape(weight.shape[0], 1, *ones)


def rotated(weight: torch.Tensor, blocks: torch.Tensor, constraint: float = 0.0) -> torch.Tensor:
    """OFT's delta. R − 1 is computed as 2 Q (1 − Q)⁻¹, so no precision is lost to the 1.

    Shapes: `[out, …]`, `[count, size, size]` with out = count · size.

    Raises:
        ValueError: `blocks` are those of a BOFT or of another layer.
    """
    if blocks.dim() != 3 or blocks.shape[0] * blocks.shape[1] != len(weight):
        raise ValueError(f"oft_blocks are {tuple(blocks.shape)} beside {len(weight)} outputs")
    count, size, _ = blocks.shape
    q = blocks - blocks.transpose(1, 2)
    if constraint > 0:
        norm = torch.linalg.vector_norm(q)
        q = q * ((norm.clamp(max=constraint * len(weight)) + 1e-8) / (norm + 1e-8))
    inverse: torch.Tensor = torch.linalg.inv(torch.eye(size, device=q.device) - q)
    turn = 2 * q @ inverse
    return (turn.transpose(1, 2) @ weight.reshape(count, size, -1)).reshape(weight.shape)


def general(weight: torch.Tensor, a1: torch.Tensor, a2: torch.Tensor, b1: torch.Tensor, b2: torch.Tensor) -> torch.Tensor:
    """GLoRA's delta. Shapes: `[out, in]`; a1 and b1 `[rank, in]`, a2 `[in, rank]`, b2 `[out, rank]`.

    Raises:
        ValueError: `weight` is a convolution's, which the webui's loader cannot read.
    """
    if weight.dim() != 2:
        raise ValueError(f"a GLoRA beside a weight of {weight.dim()} dimensions")
    return weight @ a2 @ a1 + b2 @ b1


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """`dimension` as a product of two integers, the smaller first (LyCORIS `factorization`).

    If `factor` divides it: that one and the quotient. Else the two nearest to a square, the smaller at most `factor`; -1: any.
    """
    if factor > 0 and dimension % factor == 0:
        return min(factor, dimension // factor), max(factor, dimension // factor)
    most = dimension if factor < 0 else factor
    smaller = max(n for n in range(1, int(dimension**0.5) + 1) if dimension % n == 0 and (n == 1 or n <= most))
    return smaller, dimension // smaller


def _half(values: Tensors, half: int) -> torch.Tensor:
    whole = values.get(f"lokr_w{half}")
    return values[f"lokr_w{half}_a"] @ values[f"lokr_w{half}_b"] if whole is None else whole
