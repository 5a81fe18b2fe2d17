"""Adapter types in files of other programs that are not trained here: what they are, and what to choose instead."""

from __future__ import annotations

from collections.abc import Mapping

from lib_lora.model.delta import BIAS, BLOCKS, NORM, Tensors, adapter_type_of, is_part
from lib_lora.model.layer_names.further import is_norm

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
