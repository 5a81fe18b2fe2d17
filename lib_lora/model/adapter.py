"""LoRA pairs: creation, forward, attach and detach.

y = W x + alpha / rank · up(down(x))    (Hu et al. 2021, "LoRA", equation 3; kohya `networks/lora.py` LoRAModule.forward)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.errors import LoraFileError
from lib_lora.model.base import Target
from lib_lora.model.lean import LoraLinear, applied, in_fp32
from lib_lora.model.surgery import Forward, forwards_replaced
from lib_lora.randomness import generator

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoraPair:
    """Two small matrices beside one layer; fp32, but for full fp16 and bf16.

    Shapes:
        Linear: down `[rank, in]`, up `[out, rank]`
        1×1 Conv2d: down `[rank, in, 1, 1]`, up `[out, rank, 1, 1]`
    """

    target: Target
    down: nn.Parameter
    up: nn.Parameter
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def new_pair(
    target: Target, rank: int, alpha: float, seed: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> LoraPair:
    """A pair that changes nothing yet: down uniform in ±1/√fan_in (kaiming_uniform with a = √5, as kohya's), up zero."""
    weight = target.module.weight
    assert isinstance(weight, torch.Tensor)
    kernel = tuple(weight.shape[2:])
    down = torch.empty(rank, weight.shape[1], *kernel)
    down.uniform_(-1.0, 1.0, generator=generator(seed, "init", target.name))
    down /= math.sqrt(math.prod(weight.shape[1:]))
    up = torch.zeros(weight.shape[0], rank, *(1 for _ in kernel))
    return LoraPair(target, nn.Parameter(down.to(device, dtype)), nn.Parameter(up.to(device, dtype)), alpha)


def parameters(pairs: Sequence[LoraPair]) -> Iterator[nn.Parameter]:
    """All trainable parameters."""
    for pair in pairs:
        yield pair.down
        yield pair.up


def attached(pairs: Sequence[LoraPair]) -> AbstractContextManager[None]:
    """While it lasts, the layers of `pairs` answer with their LoRA added. Weights of the base are neither cast nor written."""
    return forwards_replaced({pair.target.module: _forward(pair) for pair in pairs})


def state_dict(pairs: Sequence[LoraPair]) -> State:
    """The tensors of a LoRA file, under kohya's keys, fp32 on the CPU."""
    state: State = {}
    for pair in pairs:
        state[f"{pair.target.name}.lora_down.weight"] = pair.down.detach().float().cpu().clone()
        state[f"{pair.target.name}.lora_up.weight"] = pair.up.detach().float().cpu().clone()
        state[f"{pair.target.name}.alpha"] = torch.tensor(float(pair.alpha))
    return state


def pairs_from_state(targets: Sequence[Target], state: State, device: torch.device) -> list[LoraPair]:
    """Pairs with the values of a file, for the targets that it names.

    Raises:
        LoraFileError: a key belongs to no target, or a pair is incomplete.
    """
    by_name = {target.name: target for target in targets}
    names = list(dict.fromkeys(key.partition(".")[0] for key in state))
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise LoraFileError(f"{len(unknown)} layers of the LoRA do not exist in this model, such as {unknown[0]!r}.")
    pairs = []
    for name in names:
        down, up = state.get(f"{name}.lora_down.weight"), state.get(f"{name}.lora_up.weight")
        if down is None or up is None:
            raise LoraFileError(f"The LoRA's layer {name!r} lacks its lora_down or lora_up tensor.")
        alpha = float(state.get(f"{name}.alpha", torch.tensor(float(down.shape[0]))))
        copies = [nn.Parameter(value.detach().to(device, torch.float32, copy=True)) for value in (down, up)]
        pairs.append(LoraPair(by_name[name], copies[0], copies[1], alpha))
    return pairs


def _forward(pair: LoraPair) -> Forward:
    module, down, up, scale = pair.target.module, pair.down, pair.up, pair.scale
    if isinstance(module, nn.Conv2d):
        if module.kernel_size != (1, 1) or module.stride != (1, 1) or module.groups != 1 or module.padding != (0, 0):
            raise ValueError(f"{pair.target.name} is no plain 1×1 convolution")
        conv = module

        def conv_forward(x: torch.Tensor) -> torch.Tensor:
            if in_fp32(x, conv.weight):
                rows = x.permute(0, 2, 3, 1)  # [B, h, w, in]
                weights = (conv.weight.flatten(1), conv.bias, down.flatten(1), up.flatten(1))
                return applied(LoraLinear, rows, *weights, scale).permute(0, 3, 1, 2).contiguous()
            return F.conv2d(x, conv.weight, conv.bias) + F.conv2d(F.conv2d(x, down), up) * scale

        return conv_forward
    assert isinstance(module, nn.Linear)
    linear = module

    def linear_forward(x: torch.Tensor) -> torch.Tensor:
        if in_fp32(x, linear.weight):
            return applied(LoraLinear, x, linear.weight, linear.bias, down, up, scale)
        return F.linear(x, linear.weight, linear.bias) + F.linear(F.linear(x, down), up) * scale

    return linear_forward
