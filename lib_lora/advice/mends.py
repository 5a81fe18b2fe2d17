"""Problems that refuse a run -> the same problems with values that end them, as far as a setting does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lib_lora.advice.derive import USUAL_RATE, derive
from lib_lora.advice.judgement import Judgement, first_that_helps, only_new
from lib_lora.advice.situation import Situation
from lib_lora.config.groups import TrainConfig, options_by_name
from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.config.rules import config_problems
from lib_lora.errors import Problem
from lib_lora.families.family import DetectedModel
from lib_lora.settle import settle

# options of which another mends the problem with less change
_OTHERS = {"resolution": ("min_bucket_reso", "max_bucket_reso"), "min_bucket_reso": ("bucket_reso_steps",)}
_SAFE: Mapping[str, Any] = {"optimizer": "AdamW", "mixed_precision": "auto", "gradient_checkpointing": "auto"}


def with_mends(problems: Iterable[Problem], config: TrainConfig, situation: Situation) -> list[Judgement]:
    """Each problem of `config` with what mends it. A mend of a problem of settings alone was tried out.

    Args:
        problems: of settings, device and host, as `lib_lora.check` finds them.
        config: the settings.
        situation: answers and facts, from which values are derived.
    """
    before = [str(problem) for problem in _problems(config, situation)]
    return [Judgement(problem.option, str(problem), _mend(problem, before, config, situation)) for problem in problems]


def _mend(problem: Problem, before: Sequence[str], config: TrainConfig, situation: Situation) -> dict[str, Any]:
    opt = options_by_name().get(problem.option)
    if opt is None or opt.declaration.set_by == "person":
        return {}
    if str(problem) not in before:  # of the device, which cannot be asked here
        return only_new(config, _safe(opt.name, config) if opt.name in _SAFE else {})

    def is_mended(tried: TrainConfig) -> bool:
        after = [str(one) for one in _problems(tried, situation)]
        return str(problem) not in after and len(after) < len(before)

    return first_that_helps(config, _candidates(opt.name, config, situation), is_mended)


def _candidates(name: str, config: TrainConfig, situation: Situation) -> Iterator[Mapping[str, Any]]:
    """Values that may mend a problem of the option `name`."""
    options, flat = options_by_name(), config.to_flat()
    if name in _SAFE:
        yield _safe(name, config)
    for released in (_OTHERS.get(name, ()), (name,)):
        pinned = {option: value for option, value in flat.items() if option not in released}
        chosen = derive(situation, pinned).settings()
        yield {option: chosen.get(option, options[option].default) for option in released}
    yield {name: options[name].default}


def _safe(name: str, config: TrainConfig) -> Mapping[str, Any]:
    """The value of an option that works everywhere, with rates that AdamW can use."""
    if name != "optimizer":
        return {name: _SAFE[name]}
    rates: dict[str, Any] = {}
    if optimizer_spec(config.optimizer.optimizer).one_rate and config.optimizer.unet_lr:
        rates = {"unet_lr": USUAL_RATE, "text_encoder_lr": None if config.optimizer.text_encoder_lr else 0.0}
    return {**rates, "optimizer": _SAFE[name], "optimizer_args": ()}


def _problems(config: TrainConfig, situation: Situation) -> list[Problem]:
    family = DetectedModel(situation.family, "", "v" if situation.predicts_v else "")
    return config_problems(config, settle(config, family))
