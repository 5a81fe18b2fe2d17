"""Finds the saved state to resume from, reads it, and checks whether it fits, before a model is changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lib_lora.config.groups import TrainConfig, all_options, is_read
from lib_lora.config.names import taken_between_problem
from lib_lora.config.settled import Settled
from lib_lora.data.hidden_names import given_name
from lib_lora.errors import ConfigError, Problem
from lib_lora.files.plain_values import StateError
from lib_lora.files.state_file import VALUES, read_tensors, read_values
from lib_lora.host import Host
from lib_lora.model.base import BaseModel, ModelInfo
from lib_lora.paths import at_home, pasted, path_problem
from lib_lora.plan import Plan
from lib_lora.training.state_fits import misfits, unplaced
from lib_lora.training.state_rules import checked_tree, step_of

TITLE = "Resume from (resume): "


@dataclass(frozen=True)
class Resumed:
    """A state to resume from, after `step` updates. `state`: nested values and CPU tensors. `told`: notes for the user."""

    folder: Path
    step: int
    state: dict[str, Any]
    model: str | None
    precision: str
    settings: Mapping[str, Any]
    told: tuple[str, ...] = ()

    def check_model(self, model: ModelInfo, precision: str, config: Settled) -> None:
        """Check the state against the borrowed model.

        Raises:
            StateError: the state is of another checkpoint, another precision, or other learning rates.
        """
        other = _checkpoint_problem(self.model, model)
        if other:
            raise StateError(other)
        if self.precision != precision:
            raise StateError(
                f"{TITLE}the state was trained in {self.precision}, this run would use {precision}; set Mixed precision "
                f"(mixed_precision) to {self.precision}."
            )
        problem = _settings_problem(config.saved, self.settings)
        if problem:
            raise StateError(problem)


def find_resumed(config: Settled, plan: Plan, host: Host, base: BaseModel | None) -> Resumed | None:
    """The state that the configuration names, read and checked; None if it names none.

    `base`: the model, which is only read; None if there is none yet. If the model's family is unknown, default learning rates
    are checked later, by `Resumed.check_model`.

    Raises:
        ConfigError: the state is missing or damaged, or does not fit settings, images or names.
    """
    if not config.run.resume:
        return None
    try:
        folder, values, state, told = _read(config.run.resume, host.work_folder())
    except StateError as error:
        raise ConfigError([Problem("resume", text) for text in error.problems]) from error
    problems = _problems(config.saved if config.model else config.given, plan, host, values)
    other = _checkpoint_problem(values["model"], base.info()) if base and not problems else None
    problems += [other] if other else []
    if not problems and (config.model or config.given.optimizer.text_encoder_lr is not None):
        found = [*misfits(config, state, values["precision"], plan.steps, host.device()), *unplaced(state, base)]
        problems = [f"{TITLE}the state {folder.name!r} does not fit: {words}; choose another." for words in found]
    if problems:
        raise ConfigError([Problem("resume", text) for text in problems])
    return Resumed(folder, step_of(values), state, values["model"], values["precision"], values["configuration"],
                   (*told, *_other_versions(values)))  # fmt: skip


def _candidates(text: str, work: Path) -> list[Path]:
    """The folders of states that `text` may mean, newest first; only one if `text` is a state's folder."""
    none = f"{TITLE}got {text!r}, which is neither the folder of a saved state nor the name of a LoRA with one; choose another."
    problem = path_problem(pasted(text))
    if problem:
        raise StateError(f"{TITLE}{text!r} {problem}")
    given = Path(pasted(text))
    try:
        given = at_home(str(given))
        if given.is_dir():
            return [given] if (given / VALUES).exists() else _newest_first(given) or [given]
        if given.name == str(given):  # a name, not a path
            named = next(iter(sorted(work.glob(f"*/{given.name}/{VALUES}"))), None) if set(given.name).isdisjoint("*?[") else None
            found = _newest_first(work / given.name) or ([named.parent] if named else [])
            if found:
                return found
    except (OSError, ValueError, RuntimeError) as error:  # not a valid file name, or the home of an unknown user
        raise StateError(none) from error
    raise StateError(none)


