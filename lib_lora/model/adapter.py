"""LoRA pairs: creation, forward, attach and detach.

y = W x + alpha / rank · up(down(x))    (Hu et al. 2021, "LoRA", equation 3; kohya `networks/lora.py` LoRAModule.forward)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.errors import LoraFileError
from lib_lora.model.base import Target
from lib_lora.model.dropout import Dropout
from lib_lora.model.lean import LoraLinear, applied, conv_forward, in_fp32, linear_forward
from lib_lora.model.surgery import Forward, forwards_replaced
from lib_lora.randomness import generator

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoraPair:
    """Two small matrices beside one layer; fp32, but for full fp16 and bf16.

    Shapes:
        Linear: down `[rank, in]`, up `[out, rank]`
        Conv2d: down `[rank, in, k, k]` with the layer's stride and padding, up `[out, rank, 1, 1]`
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


def attached(
    pairs: Sequence[LoraPair], frozen: Sequence[LoraPair] = (), dropout: Dropout | None = None
) -> AbstractContextManager[None]:
    """While it lasts, layers answer with their LoRA added. Weights of the base are neither cast nor written.

    Args:
        pairs: what is trained.
        frozen: further pairs beside or below them, one for a layer.
        dropout: what of `pairs` is left out, and when.
    """
    trained = {pair.target.module: pair for pair in pairs}
    added = {pair.target.module: pair for pair in frozen}
    return forwards_replaced(
        {module: _composed(trained.get(module), added.get(module), dropout) for module in {**added, **trained}}
    )


def joined(pairs: Sequence[LoraPair]) -> LoraPair:
    """One pair of scale 1 that adds what all of `pairs`, of one layer, add together."""
    downs = torch.cat([pair.down.detach() for pair in pairs])
    ups = torch.cat([pair.up.detach() * pair.scale for pair in pairs], dim=1)
    halves = [nn.Parameter(half, requires_grad=False) for half in (downs, ups)]
    return LoraPair(pairs[0].target, halves[0], halves[1], float(len(downs)))


def state_dict(pairs: Sequence[LoraPair]) -> State:
    """The tensors of a LoRA file, under kohya's keys, fp32 on the CPU."""
    state: State = {}
    for pair in pairs:
        state[f"{pair.target.name}.lora_down.weight"] = pair.down.detach().float().cpu().clone()
        state[f"{pair.target.name}.lora_up.weight"] = pair.up.detach().float().cpu().clone()
        state[f"{pair.target.name}.alpha"] = torch.tensor(float(pair.alpha))
    return state


def pairs_from_state(
    targets: Sequence[Target], state: State, device: torch.device, dtype: torch.dtype = torch.float32
) -> list[LoraPair]:
    """Pairs with the values of a file, for the targets that it names.

    Raises:
        LoraFileError: a key belongs to no target, or a pair is incomplete or of another shape.
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
        weight = by_name[name].module.weight
        assert isinstance(weight, torch.Tensor)
        if down.shape[1:] != weight.shape[1:] or up.shape != (weight.shape[0], down.shape[0], *[1] * (weight.dim() - 2)):
            raise LoraFileError(f"The LoRA's layer {name!r} does not fit the model.")
        copies = [nn.Parameter(value.detach().to(device, dtype, copy=True)) for value in (down, up)]
        pairs.append(LoraPair(by_name[name], copies[0], copies[1], alpha))
    return pairs


def _composed(pair: LoraPair | None, added: LoraPair | None, dropout: Dropout | None) -> Forward:
    """The forward of a layer with a trained pair, a frozen one, or both."""
    if pair is None or added is None:
        alone = pair or added
        assert alone is not None
        whole = _forward(alone)
        if pair is None or dropout is None or not dropout.used:
            return whole
    else:
        whole = _forward(pair)
    trained, base = pair, _base_forward(pair.target.module)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if dropout is None or not dropout.active:
            y: torch.Tensor = whole(x)
        elif dropout.skips(trained.target.name):
            y = base(x)
        else:
            y = base(x) + _low_rank(trained, x, dropout)
        return y if added is None else y + _low_rank(added, x)

    return forward


def _low_rank(pair: LoraPair, x: torch.Tensor, dropout: Dropout | None = None) -> torch.Tensor:
    """Returns alpha / rank · up(down(x)); down has the layer's stride and padding."""
    module = pair.target.module
    if isinstance(module, nn.Conv2d):
        hidden = F.conv2d(x, pair.down, None, module.stride, module.padding)
    else:
        hidden = F.linear(x, pair.down)
    if dropout is not None:
        hidden = dropout.applied(pair.target.name, hidden)
    return (F.conv2d if hidden.dim() == pair.up.dim() == 4 else F.linear)(hidden, pair.up) * pair.scale


def _base_forward(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    if isinstance(module, nn.Conv2d):
        return conv_forward(module)
    assert isinstance(module, nn.Linear)
    return linear_forward(module)


def _forward(pair: LoraPair) -> Forward:
    module, down, up, scale = pair.target.module, pair.down, pair.up, pair.scale
    base = _base_forward(module)
    if isinstance(module, nn.Conv2d):
        if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros":
            raise ValueError(f"{pair.target.name} is no plain convolution")
        conv = module
        pointwise = (module.kernel_size, module.stride, module.padding) == ((1, 1), (1, 1), (0, 0))

        def conv_pair_forward(x: torch.Tensor) -> torch.Tensor:
            if pointwise and in_fp32(x, conv.weight):
                rows = x.permute(0, 2, 3, 1)  # [B, h, w, in]
                weights = (conv.weight.flatten(1), conv.bias, down.flatten(1), up.flatten(1))
                return applied(LoraLinear, rows, *weights, scale).permute(0, 3, 1, 2).contiguous()
            return base(x) + _low_rank(pair, x)

        return conv_pair_forward
    assert isinstance(module, nn.Linear)
    linear = module

    def linear_pair_forward(x: torch.Tensor) -> torch.Tensor:
        if in_fp32(x, linear.weight):
            return applied(LoraLinear, x, linear.weight, linear.bias, down, up, scale)
        return base(x) + _low_rank(pair, x)

    return linear_pair_forward
