"""Optimizer and its parameter groups, gradient accumulation, clipping and loss scaling."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import nn
from torch.optim import lr_scheduler

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.embedding import EmbeddingConfig
from lib_lora.config.keyword_arguments import parse_arguments
from lib_lora.config.optimizer_specs import OPTIMIZERS, optimizer_spec
from lib_lora.config.settled import SettledOptimizer
from lib_lora.errors import ConfigError
from lib_lora.model.adapter import Adapter, limit_norms, parameters
from lib_lora.model.adapter_types import is_learning
from lib_lora.model.base import Embedding
from lib_lora.model.delta import UP
from lib_lora.model.layer_settings import block_index, rate_factor
from lib_lora.training.ema import MovingAverage
from lib_lora.training.lr_schedules import loaded, make_scheduler, named_class
from lib_lora.training.precision import Precision


def device_problem(config: SettledOptimizer, device: torch.device) -> str | None:
    """Why the optimizer cannot work on `device`, or None."""
    if device.type == "cuda" or not optimizer_spec(config.optimizer).needs_cuda:
        return None
    return f"Optimizer (optimizer): {config.optimizer} works only on CUDA; choose AdamW."


def make_optimizer(config: SettledOptimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer with its library's defaults and the user's arguments, as sd-scripts makes it (`get_optimizer`).

    Raises:
        ConfigError: it cannot work on the parameters' device, is not an optimizer, or does not take the arguments.
    """
    problem = device_problem(config, groups[0]["params"][0].device)
    if problem:
        raise ConfigError([problem])
    spec = optimizer_spec(config.optimizer)
    arguments = {**spec.defaults, **parse_arguments(config.optimizer_args), **spec.fixed}
    rate: float | None = config.first_rate
    if spec.makes_its_own_rate(arguments):  # and refuses a given one
        groups = [{key: value for key, value in group.items() if key != "lr"} for group in groups]
        rate = None
    title = f"Optimizer (optimizer): {config.optimizer!r}"
    cls = (
        loaded(title, spec.module, spec.attribute)
        if spec in OPTIMIZERS.values()
        else named_class(title, f"{spec.module}.{spec.attribute}", "optimizer", torch.optim.Optimizer)
    )
    try:
        optimizer: torch.optim.Optimizer = cls(groups, lr=rate, **arguments)
    except (RuntimeError, MemoryError, KeyboardInterrupt):  # caused by the device, not by the arguments
        raise
    except BaseException as error:  # noqa: BLE001 - a library may raise anything for wrong arguments
        raise ConfigError([f"{title} does not take these Optimizer arguments (optimizer_args): {_said(error)}."]) from error
    return optimizer


def settings_problem(config: SettledOptimizer, device: torch.device) -> str | None:
    """Why optimizer and schedule do not work with their arguments, or None; two steps are tried."""
    if device_problem(config, device):
        return None  # reported separately
    weight = nn.Parameter(torch.zeros(2, 2, device=device))
    try:
        optimizer = make_optimizer(config, [{"params": [weight], "lr": config.first_rate}])
        scheduler = make_scheduler(config, optimizer, 10)
        if optimizer_spec(config.optimizer).schedule_free:
            cast(Any, optimizer).train()
        for _ in range(2):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
            scheduler.step()
    except ConfigError as error:
        return error.problems[0]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a library may raise anything for wrong arguments
        return (
            f"Optimizer (optimizer): {config.optimizer} does not work with Optimizer arguments (optimizer_args), Other schedule "
            f"(lr_scheduler_type) and Schedule arguments (lr_scheduler_args): {_said(error)}."
        )
    return None


def _said(error: BaseException) -> str:
    """The text of a library's error, with its type unless it is a TypeError or ValueError."""
    return str(error) if isinstance(error, (TypeError, ValueError)) else f"{type(error).__name__}: {error}"


def schedule_problem(config: SettledOptimizer, steps: int) -> str | None:
    """Why a schedule class does not last for `steps`, or None; all steps are tried."""
    if not config.lr_scheduler_type:
        return None
    rate = config.first_rate
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate}], lr=rate, momentum=0.9)
    scheduler = make_scheduler(config, optimizer, steps)
    for step in range(steps):
        try:
            optimizer.step()
            scheduler.step()
        except Exception as error:  # noqa: BLE001 - a class may raise anything at its end
            return (
                f"Other schedule (lr_scheduler_type): {config.lr_scheduler_type} ends at step {step + 1} of {steps} "
                f"({type(error).__name__}: {error}); change Schedule arguments (lr_scheduler_args)."
            )
    return None


