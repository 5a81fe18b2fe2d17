"""A copy of a model on torch's meta device, layer by layer, on which memory is counted."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import TextEncoder
from lib_lora.model.inpainting import Surroundings
from lib_lora.model.open_clip import OpenClipEncoder, open_clip_encoder

META = torch.device("meta")


def meta_model(base: BaseModel) -> BaseModel:
    """A copy of `base` on the meta device, without `forward`s set on its instances. `base` is not changed.

    The VAE is fp32, as it is while it is borrowed.
    """
    made: dict[int, nn.Module] = {}
    alike: Any = copy.copy(base)
    alike.device = META
    alike.unet = _module(base.unet, made)
    alike.vae = _module(base.vae, made)
    for parameter in alike.vae.parameters():
        parameter.data = parameter.data.float()
    alike.text_encoders = tuple(_encoder(encoder, made) for encoder in base.text_encoders)
    alike.noise_process = base.noise_process.to(META)
    alike._surroundings = Surroundings(alike)
    found: BaseModel = alike
    return found


def _encoder(encoder: TextEncoder, made: dict[int, nn.Module]) -> TextEncoder:
    module = _module(encoder.module, made)
    if isinstance(encoder, OpenClipEncoder):
        return replace(open_clip_encoder(module, pools=encoder.pools), turned=encoder.turned)
    found: TextEncoder = replace(encoder, module=module)  # type: ignore[type-var]
    return found


def _module(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """The same class and settings with meta weights; a shared module stays shared."""
    if id(module) in made:
        return made[id(module)]
    inner = getattr(module, "wrapped", None)
    if isinstance(inner, nn.Embedding):  # the webui's, which reads textual inversions
        return _module(inner, made)
    alike = module.__class__.__new__(module.__class__)
    made[id(module)] = alike
    alike.__dict__.update(module.__dict__)
    alike.__dict__.pop("forward", None)
    alike.__dict__["_parameters"] = {name: _parameter(value) for name, value in module._parameters.items()}
    alike.__dict__["_buffers"] = {name: None if value is None else _empty(value) for name, value in module._buffers.items()}
    alike.__dict__["_modules"] = {
        name: None if value is None else _module(value, made) for name, value in module._modules.items()
    }
    alike.training = False
    return alike


def _parameter(value: torch.Tensor | None) -> nn.Parameter | None:
    return None if value is None else nn.Parameter(_empty(value), requires_grad=False)


def _empty(value: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(value.detach(), device=META)
