"""Changes of norms in LoRA files (LyCORIS' train_norm): applied while a model is trained, but never trained here.

A norm returns (w + Δw) · x̂ + b + Δb, where x̂ is the input with mean 0 and variance 1 (Ba et al. 2016; Wu and He 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.errors import LoraFileError
from lib_lora.model.base import BaseModel
from lib_lora.model.layer_names.text import text_paths
from lib_lora.model.layer_names.unet import place_of, unet_name
from lib_lora.model.patching import Forward, forwards_replaced

Shift = tuple[torch.Tensor, torch.Tensor]  # Δw and Δb, `[channels]` each


def norms_of(base: BaseModel) -> dict[str, nn.Module]:
    """The model's norms by their names in files."""
    found: dict[str, nn.Module] = {}
    for path, module in base.unet.named_modules():
        place = place_of(path.replace(".", "_")) if _is_norm(module) else None
        if place is not None and place.is_norm:
            found[unet_name(path, base.family)] = module
    for encoder, prefix in zip(base.text_encoders, base.family.text_prefixes):
        for path, module in encoder.module.named_modules():
            for name in text_paths(path.replace(".", "_")) if _is_norm(module) else ():
                found[f"{prefix}_{name}"] = module
    return found


def shifted(base: BaseModel, shifts: Mapping[str, Shift]) -> AbstractContextManager[None]:
    """Context manager that applies `shifts` to the norms that they name."""
    modules = norms_of(base) if shifts else {}
    return forwards_replaced({modules[name]: _forward(modules[name], *shift) for name, shift in shifts.items()})


def check_fits(name: str, module: nn.Module, shift: Shift) -> None:
    """Check that `shift` has one number per channel.

    Raises:
        LoraFileError: the shift is of another model.
    """
    weight = module.weight
    if not isinstance(weight, torch.Tensor) or any(part.shape != weight.shape for part in shift):
        raise LoraFileError(f"The LoRA's layer {name!r} does not fit the model.")


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.GroupNorm, nn.LayerNorm)) and module.weight is not None and module.bias is not None


def _forward(module: nn.Module, factor: torch.Tensor, bias: torch.Tensor) -> Forward:
    def forward(x: torch.Tensor) -> torch.Tensor:
        """Shapes: `[B, channels, …]` or `[…, channels]` -> the same. Computed in fp32."""
        assert isinstance(module, (nn.GroupNorm, nn.LayerNorm))
        scale, shift = (module.weight.float() + factor, module.bias.float() + bias)
        if isinstance(module, nn.GroupNorm):
            return F.group_norm(x.float(), module.num_groups, scale, shift, module.eps).to(x.dtype)
        return F.layer_norm(x.float(), module.normalized_shape, scale, shift, module.eps).to(x.dtype)

    return forward
