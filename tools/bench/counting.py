"""Counts of one step: operators, bytes saved for backward, floating-point operations; and the rate of a matrix product."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lib_lora.config.groups import TrainConfig
from lib_lora.data.tokens import caption_ids
from lib_lora.model.adapter import attached
from lib_lora.model.base import BaseModel, networks
from lib_lora.model.conditioning import TextInputs
from lib_lora.model.frozen_layers import product
from lib_lora.settle import settle
from lib_lora.training.initial_adapters import initial_adapters
from lib_lora.training.optimizer import Updater
from lib_lora.training.precision import choose_precision
from lib_lora.training.step import StepInputs, training_step

MATRIX_SIDE = 4096


class _Operators(TorchDispatchMode):
    """Counts every operator that reaches the dispatcher below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def count_step(config: TrainConfig, base: BaseModel) -> dict[str, Any]:
    """Counts of a second step (the first one creates the optimizer's state)."""
    config = settle(config, base.detected)
    pairs = initial_adapters(config, base)
    precision = choose_precision(config.precision, base.device)
    updater = Updater(pairs, config.optimizer, 10, precision)
    side = config.data.resolution // 8
    ids = torch.tensor([caption_ids(base.tokenizer, "a photo of a thing, number 1", 75)])
    latents = torch.randn(config.data.batch_size, 4, side, side)
    inputs = StepInputs(latents, torch.randn_like(latents), torch.full((len(latents),), 500), TextInputs((ids,)))

    def step() -> None:
        training_step(base, [inputs], config.objective, config.text.clip_skip, precision, updater)

    with attached(pairs):
        step()
        with _Operators() as operators:
            step()
        with FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: _product_flops}) as flops:
            step()
        saved = saved_bytes(step, networks(base))
    return {"operators": operators.count, "saved_bytes": saved, "flops": flops.get_total_flops(), "rate": multiplication_rate()}


def _product_flops(a_shape: Sequence[int], b_shape: Sequence[int], *args: object, **options: object) -> int:
    """Operations of oneDNN's product (`lib_lora.model.frozen_layers`), which torch's counter does not know."""
    return 2 * math.prod(a_shape) * b_shape[0]


def multiplication_rate() -> float:
    """Floating-point operations per second of a large fp32 matrix product: the best of five with each of torch's kernels."""
    a, b = torch.randn(MATRIX_SIDE, MATRIX_SIDE), torch.randn(MATRIX_SIDE, MATRIX_SIDE)
    best = float("inf")
    for multiply in (torch.mm, product):
        for _ in range(5):
            started = time.perf_counter()
            multiply(a, b)
            best = min(best, time.perf_counter() - started)
    return 2.0 * MATRIX_SIDE**3 / best


def saved_bytes(step: Callable[[], object], networks: Iterable[nn.Module]) -> int:
    """Bytes of all storages that autograd saves for the backward pass, without the weights of `networks`."""
    weights = {p.untyped_storage().data_ptr() for network in networks for p in network.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storages.values())
