"""Parameter groups, optimizer, learning rate schedule, clipping and loss scaling."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lib_lora.config.groups import OptimizerConfig
from lib_lora.errors import ConfigError
from lib_lora.model.adapter import LoraPair, parameters
from lib_lora.training.precision import Precision

EIGHT_BIT_NEEDS_CUDA = "Optimizer (optimizer): AdamW8bit works on CUDA only; choose AdamW."


def parameter_groups(pairs: Sequence[LoraPair], config: OptimizerConfig) -> list[dict[str, Any]]:
    """Text encoder first, then U-Net, each with its rate (sd-scripts `prepare_optimizer_params`)."""
    rates = {"text_encoder": config.text_encoder_lr, "unet": config.unet_lr}
    groups = []
    for part, rate in rates.items():
        members = list(parameters([pair for pair in pairs if pair.target.part == part]))
        if members:
            groups.append({"params": members, "lr": rate})
    return groups


def make_optimizer(config: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer with its library's defaults, as sd-scripts uses it (AdamW: betas 0.9, 0.999, weight decay 0.01).

    Raises:
        ConfigError: it cannot work on the parameters' device.
    """
    rate = config.unet_lr or config.text_encoder_lr
    if config.optimizer == "AdamW8bit":
        device = groups[0]["params"][0].device.type
        if device != "cuda":
            raise ConfigError([EIGHT_BIT_NEEDS_CUDA])
        optimizer: torch.optim.Optimizer = importlib.import_module("bitsandbytes").optim.AdamW8bit(groups, lr=rate)
        return optimizer
    return torch.optim.AdamW(groups, lr=rate)


def make_scheduler(config: OptimizerConfig, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """The learning rate schedule over `steps` updates, from transformers (the webui carries it)."""
    from transformers import optimization as schedules

    warmup = config.lr_warmup_steps
    makers: dict[str, Callable[[], Any]] = {
        "constant": lambda: schedules.get_constant_schedule(optimizer),
        "constant_with_warmup": lambda: schedules.get_constant_schedule_with_warmup(optimizer, warmup),
        "linear": lambda: schedules.get_linear_schedule_with_warmup(optimizer, warmup, steps),
        "cosine": lambda: schedules.get_cosine_schedule_with_warmup(optimizer, warmup, steps),
        "cosine_with_restarts": lambda: schedules.get_cosine_with_hard_restarts_schedule_with_warmup(
            optimizer, warmup, steps, config.lr_scheduler_num_cycles
        ),
        "polynomial": lambda: schedules.get_polynomial_decay_schedule_with_warmup(
            optimizer, warmup, steps, power=config.lr_scheduler_power
        ),
    }
    return makers[config.lr_scheduler]()


class Updater:
    """Turns losses into updates: scaled backward, clipping, optimizer, schedule, gradients dropped."""

    def __init__(self, pairs: Sequence[LoraPair], config: OptimizerConfig, steps: int, precision: Precision) -> None:
        self._parameters: list[nn.Parameter] = list(parameters(pairs))
        self._max_grad_norm = config.max_grad_norm
        self.optimizer = make_optimizer(config, parameter_groups(pairs, config))
        self.scheduler = make_scheduler(config, self.optimizer, steps)
        scaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)  # its home since torch 2.3, and before
        self._scaler: Any = scaler(enabled=precision.scales_loss)

    def update(self, loss: torch.Tensor) -> None:
        """One optimizer step on the gradients of `loss`."""
        self._scaler.scale(loss).backward()
        if self._max_grad_norm > 0:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        scale = self._scaler.get_scale()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._scaler.get_scale() >= scale:  # the update was not skipped: the schedule goes on (as accelerate's)
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)

    def learning_rates(self) -> list[float]:
        """The rate of each parameter group for the next step."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]
