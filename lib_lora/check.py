"""Everything that can be known to be wrong before a model is touched, collected into one answer."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from lib_lora.config.groups import TrainConfig
from lib_lora.config.rules import config_problems
from lib_lora.data.attention_weights import attention_weights
from lib_lora.data.captions import CaptionSource
from lib_lora.data.dataset import Dataset, scan
from lib_lora.data.masks import with_masks
from lib_lora.data.regularisation import with_regularisation
from lib_lora.errors import ConfigError, DatasetError
from lib_lora.families.family import Kind
from lib_lora.families.sd1 import SD1
from lib_lora.model.base import Host
from lib_lora.model.rates import with_rates
from lib_lora.plan import Plan, make_plan
from lib_lora.training.latent_cache import FOLDER as CACHE_FOLDER
from lib_lora.training.optimizer import device_problem, schedule_problem, settings_problem
from lib_lora.training.precision import choose_precision
from lib_lora.training.suited import model_problems
from lib_lora.training.weights import fit_problems, weights_problems


def check(config: TrainConfig, host: Host) -> Plan:
    """The plan of the run that `config` asks for.

    Raises:
        ConfigError: with every problem of settings, images and host at once.
    """
    kind = host.kind()
    rated = with_rates(config, kind.family if kind else SD1)  # of a model that is not there yet, whatever optimizers try
    problems = config_problems(config, host.lora_folder()) + host.problems() + _device_problems(rated, host.device())
    problems += _weights_problems(config, host, kind) + _folder_problems(host.lora_folder())
    problems += _link_problems(host.work_folder() / config.run.name) if config.run.name else []
    problems += model_problems(config, kind) if kind else []
    dataset = find_images(config)
    problems += dataset.problems
    if problems:
        raise ConfigError(problems)
    plan = make_plan(config, dataset, kind)
    problem = schedule_problem(rated.optimizer, plan.steps)
    if problem:
        raise ConfigError([problem])
    return plan


def _device_problems(config: TrainConfig, device: torch.device) -> list[str]:
    """Settings that this device cannot work with."""
    problem = device_problem(config.optimizer, device)
    problems = [problem] if problem else []
    if device.type in {"cpu", "cuda"} and not config_problems(config, None):
        unusable = settings_problem(config.optimizer, device)
        problems += [unusable] if unusable else []
    if device.type in {"cpu", "cuda"}:  # other kinds are refused by the host, by name
        try:
            choose_precision(config.precision, device)
        except ConfigError as error:
            problems += error.problems
    return problems


def _weights_problems(config: TrainConfig, host: Host, kind: Kind | None) -> list[str]:
    """What is wrong with LoRA files; what they say themselves first, then what of them the model has no layer for."""
    problems = weights_problems(config, kind)
    named = bool(config.adapter.network_weights or config.adapter.base_weights)
    base = host.look() if named and kind is not None and not problems else None
    return problems if base is None else fit_problems(config, base)


def _folder_problems(folder: Path) -> list[str]:
    """A LoRA that cannot be saved is not worth training."""
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return []
    return [f"The LoRA folder {str(folder)!r} cannot be written to; check its permissions."]


def _link_problems(folder: Path) -> list[str]:
    """States and samples are written, and old ones removed, in the run's own folder alone."""
    return [
        f"The folder {str(path)!r} of this name's states and samples is a link; remove the link, or choose another name."
        for path in (folder, folder / "samples")
        if path.is_symlink()
    ]


def find_images(config: TrainConfig) -> Dataset:
    """The dataset that `config` names: images, regularisation images behind them, masks."""
    text, data = config.text, config.data
    source = CaptionSource(text.trigger, text.caption_extension, text.enable_wildcard, text.filename_captions)
    dataset = scan(data.data, captions=source, repeats=data.repeats)
    if any(path.strip() for path in data.reg_data):
        dataset = with_regularisation(dataset, scan(data.reg_data, captions=replace(source, trigger=""), repeats=1, is_reg=True))
    if data.masked_loss and data.mask_data:
        dataset = with_masks(dataset, data.mask_data)
    problems = [*dataset.problems, *_split_problems(config, dataset), *_cache_problems(config, dataset)]
    problems += _weight_problems(config, dataset)
    return replace(dataset, problems=tuple(dict.fromkeys(problems)))


def _split_problems(config: TrainConfig, dataset: Dataset) -> list[str]:
    count = sum(not sample.is_reg for sample in dataset.samples)
    if config.data.validation_split == 0 or count != 1:
        return []
    return ["Held out (validation_split): there is one image only; add more, or choose 0."]


def _weight_problems(config: TrainConfig, dataset: Dataset) -> list[str]:
    """Captions whose brackets nest too deep to be weighted."""
    if not config.text.weighted_captions:
        return []
    try:
        for caption in dict.fromkeys(sample.caption for sample in dataset.samples):
            attention_weights(caption, webui=config.text.token_rule == "webui")
    except DatasetError as error:
        return error.problems
    return []


def _cache_problems(config: TrainConfig, dataset: Dataset) -> list[str]:
    """Latents that cannot be kept beside the images are told before the first is encoded."""
    if not (config.data.cache_latents and config.data.cache_latents_to_disk):
        return []
    start = "Latents on disk (cache_latents_to_disk): "
    kept = [folder.path / CACHE_FOLDER for folder in dataset.folders]
    links = [f"{start}{str(place)!r} is a link, which is not written through; remove it." for place in kept if place.is_symlink()]
    places = [place if place.exists() else place.parent for place in kept if not place.is_symlink()]
    return links + [
        f"{start}{str(place)!r} cannot be written to; check its permissions, or turn it off."
        for place in places
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK))
    ]
