"""Textual inversion (Gal et al. 2022, "An Image is Worth One Word"): how embeddings are read, and bundled in a LoRA file.

The vectors are used where the text encoders look up tokens; the vocabulary's own vectors are unchanged. In a file they are stored
beside the LoRA, as the webui's loader reads them (`networks.load_network`, `textual_inversion.create_embedding_from_data`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from lib_lora.data.embedding_tokens import FIRST, EmbeddingTokenizer
from lib_lora.errors import LoraFileError
from lib_lora.model.base import BaseModel, Embedding
from lib_lora.model.layer_names.keys import BUNDLE as BUNDLE
from lib_lora.model.patching import Forward, forwards_replaced

ONE, PAIR = ("emb_params",), ("clip_l", "clip_g")  # sd-scripts' keys for one text encoder, and for SDXL's two
_OLD = "string_to_param"  # the webui's own key for one text encoder
State = dict[str, torch.Tensor]


@contextmanager
def embeddings_attached(base: BaseModel, words: Sequence[Embedding]) -> Iterator[None]:
    """Context manager that adds `words` to the tokenizer and to the text encoders' lookups, for captions and prompts.

    Duplicate words: the first wins.
    """
    if not words:
        yield
        return
    tokenizer = base.tokenizer
    base.tokenizer = EmbeddingTokenizer(tokenizer, [word.name for word in words], [word.count for word in words])
    lookups: dict[nn.Module, Forward] = {
        encoder.token_embedding: _lookup(encoder.token_embedding, [word.vectors[place] for word in words])
        for place, encoder in enumerate(base.text_encoders)
    }
    try:
        with forwards_replaced(lookups):
            yield
    finally:
        base.tokenizer = tokenizer


def _lookup(embedding: nn.Module, vectors: Sequence[torch.Tensor]) -> Forward:
    """A `forward` for `embedding` that returns the words' vectors for ids beyond the vocabulary.

    Shapes: `[n, 77]` -> `[n, 77, width]`
    """
    plain = embedding.forward
    gap = vectors[0].new_zeros(1, vectors[0].shape[1])  # between two words: see `embedding_tokens.placed`

    def forward(ids: torch.Tensor) -> torch.Tensor:
        known = plain(ids.where(ids < FIRST, torch.zeros_like(ids)))
        table = torch.cat([part for own in vectors for part in (own, gap)])
        own = F.embedding((ids - FIRST).clamp(min=0), table).to(known.dtype)
        return torch.where((ids < FIRST)[..., None], known, own)

    return forward


def bundle(word: Embedding) -> State:
    """The tensors that bundle `word` in a LoRA file, fp32 on the CPU."""
    keys = ONE if len(word.vectors) == 1 else PAIR
    values = (vectors.detach().float().cpu().clone() for vectors in word.vectors)
    return {f"{BUNDLE}.{word.name}.{key}": value for key, value in zip(keys, values)}


def without_bundle(state: Mapping[str, torch.Tensor]) -> State:
    """A file's tensors without its bundled embeddings."""
    return {key: value for key, value in state.items() if key.partition(".")[0] != BUNDLE}


def bundled(state: Mapping[str, torch.Tensor]) -> list[Embedding]:
    """The embeddings bundled in a file, under any of the keys that the webui reads.

    Raises:
        LoraFileError: an embedding is incomplete or of an unknown type.
    """
    parts: dict[str, State] = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        if head == BUNDLE:
            name, _, end = rest.partition(".")
            parts.setdefault(name, {})[end.partition(".")[0] if end.startswith(_OLD) else end] = value
    return [_word(name, tensors) for name, tensors in sorted(parts.items())]


def _word(name: str, tensors: State) -> Embedding:
    keys = PAIR if set(tensors) == set(PAIR) else tuple(tensors)
    vectors = tuple(tensors[key] if tensors[key].dim() > 1 else tensors[key][None] for key in keys)
    whole = all(
        value.dim() == 2 and len(value) == len(vectors[0]) and value.is_floating_point() and value.numel() > 0
        for value in vectors
    )
    if (len(keys) > 1 and keys != PAIR) or not whole:
        raise LoraFileError(
            f"The file's embedding {name!r} is incomplete or has an unknown type; it has {', '.join(sorted(tensors))}."
        )
    return Embedding(name, vectors)


def check_fits(word: Embedding, base: BaseModel) -> None:
    """Check that `word` has vectors of the right width for every text encoder.

    Raises:
        LoraFileError: the embedding is of another model.
    """
    wanted, found = widths(base), [vectors.shape[1] for vectors in word.vectors]
    if found != wanted:
        raise LoraFileError(
            f"The embedding {word.name!r} has vectors of {_shown(found)} numbers; this model needs {_shown(wanted)}."
        )


def widths(base: BaseModel) -> list[int]:
    """Width of the vectors of each text encoder."""
    ids = torch.zeros(1, 1, dtype=torch.int64, device=base.device)
    return [encoder.token_embedding(ids).shape[-1] for encoder in base.text_encoders]


def _shown(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))
