"""Random numbers as pure functions of (seed, purpose, place), independent of global generators."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *labels: str | int) -> torch.Generator:
    """A CPU generator that depends only on `seed` and `labels`, the same on every machine and torch version line."""
    text = "/".join(str(part) for part in (seed, *labels))
    state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return torch.Generator().manual_seed(state & (2**63 - 1))


def normal(shape: tuple[int, ...], seed: int, *labels: str | int) -> torch.Tensor:
    """Standard normal numbers, fp32 on the CPU."""
    return torch.randn(shape, generator=generator(seed, *labels))


def permutation(count: int, seed: int, *labels: str | int) -> list[int]:
    """A random permutation of 0 … count-1."""
    return [int(i) for i in torch.randperm(count, generator=generator(seed, *labels))]


def uniform(seed: int, *labels: str | int) -> float:
    """A random number in [0, 1)."""
    return float(torch.rand((), generator=generator(seed, *labels)))
