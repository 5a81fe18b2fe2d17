"""Learning rates that hang on the model's family."""

from __future__ import annotations

from dataclasses import replace

from lib_lora.config.groups import TrainConfig
from lib_lora.families.family import Family


def with_rates(config: TrainConfig, family: Family) -> TrainConfig:
    """The settings with the family's own rate of the text encoders, where none was given. A rate that was given stays."""
    if config.optimizer.text_encoder_lr is not None:
        return config
    return replace(config, optimizer=replace(config.optimizer, text_encoder_lr=family.text_encoder_lr))
