"""Gradients of a text encoder's pairs, held against differences of its own values."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lib_lora.model.adapter import attached
from lib_lora.model.base import Target
from lib_lora.model.conditioning import TextEncoder
from tests.pairs import new_pair

STEP = 1e-5


def slopes(encoder: TextEncoder, targets: Sequence[Target]) -> tuple[float, float]:
    """The slope along a random direction of all upper matrices, by backward and by two values. The encoder is in fp64."""
    pairs = [new_pair(target, 2, 2.0, 1, torch.device("cpu"), torch.float64) for target in targets]
    generator = torch.Generator().manual_seed(5)
    directions = [torch.randn(pair.up.shape, generator=generator, dtype=torch.float64) for pair in pairs]
    for pair in pairs:
        pair.up.data.normal_(std=0.05, generator=generator)
    fill = 49407 if encoder.pad_id is None else encoder.pad_id
    ids = torch.tensor([[49406, 320, 2368, 49407, *[fill] * 73]])
    with torch.no_grad():
        weights = torch.randn(encoder.read(ids, 1).hidden.shape, generator=generator, dtype=torch.float64)

    def value() -> torch.Tensor:
        """Of everything that the encoder says."""
        read = encoder.read(ids, 1)
        total = (read.hidden * weights).mean()
        return total if read.pooled is None else total + read.pooled.pow(2).mean()

    def moved(distance: float) -> float:
        with torch.no_grad():
            for pair, direction in zip(pairs, directions):
                pair.up.add_(direction, alpha=distance)
            return float(value())

    with attached(pairs):
        value().backward()
        by_backward = sum(float((p.up.grad * d).sum()) for p, d in zip(pairs, directions) if p.up.grad is not None)
        after, before = moved(STEP), moved(-2 * STEP)
    return by_backward, (after - before) / (2 * STEP)
