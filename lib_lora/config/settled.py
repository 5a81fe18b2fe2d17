"""The settings of a run on a certain model: nothing in them depends on it any more."""

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
    """Optimizer settings whose rates are all known."""

    text_encoder_lr: float = 0.0

    @property
    def first_rate(self) -> float:
        """The U-Net's rate, or the text encoder's where the U-Net has none."""
        return self.unet_lr or self.text_encoder_lr


@dataclass(frozen=True)
class Settled(TrainConfig):
    """All settings of a run on a model. `lib_lora.settle.settle` makes it.

    `given`: the settings as they were given. `model`: the name of its family, "" where that is not known yet.
    `layout`: the blocks of its U-Net.
    """

    optimizer: SettledOptimizer = field(default_factory=SettledOptimizer)
    given: TrainConfig = field(default_factory=TrainConfig)
    model: str = ""
    layout: Layout = SD1.unet.layout

    @property
    def saved(self) -> TrainConfig:
        """What a state says: the settings as they were given, and the rates that they came to."""
        return replace(self.given, optimizer=self.optimizer)

    def because(self, problem: Problem) -> Problem:
        """A problem that is one for this model alone."""
        return Problem(problem.option, f"{problem.removesuffix('.')}; the model is {self.model}.")


# looks at more than one value, and at what they come to with the model, where that is known
ModelRule = Callable[[TrainConfig, "Settled | None"], "Problem | None"]


def with_rates(config: TrainConfig, text_encoder_lr: float) -> Settled:
    """`config` with a rate of the text encoders where none is given."""
    given = config.optimizer.text_encoder_lr
    rates = {"text_encoder_lr": text_encoder_lr if given is None else given}
    groups = {group.name: getattr(config, group.name) for group in dataclasses.fields(TrainConfig)}
    return Settled(**{**groups, "optimizer": SettledOptimizer(**{**vars(config.optimizer), **rates})}, given=config)
