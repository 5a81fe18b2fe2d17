"""Gradients of a text encoder's adapters, and of an embedding's vectors, against finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from lib_lora.data.tokens import caption_ids, load_tokenizer
from lib_lora.model.adapter import attached
from lib_lora.model.base import Embedding, Target
from lib_lora.model.conditioning import TextEncoder
from lib_lora.model.embeddings import embeddings_attached
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


def word_slopes(encoder: TextEncoder) -> tuple[float, float]:
    """The slope along a random direction of a word's two vectors, by backward and by two values. The encoder is in fp64."""
    base: Any = SimpleNamespace(text_encoders=(encoder,), tokenizer=load_tokenizer())
    generator = torch.Generator().manual_seed(5)
    width = encoder.token_embedding(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]
    start, direction = torch.randn(2, 2, width, generator=generator, dtype=torch.float64)
    vectors = torch.nn.Parameter(0.05 * start)
    with embeddings_attached(base, [Embedding("other", (0.05 * direction,)), Embedding("ohwx", (vectors,))]):
        ids = torch.tensor(caption_ids(base.tokenizer, "a photo of ohwx, ohwx", 75, encoder.pad_id))
        with torch.no_grad():
            weights = torch.randn(encoder.read(ids, 1).hidden.shape, generator=generator, dtype=torch.float64)

        def value() -> torch.Tensor:
            """Of everything that the encoder says."""
            read = encoder.read(ids, 1)
            total = (read.hidden * weights).mean()
            return total if read.pooled is None else total + read.pooled.pow(2).mean()

        value().backward()  # type: ignore[no-untyped-call]
        assert vectors.grad is not None
        by_backward = float((vectors.grad * direction).sum())
        with torch.no_grad():
            vectors.add_(direction, alpha=STEP)
            after = float(value())
            vectors.sub_(direction, alpha=2 * STEP)
            return by_backward, (after - float(value())) / (2 * STEP)