class Updater:
    """Turns losses into updates: scaled backward, accumulation, clipping, optimizer, schedule, max norm and EMA."""

    def __init__(
        self,
        adapters: Sequence[Adapter],
        config: SettledOptimizer,
        steps: int,
        precision: Precision,
        adapter: AdapterConfig = AdapterConfig(),  # noqa: B008 - frozen
        further: Sequence[dict[str, Any]] = (),
    ) -> None:
        """`further`: parameter groups in addition to those of `adapters`."""
        self._adapters, self._largest_norm = list(adapters), adapter.scale_weight_norms
        self._parameters: list[nn.Parameter] = [*parameters(adapters), *(value for group in further for value in group["params"])]
        self._max_grad_norm = config.max_grad_norm
        self._accumulation = config.gradient_accumulation_steps
        self._schedule_free = optimizer_spec(config.optimizer).schedule_free
        self.optimizer = make_optimizer(config, [*parameter_groups(adapters, config, adapter), *further])
        self.scheduler = make_scheduler(config, self.optimizer, steps)
        self.begun = 0  # number of calls of `update`
        self.gradient_norm: float | None = None  # of all gradients of the last update before clipping; None without
        self._scaler = loss_scaler(enabled=precision.scales_loss, half_weights=precision.weights == torch.float16)
        self._scales_loss = bool(self._scaler.is_enabled())  # torch disables it without CUDA
        self._average = MovingAverage(self._parameters, config.ema_decay) if config.ema_decay > 0 else None
        if self._schedule_free:
            cast(Any, self.optimizer).train()

    def accumulate(self, loss: torch.Tensor) -> None:
        """Add the gradients of a batch, divided by `gradient_accumulation_steps` (as accelerate, also in a shorter last step)."""
        if loss.requires_grad:  # module dropout may have dropped every layer
            self._scaler.scale(loss / self._accumulation).backward()
        self._limit_norms()  # after every batch, as sd-scripts: matters if a file to continue from has larger norms

    def update(self) -> bool:
        """One optimizer step on the accumulated gradients. False if they are not finite; then nothing was changed.

        A loss scaler skips such a step itself and lowers its scale, which is no failure. Gradients are checked with and without
        clipping.
        """
        self.begun += 1
        if self._max_grad_norm > 0:
            self._scaler.unscale_(self.optimizer)
            self.gradient_norm = float(nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm))
            finite = math.isfinite(self.gradient_norm)
        else:
            finite = self._scales_loss or all_finite(self._parameters)
        if not self._scales_loss and not finite:
            self.drop_gradients()
            return False
        scale = self._scaler.get_scale()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._scaler.get_scale() >= scale:  # the update was not skipped: advance the schedule (as accelerate)
            self.scheduler.step()
        self.drop_gradients()
        self._limit_norms()
        if self._average is not None:
            self._average.update()
        return True

    def _limit_norms(self) -> None:
        if self._largest_norm > 0:
            limit_norms([one for one in self._adapters if is_learning(one)], self._largest_norm)

    def drop_gradients(self) -> None:
        """Drop the accumulated gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def kept_weights(self) -> Iterator[None]:
        """In the block, the adapters hold the weights to save: the EMA, or a schedule-free optimizer's evaluation weights.

        Afterwards they hold the trained weights again, bit for bit.
        """
        trained = [parameter.detach().clone() for parameter in self._parameters] if self._schedule_free else []
        if self._schedule_free:
            cast(Any, self.optimizer).eval()
        try:
            with self._average.in_place() if self._average is not None else nullcontext():
                yield
        finally:
            if self._schedule_free:
                cast(Any, self.optimizer).train()
            with torch.no_grad():
                for parameter, value in zip(self._parameters, trained):
                    parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, except the adapters."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self._average.state_dict() if self._average is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict()` of another run. The schedule's factors follow this run's number of steps."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if type(self.scheduler) is lr_scheduler.LambdaLR:
            factors = [factor(self.scheduler.last_epoch) for factor in self.scheduler.lr_lambdas]
            for group, rate, factor in zip(self.optimizer.param_groups, self.scheduler.base_lrs, factors):
                group["lr"] = rate * factor

    def learning_rates(self) -> list[float]:
        """The learning rate of each parameter group for the next step; 0 if the optimizer has not computed its own yet."""
        return [float(group["lr"] or 0.0) for group in self.optimizer.param_groups]


def all_finite(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether every gradient is finite. Synchronises with the device once."""
    largest = [parameter.grad.abs().amax().float() for parameter in parameters if parameter.grad is not None]
    return not largest or bool(torch.isfinite(torch.stack(largest)).all())


def loss_scaler(*, enabled: bool, half_weights: bool) -> Any:
    """Torch's GradScaler. It refuses gradients of fp16 weights, except with `half_weights` (as sd-scripts' full_fp16)."""
    scaler: Any = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)(enabled=enabled)  # in torch.amp since 2.3
    if enabled and half_weights:
        scaler._unscale_grads_ = functools.partial(_unscale_half, scaler._unscale_grads_)
    return scaler


def _unscale_half(unscale: Any, optimizer: Any, inv_scale: Any, found_inf: Any, allow_fp16: bool) -> Any:
    del allow_fp16
    return unscale(optimizer, inv_scale, found_inf, True)


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