def _read(text: str, work: Path) -> tuple[Path, dict[str, Any], dict[str, Any], list[str]]:
    """The newest undamaged state that `text` may mean: folder, values, nested state, and a note on each newer damaged one.

    Raises:
        StateError: there is none; the error is that of the newest one.
    """
    damaged: list[tuple[Path, StateError]] = []
    candidates = _candidates(text, work)
    for folder in candidates:
        try:
            values = read_values(folder)
            state = _checked(folder, values)
        except StateError as error:
            damaged.append((folder, error))
        else:
            since = folder.stat().st_mtime_ns
            newer = [other for other in candidates if _steps(other) < 0 and other.stat().st_mtime_ns > since]
            others = [other for other, _ in damaged] + newer
            told = [f"The state {other.name!r} is damaged; the run resumes from {folder.name!r}." for other in others]
            return folder, values, state, told
    raise damaged[0][1]


def _checked(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested state in `folder`.

    Raises:
        StateError: the state is malformed.
    """
    tensors = read_tensors(folder, values)
    try:
        return checked_tree(values, tensors)
    except StateError as error:
        raise StateError(f"{TITLE}{str(folder)!r} is damaged: {error}; choose an older state.") from error


def _other_versions(values: Mapping[str, Any]) -> list[str]:
    """A note if the state is of another torch version: results may differ in the last bits."""
    before = values["versions"]["torch"]
    if before == torch.__version__:
        return []
    return [
        f"The state was trained with torch {before}, this run uses {torch.__version__}; results may differ in the last digits."
    ]


def data_fingerprint(plan: Plan) -> str:
    """A hash of all that the plan takes from the images: their content, captions, order, buckets and batches."""
    digest = hashlib.sha256()
    for sample, placement in zip(plan.samples, plan.placements):
        content = [sample.sha256] if sample.mask is None else [sample.sha256, sample.mask_sha256]
        content += [repr(part) for part in (sample.crop, sample.cut) if part is not None]
        digest.update(
            json.dumps(
                [given_name(sample.path), content, sample.caption, sample.repeats, sample.is_reg, repr(placement)]
            ).encode()
        )
    buckets = [[str(size), list(members)] for size, members in plan.buckets.items()]
    digest.update(json.dumps([buckets, list(plan.heldout), plan.batch_size, plan.accumulation, plan.steps_per_epoch]).encode())
    return digest.hexdigest()


def _newest_first(folder: Path) -> list[Path]:
    """The states in `folder`: most steps first, then newest first; damaged ones are last."""
    found = [(_steps(path.parent), path.stat().st_mtime_ns, path.parent) for path in folder.glob(f"*/{VALUES}")]
    return [path for _, _, path in sorted(found, reverse=True)]


def _steps(folder: Path) -> int:
    """Number of updates of a state; -1 if its values are damaged."""
    try:
        return step_of(read_values(folder))
    except StateError:
        return -1


def _problems(config: TrainConfig, plan: Plan, host: Host, values: Mapping[str, Any]) -> list[str]:
    step, problems = step_of(values), []
    different = _settings_problem(config, values["configuration"])
    if different:
        problems.append(different)
    elif values["data"] != data_fingerprint(plan):  # other settings may give another plan for the same images
        problems.append(f"{TITLE}the state was trained on other images or captions; restore those.")
    if step >= plan.steps:
        problems.append(
            f"{TITLE}the state is at step {step} of {plan.steps}, nothing is left to train; set Epochs or Steps higher."
        )
    run = config.run
    if not run.overwrite:
        at = (step // plan.steps_per_epoch, step)
        epochs, steps = bool(run.save_every_n_epochs or run.save_n_epoch_ratio), bool(run.save_every_n_steps)
        taken = taken_between_problem(run.name, host.lora_folder(), epochs=epochs, steps=steps, resumed_at=at)
        problems += [taken] if taken else []
    return problems


def _checkpoint_problem(saved: str | None, model: ModelInfo) -> str | None:
    if saved and model.legacy_hash and saved != model.legacy_hash:
        return f"{TITLE}the state was trained on another checkpoint than {model.name!r}; select that one."
    return None


def _settings_problem(config: TrainConfig, saved: Mapping[str, Any]) -> str | None:
    """The problem that names every changed option that affects the result, or None.

    Default learning rates of a model whose family is unknown are not compared.
    """
    now = json.loads(json.dumps(config.to_flat()))
    checked = [opt for opt in all_options() if opt.declaration.affects == "result"]
    default = json.loads(json.dumps({opt.name: opt.default for opt in checked}))
    different = [
        f"{opt.title} was {saved.get(opt.name, default[opt.name])!r}, is {now[opt.name]!r}"
        for opt in checked
        if saved.get(opt.name, default[opt.name]) != now[opt.name]
        and not (opt.default is None and now[opt.name] is None)
        and is_read(config, opt.name)
    ]
    return f"{TITLE}the state was trained with other settings: {'; '.join(different)}; change them back." if different else None
