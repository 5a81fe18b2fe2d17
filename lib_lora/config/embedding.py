"""Options of the trigger word's embedding, trained together with the LoRA (pivotal tuning)."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora.config.declaration import above_zero, option

WITH_VECTORS = above_zero("embedding_vectors")


@dataclass(frozen=True)
class EmbeddingConfig:
    """The trigger word's embedding."""

    embedding_vectors: int = option(
        0,
        label="Embedding vectors",
        kohya=None,
        between=(0, 64),
        help="Also trains an embedding of the trigger word (textual inversion) with this many vectors, and bundles it in the "
        "LoRA file. 1 to 4 is usual, 0 is off.",
    )
    embedding_lr: float = option(
        5e-4,
        label="Learning rate, embedding",
        kohya=None,
        between=(1e-9, 100.0),
        read_if=WITH_VECTORS,
        help="Learning rate of the trigger word's embedding.",
    )
    init_word: str = option(
        "",
        label="Initializer word",
        kohya=None,
        read_if=WITH_VECTORS,
        help="Words that the embedding starts from, such as cat. Empty: the tokens of the trigger word itself.",
    )
    stop_embedding_training: float = option(
        0.0,
        label="Stop the embedding",
        kohya=None,
        between=(0.0, 10000000.0),
        read_if=WITH_VECTORS,
        help="Stops training the embedding after this many steps, or this share of all steps if below 1; 0 never stops it.",
    )
