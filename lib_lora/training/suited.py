"""Settings + the model that is there -> the settings of the run, and what is to be told about it."""

from __future__ import annotations

from dataclasses import replace

from lib_lora.config.adapter_rules import block_problems, trains_some_block
from lib_lora.config.groups import TrainConfig
from lib_lora.config.rules import config_problems
from lib_lora.errors import ConfigError
from lib_lora.families.family import Kind
from lib_lora.families.known import LAYOUTS
from lib_lora.model.base import BaseModel
from lib_lora.model.rates import with_rates


def model_problems(config: TrainConfig, kind: Kind) -> list[str]:
    """Settings that do not go with a model of this kind, and that go with another: told before the model is touched."""
    family, objective = kind.family, config.objective
    fitted = with_rates(config, family)
    problems = _block_problems(fitted, kind)
    if kind.v_from and not objective.v_parameterization:
        fitted = replace(fitted, objective=replace(objective, v_parameterization=True))
    if fitted != config:
        others = config_problems(config, None)
        problems += [problem for problem in config_problems(fitted, None) if problem not in [*others, *problems]]
    return [f"{problem.removesuffix('.')}; the model is {family.name}." for problem in problems]


def _block_problems(config: TrainConfig, kind: Kind) -> list[str]:
    layout = kind.family.unet.layout
    problems = block_problems(config.adapter, layout)
    if problems and all(block_problems(config.adapter, other) for other in LAYOUTS):
        return [problem for problem in problems if problem not in config_problems(config, None)]  # of no family: its rule tells
    only_unet = config.optimizer.text_rate == 0 and config.optimizer.unet_lr > 0
    if not problems and only_unet and not trains_some_block(config.adapter, layout):
        return ["Ranks per block (block_dims) and rate factors (down_lr_weight …): no block has both above 0."]
    return problems


def suited(config: TrainConfig, base: BaseModel) -> tuple[TrainConfig, list[str]]:
    """What the model decides: whether v is predicted, a rate that was not given, and that SDXL knows no clip skip.

    Raises:
        ConfigError: settings that do not go with this model.
    """
    family, kind = base.family, base.kind
    told = [f"Model: {kind.words(declared=config.objective.v_parameterization)}."]
    problems = model_problems(config, kind)
    velocity = config.objective.v_parameterization or bool(kind.v_from)
    text, objective = config.text, replace(config.objective, v_parameterization=velocity)
    if text.clip_skip > 1 and not family.clip_skip:
        told.append(f"Clip skip: not used, since {family.name} reads its text encoders' own layers.")
        text = replace(text, clip_skip=1)
    given, config = config.optimizer.text_encoder_lr is not None, with_rates(config, family)
    if family.text_encoder_lr == 0 and config.optimizer.text_rate > 0:
        told.append(
            f"Text encoders: both are trained. For {family.name} the U-Net alone is usual, and needs less memory: leave "
            "Learning rate, text encoder (text_encoder_lr) empty for that."
        )
    elif not given and config.optimizer.text_rate == 0:
        told.append(
            f"Text encoders: not trained, since for {family.name} the U-Net alone is usual; give Learning rate, text encoder "
            "(text_encoder_lr) to train both."
        )
    layers = _text_layers(base)
    if text.clip_skip > layers:
        problems.append(f"Clip skip (clip_skip): got {text.clip_skip}, but the text encoder has {layers} layers; lower it.")
    if family.inpaints:
        told.append("Inpainting: the whole picture counts as masked, as when the webui draws from a prompt alone.")
    if problems:
        raise ConfigError(problems)
    return replace(config, text=text, objective=objective), told


def _text_layers(base: BaseModel) -> int:
    """How many layers the first text encoder has, by the names of what can be trained in them."""
    prefix = f"{base.family.text_prefixes[0]}_text_model_encoder_layers_"
    names = [target.name for target in base.targets() if target.name.startswith(prefix)]
    return len({name.removeprefix(prefix).partition("_")[0] for name in names})
