"""Adapters -> the optimizer's parameter groups, each with its learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.embedding import EmbeddingConfig
from lib_lora.config.settled import SettledOptimizer
from lib_lora.model.adapter import Adapter, parameters
from lib_lora.model.adapter_types import is_learning
from lib_lora.model.base import Embedding
from lib_lora.model.delta import UP
from lib_lora.model.layer_settings import block_index, rate_factor


def parameter_groups(adapters: Sequence[Adapter], config: SettledOptimizer, adapter: AdapterConfig) -> list[dict[str, Any]]:
    """The text encoder's group, then the U-Net's, one or (with factors) one per block (sd-scripts `prepare_optimizer_params`).

    With LoRA+, the up matrices have separate groups. Parameters without a learning rate or a gradient are left out.
    """
    trained = [one for one in adapters if is_learning(one)]
    text = [one for one in trained if one.target.part == "text_encoder"]
    text_ratio = config.loraplus_text_encoder_lr_ratio or config.loraplus_lr_ratio
    groups = _halves(text, config.text_encoder_lr, text_ratio) if text else []
    for block in _blocks([one for one in trained if one.target.part == "unet"], adapter):
        rate = config.unet_lr * rate_factor(block[0].target.name, adapter)
        groups += _halves(block, rate, config.loraplus_unet_lr_ratio or config.loraplus_lr_ratio)
    return groups


def embedding_groups(word: Embedding | None, config: EmbeddingConfig) -> list[dict[str, Any]]:
    """The vectors of a trained embedding, for all text encoders, as one group with its own learning rate."""
    return [{"params": list(word.vectors), "lr": config.embedding_lr}] if word is not None else []


def _blocks(adapters: Sequence[Adapter], adapter: AdapterConfig) -> list[list[Adapter]]:
    """Adapters grouped by block, or as one group without factors."""
    if not adapter.has_factors:
        return [list(adapters)] if adapters else []
    blocks: dict[int | None, list[Adapter]] = {}
    for one in adapters:
        blocks.setdefault(block_index(one.target.name), []).append(one)
    return list(blocks.values())


def _halves(adapters: Sequence[Adapter], rate: float, ratio: float) -> list[dict[str, Any]]:
    """All parameters as one group; with LoRA+ (Hayou et al. 2024), the up matrices as another with `ratio` times the rate."""
    if not adapters or rate == 0:
        return []
    if ratio == 0:
        return [{"params": list(parameters(adapters)), "lr": rate}]
    ups = [one.named()[UP] for one in adapters]
    others = [value for one in adapters for key, value in one.named().items() if key != UP]
    return [{"params": others, "lr": rate}, {"params": ups, "lr": rate * ratio}]
