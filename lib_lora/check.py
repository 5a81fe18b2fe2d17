"""Everything that can be known to be wrong before a model is touched, collected into one answer."""

from __future__ import annotations

from lib_lora.config.groups import TrainConfig
from lib_lora.config.rules import config_problems
from lib_lora.data.dataset import Dataset, scan
from lib_lora.errors import ConfigError
from lib_lora.model.base import Host
from lib_lora.plan import Plan, make_plan


def check(config: TrainConfig, host: Host) -> Plan:
    """The plan of the run that `config` asks for.

    Raises:
        ConfigError: with every problem of settings, images and host at once.
    """
    problems = config_problems(config, host.lora_folder()) + host.problems()
    dataset = find_images(config)
    problems += dataset.problems
    if problems:
        raise ConfigError(problems)
    return make_plan(config, dataset)


def find_images(config: TrainConfig) -> Dataset:
    """The dataset that `config` names."""
    return scan(config.data.data, trigger=config.text.trigger, repeats=config.data.repeats)
