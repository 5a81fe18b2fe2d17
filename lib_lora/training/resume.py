"""Going on from a saved state: which one, whether it fits, and what it says. All before a model is touched."""

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
    """A state to go on from: `step` updates were made; `state` is nested values and CPU tensors; `told` to the user."""

    folder: Path
    step: int
    state: dict[str, Any]
    model: str | None
    precision: str
    settings: Mapping[str, Any]
    told: tuple[str, ...] = ()

    def check_model(self, model: ModelInfo, precision: str, config: Settled) -> None:
        """Called once the model is there.

        Raises:
            StateError: the state is of another checkpoint, of another number format, or of other rates.
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
    """The state that the configuration names, read whole; None where it names none.

    `base`: the model, which is only looked at; None where none is there. A rate that is not given, of a model whose family is not
    known yet, is looked at once the model is there.

    Raises:
        ConfigError: it is missing or damaged, or does not fit settings, images or names.
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
    """The folders that `text` may mean, the newest first; one alone where it names one."""
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
    except (OSError, ValueError, RuntimeError) as error:  # no name that a disk takes, or the home of a person who is not there
        raise StateError(none) from error
    raise StateError(none)


def _read(text: str, work: Path) -> tuple[Path, dict[str, Any], dict[str, Any], list[str]]:
    """The newest whole state that `text` may mean, its values, what is nested, and a sentence on each newer one that is damaged.

    Raises:
        StateError: there is none; of the newest.
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
    """What is nested in a state.

    Raises:
        StateError: it is not what a state must be.
    """
    tensors = read_tensors(folder, values)
    try:
        return checked_tree(values, tensors)
    except StateError as error:
        raise StateError(f"{TITLE}{str(folder)!r} is damaged: {error}; choose an older state.") from error


def _other_versions(values: Mapping[str, Any]) -> list[str]:
    """What is said where torch is not the one of the state: its numbers may differ in the last bits."""
    before = values["versions"]["torch"]
    if before == torch.__version__:
        return []
    return [
        f"The state was trained with torch {before}, this run uses {torch.__version__}; results may differ in the last digits."
    ]


def data_fingerprint(plan: Plan) -> str:
    """A hash of all that the plan takes from the images: their content, captions, order, buckets, and what a step shows."""
    digest = hashlib.sha256()
    for sample, placement in zip(plan.samples, plan.placements):
        content = [sample.sha256] if sample.mask is None else [sample.sha256, sample.mask_sha256]
        digest.update(
            json.dumps(
                [given_name(sample.path), content, sample.caption, sample.repeats, sample.is_reg, repr(placement)]
            ).encode()
        )
    buckets = [[str(size), list(members)] for size, members in plan.buckets.items()]
    digest.update(json.dumps([buckets, list(plan.heldout), plan.batch_size, plan.accumulation, plan.steps_per_epoch]).encode())
    return digest.hexdigest()


def _newest_first(folder: Path) -> list[Path]:
    """The states in `folder`, those with the most steps first; of two, the one that was written last. Then what is damaged."""
    found = [(_steps(path.parent), path.stat().st_mtime_ns, path.parent) for path in folder.glob(f"*/{VALUES}")]
    return [path for _, _, path in sorted(found, reverse=True)]


def _steps(folder: Path) -> int:
    """How far a state is; -1 where its values are damaged."""
    try:
        return step_of(read_values(folder))
    except StateError:
        return -1


def _problems(config: TrainConfig, plan: Plan, host: Host, values: Mapping[str, Any]) -> list[str]:
    step, problems = step_of(values), []
    different = _settings_problem(config, values["configuration"])
    if different:
        problems.append(different)
    elif values["data"] != data_fingerprint(plan):  # other settings alone may make another plan of the same images
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
    """The sentence that names every option that changes numbers and is not as it was, or None.

    A rate that is not given, of a model whose family is not known yet, is looked at once the model is there.
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
