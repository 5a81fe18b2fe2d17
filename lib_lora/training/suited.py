"""Settings + the model that is there -> the settings of the run, and what is to be told about it."""

from __future__ import annotations

from dataclasses import replace

from lib_lora.config.groups import TrainConfig
from lib_lora.config.rules import config_problems
from lib_lora.errors import ConfigError
from lib_lora.model.base import BaseModel
from lib_lora.model.blocks import uses_blocks
from lib_lora.model.family import SDXL


def suited(config: TrainConfig, base: BaseModel) -> tuple[TrainConfig, list[str]]:
    """What the model decides: whether v is predicted, and that SDXL knows no clip skip.

    Raises:
        ConfigError: settings that do not go with this model.
    """
    family = base.family
    velocity = config.objective.v_parameterization or base.predicts_v
    source = "as the checkpoint says" if base.predicts_v else "as the settings say"
    told = [f"Model: {family.name}, which predicts {'v, ' + source if velocity else 'noise'}."]
    if uses_blocks(config.adapter) and family.card == SDXL.card:
        raise ConfigError(
            [
                "Ranks, alphas and rate factors per block (block_dims, block_alphas, down_lr_weight, mid_lr_weight, "
                f"up_lr_weight): the model is {family.name}, but they are of the 25 blocks of SD 1.x and 2.x; leave them empty."
            ]
        )
    text, objective = config.text, replace(config.objective, v_parameterization=velocity)
    if text.clip_skip > 1 and not family.clip_skip:
        told.append(f"Clip skip: not used, since {family.name} reads its text encoders' own layers.")
        text = replace(text, clip_skip=1)
    if family.card == SDXL.card and config.optimizer.text_encoder_lr > 0:
        told.append(
            "Text encoders: both are trained. For SDXL the U-Net alone is usual, and needs less memory: set Learning rate, text "
            "encoder (text_encoder_lr) to 0 for that."
        )
    layers = _text_layers(base)
    if text.clip_skip > layers:
        raise ConfigError([f"Clip skip (clip_skip): got {text.clip_skip}, but the text encoder has {layers} layers; lower it."])
    if family.inpaints:
        told.append("Inpainting: the whole picture counts as masked, as when the webui draws from a prompt alone.")
    fitted = replace(config, text=text, objective=objective)
    problems = config_problems(fitted, None) if velocity != config.objective.v_parameterization else []
    if problems:
        raise ConfigError(problems)
    return fitted, told


def _text_layers(base: BaseModel) -> int:
    """How many layers the first text encoder has, by the names of what can be trained in them."""
    prefix = f"{base.family.text_prefixes[0]}_text_model_encoder_layers_"
    names = [target.name for target in base.targets() if target.name.startswith(prefix)]
    return len({name.removeprefix(prefix).partition("_")[0] for name in names})
