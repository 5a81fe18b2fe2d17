"""open_clip's text encoder, as the webui holds it for SD 2.x and SDXL: how it is read and adapted.

Its attention keeps q, k and v in one matrix and never calls its output layer, so neither can be adapted directly. Here each third
is a separate Linear that shares the matrix's memory, and the attention's `forward` is replaced by one that calls them. A LoRA
file has them under transformers' names, and all four layers of an attention, as the webui's loader requires.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.model.base import Target
from lib_lora.model.conditioning import Reading
from lib_lora.model.layer_names.text import OPEN_CLIP_PARTS, layer_name
from lib_lora.model.patching import Forward
from lib_lora.model.text_encoders import at_end


@dataclass(frozen=True)
class SplitAttention:
    """The four layers of one attention."""

    attention: Any  # torch's MultiheadAttention
    q: nn.Linear
    k: nn.Linear
    v: nn.Linear

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The layers under transformers' names, in its order."""
        return {"k_proj": self.k, "v_proj": self.v, "q_proj": self.q, "out_proj": self.attention.out_proj}


@dataclass(frozen=True)
class OpenClipEncoder:
    """A text encoder of open_clip's.

    `module`: open_clip's CLIP without its visual half. `pools`: True for SDXL's second encoder, False for SD 2.x's.
    `turned`: see TextEncoder.as_sd_scripts.
    """

    module: nn.Module
    attentions: tuple[SplitAttention, ...]
    pools: bool
    turned: bool = False
    pad_id: int | None = 0

    @property
    def token_embedding(self) -> nn.Module:
        """See TextEncoder."""
        embedding = self.module.token_embedding
        assert isinstance(embedding, nn.Module)
        return embedding

    def read(self, ids: torch.Tensor, clip_skip: int) -> Reading:
        """SDXL: the hidden states before the last layer, and pooled text. SD 2.x: these states after the last layer norm."""
        model: Any = self.module
        hidden = model.token_embedding(ids) + model.positional_embedding  # [n, 77, width]
        blocks = list(model.transformer.resblocks)
        states = [hidden.transpose(0, 1)]  # [77, n, width], as the blocks want it
        for block in blocks if self.pools else blocks[:-clip_skip]:
            states.append(block(states[-1], attn_mask=model.attn_mask))
        if not self.pools:
            return Reading(model.ln_final(states[-1].transpose(0, 1)))
        last = model.ln_final(states[-1].transpose(0, 1))
        projection = model.text_projection if self.turned else model.text_projection.t()
        return Reading(states[-2].transpose(0, 1), F.linear(at_end(last, ids), projection))

    def as_sd_scripts(self) -> OpenClipEncoder:
        """See TextEncoder."""
        return replace(self, turned=True)

    def targets(self, prefix: str) -> list[Target]:
        """Every Linear of the layers, under transformers' names; without the last layer of SD 2.x, which is never read."""
        blocks: Any = self.module.transformer.resblocks  # type: ignore[union-attr]
        found = []
        for number in range(len(blocks) - (not self.pools)):
            parts = {f"self_attn.{name}": part for name, part in self.attentions[number].parts.items()}
            mlp = blocks[number].mlp
            parts.update({OPEN_CLIP_PARTS["mlp.c_fc"]: mlp.c_fc, OPEN_CLIP_PARTS["mlp.c_proj"]: mlp.c_proj})
            found += [Target(layer_name(prefix, number, name), part, "text_encoder") for name, part in parts.items()]
        return found

    def forwards(self) -> dict[nn.Module, Forward]:
        """A replacement `forward` for every attention; use with `forwards_replaced` while this encoder is read."""
        return {split.attention: _forward(split) for split in self.attentions}


def open_clip_encoder(module: nn.Module, *, pools: bool) -> OpenClipEncoder:
    """The encoder over open_clip's CLIP. Nothing is copied."""
    blocks: Any = module.transformer.resblocks  # type: ignore[union-attr]
    return OpenClipEncoder(module, tuple(_split(block.attn) for block in blocks), pools)


def _split(attention: Any) -> SplitAttention:
    thirds = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3))
    return SplitAttention(attention, *(_linear(weight, bias) for weight, bias in thirds))


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """A frozen Linear that shares these tensors."""
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0]).eval()
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear


def _forward(split: SplitAttention) -> Forward:
    attention = split.attention
    if attention.batch_first:
        raise ValueError("an attention with the batch first is not of the open_clip that the webui has")

    def forward(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None, **_: Any
    ) -> tuple[torch.Tensor, None]:
        """softmax(q kᵀ / √d + mask) v. Shapes: three of `[77, n, width]` -> `[77, n, width]`; no weights are returned."""
        # [77, n, width] -> [n, heads, 77, d]
        q, k, v = (
            layer(x).unflatten(-1, (attention.num_heads, -1)).permute(1, 2, 0, 3)
            for layer, x in ((split.q, query), (split.k, key), (split.v, value))
        )
        mask = None if attn_mask is None else attn_mask.to(q.dtype)
        joined = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return attention.out_proj(joined.permute(2, 0, 1, 3).flatten(2)), None

    return forward
