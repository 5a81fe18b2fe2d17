"""Captions -> what the text encoder reads, or what it makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lib_lora.config.text import TextConfig
from lib_lora.data.caption_rules import varies
from lib_lora.data.token_rules import batch_tokens
from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import encode_ids
from lib_lora.training.precision import Precision


class Texts:
    """The captions of a run for one model; contexts of a text encoder that does not change are computed once."""

    def __init__(self, base: BaseModel, text: TextConfig, precision: Precision) -> None:
        self._base, self._text, self._precision = base, text, precision
        self._contexts: dict[str, torch.Tensor] = {}
        self.whole_chunks = text.token_rule == "webui"

    def tokens(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Token ids of a batch and their weights, on the model's device; both `[B, chunks, 77]`."""
        tokens = batch_tokens(self._base.tokenizer, captions, self._text)
        device = self._base.device
        weights = None if tokens.weights is None else torch.tensor(tokens.weights, device=device)
        return torch.tensor(tokens.ids, device=device), weights

    def context(self, captions: Sequence[str]) -> torch.Tensor:
        """The contexts of a batch, `[B, tokens, width]`. Shorter ones are followed by empty chunks (only the webui's differ)."""
        contexts = [self._one(caption) for caption in captions]
        most = max(context.shape[1] for context in contexts)
        return torch.cat([self._filled(context, most) for context in contexts])

    def _filled(self, context: torch.Tensor, length: int) -> torch.Tensor:
        if context.shape[1] == length:
            return context
        empty = self._one("")
        return torch.cat([context, *[empty] * ((length - context.shape[1]) // empty.shape[1])], dim=1)

    def _one(self, caption: str) -> torch.Tensor:
        if caption in self._contexts:
            return self._contexts[caption]
        ids, weights = self.tokens([caption])
        with torch.no_grad(), self._precision.autocast(self._base.device):
            context = encode_ids(
                self._base.text_encoder, ids, self._text.clip_skip, token_weights=weights, whole_chunks=self.whole_chunks
            )
        if not caption or not varies(self._text):
            self._contexts[caption] = context
        return context
