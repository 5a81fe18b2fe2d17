"""Text encoders of transformers' classes, read as their families require."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.families.family import TextEncoder
from lib_lora.model.conditioning import Reading

END = 49407  # CLIP's end token


def clip_core(text_encoder: nn.Module) -> nn.Module:
    """The module that holds `encoder` and `final_layer_norm`: `.text_model` up to transformers 4, the model itself from 5 on."""
    core = getattr(text_encoder, "text_model", text_encoder)
    assert isinstance(core, nn.Module)
    return core


@dataclass(frozen=True)
class ClipEncoder:
    """CLIP with its last layer norm (SD 1.x, and SD 2.x without its last layer), or if `penultimate` as SDXL reads it.

    `module`: transformers' CLIPTextModel, or for SDXL CLIPTextModelWithProjection, which also gives pooled text: the end token
    after the last layer and norm, projected. `turned`: the projection matrix is transposed.
    """

    module: nn.Module
    pad_id: int | None = None
    penultimate: bool = False
    turned: bool = False

    @property
    def token_embedding(self) -> nn.Module:
        """See TextEncoder."""
        core: Any = clip_core(self.module)
        embedding: nn.Module = core.embeddings.token_embedding
        return embedding

    def read(self, ids: torch.Tensor, clip_skip: int) -> Reading:
        """The last hidden states, or with clip skip n the n-th from the end, after the last layer norm.

        If `penultimate`, those before the last layer, without a norm, as sd-scripts `_get_hidden_states_sdxl`, which ignores clip
        skip.
        """
        core: Any = clip_core(self.module)
        output = core(ids, output_hidden_states=self.penultimate or clip_skip > 1)
        if not self.penultimate:
            skipped = clip_skip > 1
            return Reading(core.final_layer_norm(output.hidden_states[-clip_skip]) if skipped else output.last_hidden_state)
        projection = getattr(self.module, "text_projection", None)
        if projection is None:
            return Reading(output.hidden_states[-2])
        weight = projection.weight.t() if self.turned else projection.weight
        return Reading(output.hidden_states[-2], F.linear(at_end(output.last_hidden_state, ids), weight))

    def as_sd_scripts(self) -> ClipEncoder:
        """See TextEncoder."""
        return replace(self, turned=True)


def text_encoder(module: nn.Module, spec: TextEncoder) -> ClipEncoder:
    """A text encoder of transformers' classes, read as `spec` requires."""
    return ClipEncoder(module, 0 if spec.is_open_clip else None, spec.penultimate)


def at_end(hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The hidden states at the first end token. Shapes: `[n, 77, width]`, `[n, 77]` -> `[n, width]`."""
    return hidden[torch.arange(len(ids), device=ids.device), (ids == END).int().argmax(dim=1)]
