"""Whether a LoRA changes anything after its values are rounded to the dtype of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lib_lora.model import delta as algebra
from lib_lora.model.adapter import Adapter, State, by_layer
from lib_lora.model.adapter_types import weight_of
from lib_lora.model.embeddings import BUNDLE


def has_effect(state: Mapping[str, torch.Tensor], dtype: torch.dtype, adapters: Sequence[Adapter]) -> bool:
    """Whether any layer of `state`, rounded to `dtype`, changes its weight, or `state` holds an embedding.

    `adapters` name the layers of the model; the magnitudes of a DoRA are compared with the norms of the original weight.
    """
    targets = {adapter.target.name: adapter.target for adapter in adapters}
    for name, tensors in by_layer(dict(state)).items():
        rounded = {key: value.to(dtype) for key, value in tensors.items()}
        if name == BUNDLE or _adds(rounded):
            return True
        if algebra.SCALE in rounded and name in targets:
            norms = algebra.input_norms(weight_of(targets[name]).detach().float().cpu()).to(dtype)
            if not torch.equal(norms.flatten(), rounded[algebra.SCALE].flatten()):
                return True
    return False


def _adds(tensors: State) -> bool:
    """Whether a layer's weight delta is nonzero. A product counts as zero if one of its factors is."""
    kind = algebra.adapter_type_of(tensors).removesuffix("+dora")
    alpha = tensors.get("alpha")
    scaled_away = alpha is not None and float(alpha) == 0.0 and algebra.rank_of(tensors) is not None and kind != "glora"

    def nonzero(*keys: str) -> bool:
        return all(bool(tensors[key].any()) for key in keys)

    if kind in ("lora", "dora"):
        return nonzero(algebra.DOWN, algebra.UP) and not scaled_away
    if kind == "loha":
        return nonzero(*algebra.HADAMARD) and not scaled_away
    if kind == "lokr":
        halves = ([key for key in tensors if key.startswith(f"lokr_w{half}")] for half in (1, 2))
        return all(nonzero(*keys) for keys in halves) and not scaled_away
    if kind == "glora":
        a1, a2, b1, b2 = algebra.GENERAL
        return nonzero(a1, a2) or nonzero(b1, b2)
    if kind == "diag-oft":
        blocks = tensors[algebra.BLOCKS].float()
        return bool((blocks != blocks.transpose(1, 2)).any())
    return any(bool(value.any()) for key, value in tensors.items() if key not in ("alpha", "on_input"))
