"""Settings + detected model -> settled settings of the run, and notes on them."""

from __future__ import annotations

from dataclasses import replace

from lib_lora.config.groups import TrainConfig, problem, title
from lib_lora.config.rules import MODEL_RULES
from lib_lora.config.settled import Settled, with_rates
from lib_lora.errors import ConfigError, Problem
from lib_lora.families.family import DetectedModel
from lib_lora.families.sd1 import SD1
from lib_lora.model.base import BaseModel


def settle(config: TrainConfig, detected: DetectedModel | None) -> Settled:
    """The settled settings: v-prediction, an unset text encoder learning rate and clip skip depend on the model.

    Without a detected model, an SD 1.x is assumed, with the prediction type of the settings.
    """
    family = detected.family if detected else SD1
    settled = with_rates(config, family.text_encoder_lr)
    velocity = config.objective.v_parameterization or bool(detected and detected.v_from)
    return replace(
        settled,
        objective=replace(config.objective, v_parameterization=velocity),
        text=config.text if family.clip_skip else replace(config.text, clip_skip=1),
        model=family.name if detected else "",
        layout=family.unet.layout,
    )


def model_problems(settled: Settled) -> list[Problem]:
    """Problems of settings that do not fit the model that `settled` was made for."""
    return [found for rule in MODEL_RULES if (found := rule(settled.given, settled))]


def settled_for(config: TrainConfig, base: BaseModel) -> Settled:
    """The settled settings for `base`.

    Raises:
        ConfigError: they do not fit it.
    """
    settled = settle(config, base.detected)
    problems = [*model_problems(settled), *clip_skip_problems(settled, base)]
    if problems:
        raise ConfigError(problems)
    return settled


def clip_skip_problems(settled: Settled, base: BaseModel) -> list[Problem]:
    """The problem if clip skip exceeds the layers of the text encoder of `base`."""
    skipped, layers = settled.text.clip_skip, _text_layers(base) if settled.text.clip_skip > 1 else 1
    if skipped <= layers:
        return []
    return [problem("clip_skip", f"got {skipped}, but the text encoder has {layers} layers; lower it.")]


def settled_notes(settled: Settled, detected: DetectedModel) -> list[str]:
    """Notes on what the model decides, and on what is usual for it."""
    family, given = detected.family, settled.given
    told = [f"Model: {detected.description(declared=given.objective.v_parameterization)}."]
    if settled.text != given.text:
        told.append(f"Clip skip: not used, since {family.name} always uses the same layers of its text encoders.")
    rate = settled.optimizer.text_encoder_lr
    if family.text_encoder_lr == 0 and rate > 0:
        told.append(
            f"Text encoders: both are trained. For {family.name}, training only the U-Net is usual and needs less memory; leave "
            f"{title('text_encoder_lr')} empty for that."
        )
    elif given.optimizer.text_encoder_lr is None and rate == 0:
        told.append(
            f"Text encoders: not trained, since training only the U-Net is usual for {family.name}; set "
            f"{title('text_encoder_lr')} to train both."
        )
    if family.inpaints:
        told.append("Inpainting: the whole image counts as masked, as in txt2img.")
    return told


def _text_layers(base: BaseModel) -> int:
    """The number of layers of the first text encoder, from the names of its targets."""
    prefix = f"{base.family.text_prefixes[0]}_text_model_encoder_layers_"
    names = [target.name for target in base.targets() if target.name.startswith(prefix)]
    return len({name.removeprefix(prefix).partition("_")[0] for name in names})
