"""The settings of a run, settled for its model: no value depends on the model any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lib_lora.config.groups import TrainConfig
from lib_lora.config.optimizer import OptimizerConfig
from lib_lora.errors import Problem
from lib_lora.families.family import Layout
from lib_lora.families.sd1 import SD1


@dataclass(frozen=True)
class SettledOptimizer(OptimizerConfig):
    """Optimizer settings without unset learning rates."""

    text_encoder_lr: float = 0.0

    @property
    def first_rate(self) -> float:
        """The U-Net's learning rate, or the text encoder's if the U-Net's is 0."""
        return self.unet_lr or self.text_encoder_lr


@dataclass(frozen=True)
class Settled(TrainConfig):
    """All settings of a run on a model, made by `lib_lora.settle.settle`.

    `given`: the settings as given. `model`: the name of the model's family, "" if not known yet.
    `layout`: the blocks of its U-Net.
    """

    optimizer: SettledOptimizer = field(default_factory=SettledOptimizer)
    given: TrainConfig = field(default_factory=TrainConfig)
    model: str = ""
    layout: Layout = SD1.unet.layout

    @property
    def saved(self) -> TrainConfig:
        """The settings that a state saves: as given, with the settled learning rates."""
        return replace(self.given, optimizer=self.optimizer)

    def because(self, problem: Problem) -> Problem:
        """`problem`, with the model added as its cause."""
        return Problem(problem.option, f"{problem.removesuffix('.')}; the model is {self.model}.")


# a check of several values, and of their settled values if the model is known
ModelRule = Callable[[TrainConfig, "Settled | None"], "Problem | None"]


def with_rates(config: TrainConfig, text_encoder_lr: float) -> Settled:
    """`config` settled; `text_encoder_lr` is used if it gives none."""
    given = config.optimizer.text_encoder_lr
    rates = {"text_encoder_lr": text_encoder_lr if given is None else given}
    groups = {group.name: getattr(config, group.name) for group in dataclasses.fields(TrainConfig)}
    return Settled(**{**groups, "optimizer": SettledOptimizer(**{**vars(config.optimizer), **rates})}, given=config)
