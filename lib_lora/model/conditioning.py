"""Token ids -> context: what the U-Net reads of a caption."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def clip_core(text_encoder: nn.Module) -> nn.Module:
    """The module that holds `encoder` and `final_layer_norm`: `.text_model` up to transformers 4, the model itself from 5 on."""
    core = getattr(text_encoder, "text_model", text_encoder)
    assert isinstance(core, nn.Module)
    return core


def encode_ids(
    text_encoder: nn.Module,
    input_ids: torch.Tensor,
    clip_skip: int,
    *,
    token_weights: torch.Tensor | None = None,
    whole_chunks: bool = False,
) -> torch.Tensor:
    """Hidden states of CLIP-L after the final layer norm (sd-scripts `encode_tokens`, `encode_tokens_with_weights`).

    Args:
        text_encoder: transformers' CLIPTextModel.
        input_ids: token ids.
        clip_skip: 1 for the last layer, n for the n-th from the end.
        token_weights: factors on the hidden states; the mean is not brought back, as in sd-scripts and the webui's "No norm".
        whole_chunks: every chunk keeps its begin and end, as the webui has it.

    Shapes:
        input_ids, token_weights: `[B, chunks, 77]` -> context `[B, 75 · chunks + 2, width]`: the first begin, all bodies, the
        last end; with whole chunks `[B, 77 · chunks, width]`.
    """
    batch, chunks, length = input_ids.shape
    flat = input_ids.reshape(batch * chunks, length)
    output: Any = text_encoder(flat, output_hidden_states=clip_skip > 1)
    if clip_skip > 1:
        core: Any = clip_core(text_encoder)
        hidden: torch.Tensor = core.final_layer_norm(output.hidden_states[-clip_skip])
    else:
        hidden = output.last_hidden_state
    if token_weights is not None:
        hidden = (hidden * token_weights.reshape(batch * chunks, length, 1)).to(hidden.dtype)
    if chunks == 1 or whole_chunks:
        return hidden.reshape(batch, chunks * length, -1)
    hidden = hidden.reshape(batch, chunks, length, -1)  # [B, chunks, 77, width]
    bodies = hidden[:, :, 1:-1].reshape(batch, chunks * (length - 2), -1)  # [B, 75 · chunks, width]
    return torch.cat([hidden[:, 0, :1], bodies, hidden[:, -1, -1:]], dim=1)
