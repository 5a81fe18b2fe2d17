"""The state of the host in words, so that two states can be compared entry by entry."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from modules import sd_hijack, sd_unet, sd_vae, shared
from torch import nn

_CLASSES = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.MultiheadAttention)


def fingerprint() -> dict[str, dict[str, str]]:
    """Sections of entries. Call it with the queue lock held."""
    model = shared.sd_model
    return {"tensors": _tensors(model), "modules": _modules(model), "classes": _classes(model), "program": _program(model)}


def _tensors(model: nn.Module) -> dict[str, str]:
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    found = {name: _tensor(tensor) for name, tensor in named}
    found["alphas_cumprod_original"] = _tensor(model.alphas_cumprod_original)  # a plain attribute, no buffer
    return found


def _tensor(tensor: torch.Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    content = hashlib.sha256((plain.view(torch.uint8) if plain.element_size() == 1 else plain).numpy().tobytes()).hexdigest()
    kind = type(tensor).__name__
    return (
        f"{content} {kind} {tensor.dtype} {tensor.device} {tuple(tensor.shape)} grad {tensor.requires_grad} {tensor.grad is None}"
    )


def _modules(model: nn.Module) -> dict[str, str]:
    return {name: _module(module) for name, module in model.named_modules(remove_duplicate=False)}


def _module(module: nn.Module) -> str:
    own = {key: _function(value) for key, value in sorted(module.__dict__.items()) if callable(value) and not key.startswith("_")}
    hooks = [
        len(getattr(module, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    ]
    return f"{type(module).__name__} training {module.training} hooks {hooks} own {own} children {list(module._modules)}"


def _classes(model: nn.Module) -> dict[str, str]:
    """The `forward` of every class in use: adapters must never reach the classes."""
    kinds = {*_CLASSES, *(type(module) for module in model.modules())}
    return {f"{kind.__module__}.{kind.__qualname__}": _function(kind.forward) for kind in kinds}


def _function(function: Any) -> str:
    plain = getattr(function, "__func__", function)
    return f"{getattr(plain, '__module__', '')}.{getattr(plain, '__qualname__', type(plain).__name__)} {id(plain)}"


def _program(model: nn.Module) -> dict[str, str]:
    return {
        "model": str(id(model)),
        "checkpoint": str(model.sd_checkpoint_info.filename),
        "vae": str(sd_vae.loaded_vae_file),
        "settings": json.dumps(_settings(), sort_keys=True, default=str),
        "job": repr(shared.state.job),
        "hypernetworks": str([id(item) for item in shared.loaded_hypernetworks]),
        "unet": str(sd_unet.current_unet),
        "circular": str(sd_hijack.model_hijack.circular_enabled),
        "attention": str(sd_hijack.model_hijack.optimization_method),
        "random": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "random on GPUs": str([hashlib.sha256(state.numpy().tobytes()).hexdigest() for state in torch.cuda.get_rng_state_all()]),
        "deterministic": str(
            (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, torch.get_num_threads())
        ),
        "default dtype": str(torch.get_default_dtype()),
    }


def _settings() -> dict[str, Any]:
    """Those that are not as the webui has them from the start; one that was set and set back is."""
    labels = shared.opts.data_labels
    return {name: value for name, value in shared.opts.data.items() if name not in labels or value != labels[name].default}
