"""A copy of a model on torch's meta device, layer by layer, on which memory is counted, and what that device lacks.

Autocast, fused attention and gradient checkpointing are emulated on meta tensors, to count their bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import Function, once_differentiable
from torch.overrides import TorchFunctionMode

from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import TextEncoder
from lib_lora.model.frozen_layers import applied
from lib_lora.model.inpainting import Surroundings
from lib_lora.model.meta_device import EmulatedDevice, emulated, emulating
from lib_lora.model.open_clip import OpenClipEncoder, open_clip_encoder
from lib_lora.model.patching import Forward

META = torch.device("meta")
# from torch's lists, what is used here: functions that autocast runs in the lower precision, and that CUDA's runs in fp32
_LOWER: set[Callable[..., Any]] = {
    F.linear, F.conv2d, torch.conv2d, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.bmm,
    torch.baddbmm, torch.addmm, torch.einsum, torch.Tensor.mm, torch.Tensor.bmm,
}  # fmt: skip
_FULL: set[Callable[..., Any]] = {
    F.layer_norm, F.group_norm, torch.layer_norm, torch.group_norm, F.softmax, torch.softmax, torch.Tensor.softmax, F.mse_loss,
}  # fmt: skip


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


@contextmanager
def meta_ops(emulated: EmulatedDevice) -> Iterator[None]:
    """Context manager under which operators treat meta tensors like those of the `emulated` device."""
    with emulating(emulated), _Operators():
        yield


class _Operators(TorchFunctionMode):
    """Casts as autocast would, and replaces the fused attention."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        lower = emulated().autocast
        if function is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            dtype = lower or q.dtype
            return applied(FusedAttention, q.to(dtype), k.to(dtype), v.to(dtype))
        if function is torch.full and isinstance(args[1], torch.Tensor):  # transformers' mask: its value is a tensor
            args = (args[0], 0.0, *args[2:])
        if lower is not None and function in _LOWER:
            args, kwargs = _cast(args, kwargs, lower)
        elif lower is not None and function in _FULL and emulated().device_type == "cuda":
            args, kwargs = _cast(args, kwargs, torch.float32)
        return function(*args, **kwargs)


def _cast(args: Sequence[Any], kwargs: dict[str, Any], dtype: torch.dtype) -> tuple[list[Any], dict[str, Any]]:
    def one(value: Any) -> Any:
        floats = isinstance(value, torch.Tensor) and value.is_floating_point() and value.device.type == "meta"
        return value.to(dtype) if floats else value

    return [one(value) for value in args], {key: one(value) for key, value in kwargs.items()}


class FusedAttention(Function):
    """The memory of torch's flash and memory-efficient kernels: q, k, v, the output and one number per row are kept.

    Shapes:
        q `[B, heads, n, d]`, k and v `[B, heads, m, d]` -> `[B, heads, n, d]`
    """

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any) -> torch.Tensor:
        batch, heads, rows, _ = q.shape
        y: torch.Tensor = q.new_empty(batch, rows, heads, v.shape[-1]).transpose(1, 2)
        ctx.save_for_backward(q, k, v, y, q.new_empty(batch, heads, rows, dtype=torch.float32))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v, *_ = ctx.saved_tensors
        return tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (q, k, v))


def recomputed(block: nn.Module) -> Forward:
    """A `forward` that keeps only the block's inputs; torch's own checkpoint does not support meta tensors before torch 2.4."""
    original = block.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return original(*args, **kwargs)
        places = [*range(len(args)), *kwargs]
        values = [*args, *kwargs.values()]
        tensors = {place: value for place, value in zip(places, values) if isinstance(value, torch.Tensor)}

        def run(*given: torch.Tensor) -> Any:
            now = dict(zip(tensors, given))
            return original(
                *(now.get(place, value) for place, value in enumerate(args)),
                **{key: now.get(key, value) for key, value in kwargs.items()},
            )

        return applied(_Recomputed, run, torch.empty(0, device="meta", requires_grad=True), *tensors.values())

    return forward


class _Recomputed(Function):
    """Runs without keeping anything for backward, and again in backward."""

    @staticmethod
    def forward(ctx: Any, run: Any, wanted: Any, *tensors: Any) -> Any:
        ctx.run, ctx.emulated = run, emulated()
        ctx.save_for_backward(*tensors)
        return run(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        wants = ctx.needs_input_grad[2:]
        inputs = [tensor.detach().requires_grad_(want) for tensor, want in zip(ctx.saved_tensors, wants)]
        with torch.enable_grad(), meta_ops(ctx.emulated):  # function modes are not active in backward
            found = ctx.run(*inputs)
        outputs = [y for y in (found if isinstance(found, tuple) else (found,)) if isinstance(y, torch.Tensor)]
        pairs = [(y, grad) for y, grad in zip(outputs, grads) if y.requires_grad]
        del found, outputs
        if pairs:
            torch.autograd.backward([y for y, _ in pairs], [grad for _, grad in pairs])
        return None, None, *(tensor.grad for tensor in inputs)
