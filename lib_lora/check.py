"""All checks of settings, images and host that need no loaded model, in one result."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from lib_lora.config.groups import TrainConfig, problem, title
from lib_lora.config.rules import config_problems, taken_problems
from lib_lora.config.settled import Settled
from lib_lora.data.captions import CaptionSource
from lib_lora.data.dataset import Dataset, decoded_whole, scan, with_regularisation
from lib_lora.data.masks import painted_masks, with_masks, with_painted_masks
from lib_lora.data.prompt_emphasis import attention_weights
from lib_lora.errors import ConfigError, DatasetError, Problem
from lib_lora.families.family import DetectedModel
from lib_lora.host import Host
from lib_lora.model.base import BaseModel
from lib_lora.model.layer_report import layers_text
from lib_lora.model.lora_layers import LoraFiles
from lib_lora.plan import Plan, make_plan
from lib_lora.settle import clip_skip_problems, settle, settled_for
from lib_lora.training.continued_files import weights_problems
from lib_lora.training.embedding import meaning_problem
from lib_lora.training.initial_adapters import fit_problems
from lib_lora.training.latent_cache import FOLDER as CACHE_FOLDER
from lib_lora.training.optimizer import device_problem, schedule_problem, settings_problem
from lib_lora.training.precision import choose_precision
from lib_lora.training.resume import Resumed, find_resumed

# options that must be valid to compute training sizes
_PLANNED = {"resolution", "resolution_height", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps"}


def look(config: TrainConfig, host: Host) -> Findings:
    """The findings on `config` and `host`; the model is inspected, not changed."""
    return Findings(config, host)


def check(config: TrainConfig, host: Host) -> None:
    """Check a request that will wait, except the state that it resumes from, which an earlier run may still save.

    Raises:
        ConfigError: with every problem of settings, images and host at once.
    """
    problems = [problem for problem in look(config, host).problems if problem.option != "resume"]
    if problems:
        raise ConfigError(problems)


class Findings:
    """The findings on a request. Each is computed once, when first needed.

    `files`: the LoRA files that the request names, each read once; `files.forget()` frees them.
    """

    def __init__(self, config: TrainConfig, host: Host) -> None:
        self.config, self._host, self.files = config, host, LoraFiles()

    @cached_property
    def detected(self) -> DetectedModel | None:
        """The detected model; None if none is loaded yet or it cannot be trained."""
        return self._host.detected_model()

    @cached_property
    def base(self) -> BaseModel | None:
        """The model, for inspection only; None if there is none."""
        return self._host.look() if self.detected else None

    @cached_property
    def settled(self) -> Settled:
        """The settled settings; without a model, as for an SD 1.x."""
        return settle(self.config, self.detected)

    @cached_property
    def dataset(self) -> Dataset:
        """The images, and their problems."""
        return find_images(self.config)

    @property
    def plan(self) -> Plan | None:
        """The plan of the run with the images that can be read; None if there is none, or sizes cannot be trained on."""
        return self._planned[0]

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """All problems of settings, images and host; if there are none, those of schedule and state."""
        settings, name = list(self._settings), self.config.run.name
        is_legal = not any(problem.option == "name" for problem in settings)  # else it may be no file name at all
        if is_legal:
            settings += taken_problems(self.config, self._host.lora_folder())
        host = [Problem("", text) for text in self._host.problems()]
        found = [*settings, *host, *self._device_problems(), *self._model_problems()]
        found += _folder_problems(self._host.lora_folder())
        found += [Problem("name", text) for text in _link_problems(self._host.work_folder() / name)] if name and is_legal else []
        found += [text if isinstance(text, Problem) else Problem("data", text) for text in self.dataset.problems]
        found += self._planned[1]
        return tuple(found or self._last_problems())

    @property
    def resumed(self) -> Resumed | None:
        """The state to resume from, or None."""
        return self._found_state[0]

    def checked(self) -> Plan:
        """The plan of a request without problems, whose images were decoded whole in separate processes.

        Raises:
            ConfigError: with every problem of settings, images and host at once.
        """
        problems = self.problems or [Problem("data", text) for text in decoded_whole(self.dataset.samples)]
        if problems:
            raise ConfigError(problems)
        return self.planned()

    def planned(self) -> Plan:
        """The plan, even if settings or host have other problems.

        Raises:
            ConfigError: images or sizes cannot be trained on.
        """
        if self.plan is None or self.dataset.problems:
            own = [problem for problem in self._settings if problem.option in _PLANNED]
            raise ConfigError([*own, *self.dataset.problems, *self._planned[1]])
        return self.plan

    def settled_on(self, base: BaseModel) -> Settled:
        """The settled settings for the lent model, which may differ from the one inspected.

        Raises:
            ConfigError: they do not fit it.
        """
        return self.settled if base.detected == self.detected else settled_for(self.config, base)

    @cached_property
    def _settings(self) -> list[Problem]:
        return config_problems(self.config, self.settled if self.detected else None)

    @cached_property
    def _planned(self) -> tuple[Plan | None, list[Problem]]:
        if not self.dataset.samples or any(problem.option in _PLANNED for problem in self._settings):
            return None, []
        try:
            plan = make_plan(self.config, self.dataset)
        except DatasetError as error:
            return None, [Problem("data", text) for text in error.problems]
        if self.detected is None:
            return plan, []
        model = self.detected.description(declared=self.config.objective.v_parameterization)
        return replace(plan, layers=layers_text(self.settled, self.detected.family, self.files), model=model), []

    @cached_property
    def _found_state(self) -> tuple[Resumed | None, list[Problem]]:
        if self.plan is None or not self.config.run.resume:
            return None, []
        try:
            return find_resumed(self.settled, self.plan, self._host, self.base), []
        except ConfigError as error:
            return None, [Problem("resume", text) for text in error.problems]

    def _device_problems(self) -> list[Problem]:
        """Problems of settings on this device. The host refuses unsupported types of devices."""
        device, optimizer = self._host.device(), self.settled.optimizer
        unfit = [device_problem(optimizer, device)]
        if device.type not in {"cpu", "cuda"}:
            return [Problem("optimizer", text) for text in unfit if text]
        if all(problem.option == "name" for problem in self._settings):
            unfit.append(settings_problem(optimizer, device))
        problems = [Problem("optimizer", text) for text in unfit if text]
        try:
            choose_precision(self.config.precision, device)
        except ConfigError as error:
            problems += [Problem("mixed_precision", text) for text in error.problems]
        return problems

    def _model_problems(self) -> list[Problem]:
        """Problems of the LoRA files, first in themselves, then against the model, and of settings that depend on the model."""
        settled, adapter = self.settled, self.config.adapter
        problems = weights_problems(settled, self.detected, self.files)
        if not problems and (adapter.network_weights or adapter.base_weights) and self.base is not None:
            problems = fit_problems(settled, self.base, self.files)
        if settled.text.clip_skip > 1 and self.base is not None:
            problems += clip_skip_problems(settled, self.base)
        if settled.embedding.embedding_vectors and not problems and self.base is not None:
            meaning = meaning_problem(settled, self.base, self.files)
            problems += [Problem("init_word", meaning)] if meaning else []
        return problems

    def _last_problems(self) -> list[Problem]:
        """Problems of the learning rate schedule over all steps, and of the state to resume from."""
        problem = schedule_problem(self.settled.optimizer, self.planned().steps)
        return [Problem("lr_scheduler_type", problem)] if problem else self._found_state[1]


def _folder_problems(folder: Path) -> list[Problem]:
    """The problem if the LoRA folder cannot be written to."""
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return []
    return [Problem("out", f"The LoRA folder {str(folder)!r} cannot be written to; check its permissions.")]


def _link_problems(folder: Path) -> list[str]:
    """Problems if the run's folders are links: states and samples are written and removed only in the run's own folder."""
    return [
        f"The folder {str(path)!r} for states and samples of this name is a link; remove the link, or choose another name."
        for path in (folder, folder / "samples")
        if path.is_symlink()
    ]


def find_images(config: TrainConfig) -> Dataset:
    """The dataset that `config` names: images, then regularisation images, with masks."""
    text, data = config.text, config.data
    source = CaptionSource(text.trigger, text.caption_extension, text.enable_wildcard, text.filename_captions)
    dataset = scan(data.data, captions=source, repeats=data.repeats)
    if any(path.strip() for path in data.reg_data):
        dataset = with_regularisation(dataset, scan(data.reg_data, captions=replace(source, trigger=""), repeats=1, is_reg=True))
    if data.masked_loss and data.mask_data:
        dataset = with_masks(dataset, data.mask_data)
    elif data.masked_loss and not data.alpha_mask:  # as in sd-scripts, which then uses transparency
        dataset = with_painted_masks(dataset)
    dataset = _told_of_masks(config, dataset)
    problems = [*dataset.problems, *_split_problems(config, dataset), *_cache_problems(config, dataset)]
    problems += _weight_problems(config, dataset)
    return replace(dataset, problems=tuple(dict.fromkeys(problems)))


def _told_of_masks(config: TrainConfig, dataset: Dataset) -> Dataset:
    """The dataset with what there is to say of masks that were painted: that none were, or why they are not used."""
    data, painted = config.data, len(painted_masks(dataset))
    if data.masked_loss and not (data.mask_data or data.alpha_mask or painted) and dataset.samples:
        none = f"paint one in Images, choose a {title('mask_data')}, or use {title('alpha_mask')}."
        return replace(dataset, problems=(*dataset.problems, problem("masked_loss", f"no image has a mask; {none}")))
    others = [name for name in ("mask_data", "alpha_mask") if data.masked_loss and getattr(data, name)]
    if not painted or (data.masked_loss and not others):
        return dataset
    why = f"{title(others[0])} is used instead" if others else f"{title('masked_loss')} is off"
    return replace(dataset, notes=(*dataset.notes, f"Masks painted in Images ({painted}) are not used: {why}."))


def _split_problems(config: TrainConfig, dataset: Dataset) -> list[str]:
    count = sum(not sample.is_reg for sample in dataset.samples)
    if config.data.validation_split == 0 or count != 1:
        return []
    return [f"{title('validation_split')}: there is only one image; add more, or set it to 0."]


def _weight_problems(config: TrainConfig, dataset: Dataset) -> list[str]:
    """Problems of captions whose brackets nest too deep for weights."""
    if not config.text.weighted_captions:
        return []
    try:
        for caption in dict.fromkeys(sample.caption for sample in dataset.samples):
            attention_weights(caption, webui=config.text.token_rule == "webui")
    except DatasetError as error:
        return error.problems
    return []


def _cache_problems(config: TrainConfig, dataset: Dataset) -> list[str]:
    """Problems of the folders for cached latents, found before the first image is encoded."""
    if not (config.data.cache_latents and config.data.cache_latents_to_disk):
        return []
    start = f"{title('cache_latents_to_disk')}: "
    kept = [folder.path / CACHE_FOLDER for folder in dataset.folders]
    links = [f"{start}{str(place)!r} is a link, which is not followed; remove it." for place in kept if place.is_symlink()]
    places = [place if place.exists() else place.parent for place in kept if not place.is_symlink()]
    return links + [
        f"{start}{str(place)!r} cannot be written to; check its permissions, or turn it off."
        for place in places
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK))
    ]
