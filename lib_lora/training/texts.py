"""Captions -> inputs of the text encoders, or their outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lib_lora.config.text import TextConfig
from lib_lora.data.caption_processing import varies
from lib_lora.data.chunking import batch_tokens
from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import Conditioning, TextInputs, encode
from lib_lora.training.precision import Precision


class Texts:
    """Tokenizes and encodes the captions of a run; contexts of captions that do not vary are cached."""

    def __init__(self, base: BaseModel, text: TextConfig, precision: Precision) -> None:
        self._base, self._text, self._precision = base, text, precision
        self._kept: dict[str, Conditioning] = {}

    def tokens(self, captions: Sequence[str]) -> TextInputs:
        """Token ids of a batch for every text encoder, and their weights, on the model's device."""
        base, device = self._base, self._base.device
        found = [batch_tokens(base.tokenizer, captions, self._text, encoder.pad_id) for encoder in base.text_encoders]
        weights = None if found[0].weights is None else torch.tensor(found[0].weights, device=device)
        ids = tuple(torch.tensor(tokens.ids, device=device) for tokens in found)
        return TextInputs(ids, weights, self._text.token_rule == "webui")

    def context(self, captions: Sequence[str]) -> Conditioning:
        """The conditioning of a batch. Shorter contexts are padded with empty chunks (lengths differ only with `webui` rules)."""
        found = [self._one(caption) for caption in captions]
        most = max(one.context.shape[1] for one in found)
        pooled = [one.pooled for one in found if one.pooled is not None]
        contexts = torch.cat([self._filled(one.context, most) for one in found])
        return Conditioning(contexts, torch.cat(pooled) if pooled else None)

    def _filled(self, context: torch.Tensor, length: int) -> torch.Tensor:
        if context.shape[1] == length:
            return context
        empty = self._one("").context
        return torch.cat([context, *[empty] * ((length - context.shape[1]) // empty.shape[1])], dim=1)

    def _one(self, caption: str) -> Conditioning:
        if caption in self._kept:
            return self._kept[caption]
        with torch.no_grad(), self._precision.autocast(self._base.device):
            found = encode(self._base.text_encoders, self.tokens([caption]), self._text.clip_skip)
        if not caption or not varies(self._text):
            self._kept[caption] = found
        return found
