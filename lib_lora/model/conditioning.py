"""Token ids -> the U-Net's conditioning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

SIZE_CHANNELS = 256  # of SDXL's sinusoidal embedding of one number


@dataclass(frozen=True)
class Conditioning:
    """The U-Net's inputs for a batch of captions, and with SDXL for the sizes of the images.

    Shapes:
        context: `[B, tokens, width]`
        pooled: `[B, width]`, SDXL only
        sizes: `[B, 6]` in pixels, SDXL only: original height and width, top and left of the crop, target height and width
    """

    context: torch.Tensor
    pooled: torch.Tensor | None = None
    sizes: torch.Tensor | None = None


@dataclass(frozen=True)
class TextInputs:
    """The tokens of a batch of captions.

    Shapes:
        ids: for each text encoder `[B, chunks, 77]`; weights: `[B, chunks, 77]` or None

    `whole_chunks`: every chunk keeps its begin and end tokens, as in the webui.
    """

    ids: tuple[torch.Tensor, ...]
    weights: torch.Tensor | None = None
    whole_chunks: bool = False


@dataclass(frozen=True)
class Reading:
    """A text encoder's output for chunks. Shapes: hidden `[n, 77, width]`, pooled `[n, width]` or None."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None


class TextEncoder(Protocol):
    """One of a model's text encoders. `pad_id`: the padding token; None for the end token."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def pad_id(self) -> int | None: ...

    @property
    def token_embedding(self) -> nn.Module:
        """The token embedding: ids `[n, 77]` -> `[n, 77, width]`."""

    def read(self, ids: torch.Tensor, clip_skip: int) -> Reading:
        """The output for `ids`, `[n, 77]`. `clip_skip`: 1 for the family's own layer, n for the n-th from the end."""

    def as_sd_scripts(self) -> TextEncoder:
        """The same encoder as sd-scripts reads it, for replays: for SDXL it transposes the projection of the pooled text."""


def encode(encoders: Sequence[TextEncoder], inputs: TextInputs, clip_skip: int) -> Conditioning:
    """The contexts of all encoders, concatenated (sd-scripts `encode_tokens`, `encode_tokens_with_weights`).

    Weights are factors on the hidden states; the mean is not restored, as in sd-scripts and the webui's "No norm". Pooled text is
    that of the first chunk.
    """
    contexts, pooled = [], None
    for encoder, ids in zip(encoders, inputs.ids):
        batch, chunks, length = ids.shape
        reading = encoder.read(ids.reshape(batch * chunks, length), clip_skip)
        hidden = reading.hidden.reshape(batch, chunks, length, -1)  # [B, chunks, 77, width]
        if inputs.weights is not None:
            hidden = (hidden * inputs.weights[..., None]).to(hidden.dtype)
        contexts.append(_joined(hidden, whole=inputs.whole_chunks))
        pooled = pooled if reading.pooled is None else reading.pooled[::chunks]
    return Conditioning(contexts[0] if len(contexts) == 1 else torch.cat(contexts, dim=-1), pooled)


def _joined(hidden: torch.Tensor, *, whole: bool) -> torch.Tensor:
    """The chunks, concatenated.

    Shapes:
        `[B, chunks, 77, width]` -> `[B, 75 · chunks + 2, width]`: the first begin token, all bodies, the last end token;
        if `whole`, `[B, 77 · chunks, width]`
    """
    if hidden.shape[1] == 1 or whole:
        return hidden.flatten(1, 2)
    return torch.cat([hidden[:, 0, :1], hidden[:, :, 1:-1].flatten(1, 2), hidden[:, -1, -1:]], dim=1)


def size_vector(conditioning: Conditioning) -> torch.Tensor | None:
    """SDXL's vector [pooled, the six sizes as sinusoids] (sgm ConcatTimestepEmbedderND); None without pooled text.

    Shapes: `[B, width + 6 · 256]`
    """
    pooled, sizes = conditioning.pooled, conditioning.sizes
    if pooled is None:
        return None
    if sizes is None:
        raise ValueError("this model wants to be told the sizes of the images")
    half = SIZE_CHANNELS // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=sizes.device) / half)
    angles = sizes.float()[..., None] * rates  # [B, 6, 128]
    return torch.cat([pooled, torch.cat([angles.cos(), angles.sin()], dim=-1).flatten(1).to(pooled.dtype)], dim=1)
