"""Initial vectors of the trigger word's embedding, and notes on embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lib_lora.config.groups import TrainConfig
from lib_lora.data.embedding_tokens import named_in
from lib_lora.data.tokens import plain_ids
from lib_lora.errors import ConfigError
from lib_lora.model.base import BaseModel, Embedding
from lib_lora.model.embeddings import bundled, check_fits
from lib_lora.model.lora_layers import LoraFiles

_UNREAD = "Initializer word (init_word): got {!r}, which has no tokens; use another word."


def start_word(config: TrainConfig, base: BaseModel, files: LoraFiles | None = None) -> Embedding | None:
    """The embedding to train, its vectors fp32 parameters; None if none is trained.

    The vectors start as those of the file to continue from, or as the tokens of `init_word`, repeated in order
    (sd-scripts `train_textual_inversion.py`, init_token_ids).

    Raises:
        ConfigError, LoraFileError: there are no initial vectors, or they do not fit the model.
    """
    embedding, name = config.embedding, config.text.trigger
    if embedding.embedding_vectors == 0:
        return None
    word = _word_of_the_file(config, base, files)
    if word is not None:
        check_fits(word, base)
        return Embedding(name, tuple(_parameter(vectors.to(base.device)) for vectors in word.vectors))
    return Embedding(name, tuple(_parameter(vectors) for vectors in _first_meaning(config, base)))


def _word_of_the_file(config: TrainConfig, base: BaseModel, files: LoraFiles | None) -> Embedding | None:
    """The trigger's embedding in the file to continue from, or None."""
    path = config.adapter.network_weights
    words = bundled((files or LoraFiles()).layers(path, base.family).state) if path else []
    return next((word for word in words if word.name == config.text.trigger), None)


def meaning_problem(config: TrainConfig, base: BaseModel, files: LoraFiles | None = None) -> str | None:
    """Why the trigger's embedding has no initial vectors, or None."""
    text = config.embedding.init_word or config.text.trigger
    if not text or config.embedding.embedding_vectors == 0 or plain_ids(base.tokenizer, text):
        return None
    return None if _word_of_the_file(config, base, files) else _UNREAD.format(text)


def embedding_notes(config: TrainConfig, captions: Sequence[str], base: BaseModel) -> list[str]:
    """Notes on the host's embeddings in captions, and on the embedding that is trained.

    Raises:
        ConfigError: the trigger cannot have an embedding in this host.
    """
    told, trigger, trained = [], config.text.trigger, config.embedding.embedding_vectors > 0
    if trained:
        mine = plain_ids(base.tokenizer, trigger)
        taken = next((word.name for word in base.embeddings if plain_ids(base.tokenizer, word.name) == mine), None)
        if taken is not None:
            raise ConfigError([
                f"Trigger word (trigger): {trigger!r} is the name of the embedding {taken!r} in the webui's embeddings folder, "
                "which prompts would use instead of the one in the LoRA; choose another word."
            ])  # fmt: skip
    if base.embeddings:
        names = [word.name for word in base.embeddings]
        text = config.text
        found = {place for line in {*captions, text.caption_prefix, text.caption_suffix}
                 for place in named_in(base.tokenizer, names, line)}  # fmt: skip
        if found:
            listed = ", ".join(repr(names[place]) for place in sorted(found))
            told.append(f"Captions: {listed} from the webui's embeddings folder are used as embeddings, as in prompts.")
    if trained:
        told.append(
            f"Embedding: {trigger!r} is trained as an embedding with {config.embedding.embedding_vectors} vectors "
            "and bundled in the LoRA file; prompts use it while the LoRA is active."
        )
    return told


def _first_meaning(config: TrainConfig, base: BaseModel) -> list[torch.Tensor]:
    text = config.embedding.init_word or config.text.trigger
    ids = plain_ids(base.tokenizer, text)
    if not ids:
        raise ConfigError([_UNREAD.format(text)])
    count = config.embedding.embedding_vectors
    tokens = torch.tensor([[ids[i % len(ids)] for i in range(count)]], device=base.device)
    with torch.no_grad():
        return [encoder.token_embedding(tokens)[0] for encoder in base.text_encoders]


def _parameter(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().float().clone())
