"""What is due after a step: saves, samples, validation, a progress record; and which older files are removed.

Saves are those of sd-scripts (`train_network.py`, `train_util.py`).

Pure functions of options, plan and step. Steps and epochs count from 1 here: `step` is the number of updates made.
"""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora.config.data import DataConfig
from lib_lora.config.run import RunConfig
from lib_lora.events import Event, Planned, Saved, SavedBetween, StateSaved, StepDone
from lib_lora.plan import Plan

RECORD_EVERY_S = 10.0  # while steps are made


@dataclass(frozen=True)
class Save:
    """One file to save: `NAME` + `ending`. `old`, `old_state`: endings of the LoRA and state to remove for it, or None."""

    ending: str
    epochs_done: int
    old: str | None = None
    old_state: str | None = None


def epoch_ending(epoch: int) -> str:
    """`-000001` (EPOCH_FILE_NAME)."""
    return f"-{epoch:06d}"


def step_ending(step: int) -> str:
    """`-step00000500` (STEP_FILE_NAME)."""
    return f"-step{step:08d}"


def save_epochs(run: RunConfig, epochs: int) -> int:
    """Number of epochs between saves; 0: never. A ratio takes precedence: ⌊epochs / ratio⌋, at least 1."""
    if run.save_n_epoch_ratio:
        return epochs // run.save_n_epoch_ratio or 1
    return run.save_every_n_epochs


def asked_save(run: RunConfig, plan: Plan, step: int) -> Save:
    """The files of `step`, as those that are saved every some steps."""
    every = run.save_every_n_steps
    old = _old_step(step, every, run.save_last_n_steps)
    old_state = _old_step(step, every, run.save_last_n_steps_state or run.save_last_n_steps)
    return Save(step_ending(step), (step - 1) // plan.steps_per_epoch, old, old_state)


def due_saves(run: RunConfig, plan: Plan, step: int, *, asked: bool = False) -> tuple[Save, ...]:
    """The files to save after `step`. `asked`: a save was requested. The last epoch has no epoch file: that is NAME itself."""
    saves = []
    every = run.save_every_n_steps
    if asked or (every and step % every == 0):
        saves.append(asked_save(run, plan, step))
    epoch, every = _epoch_ended(plan, step), save_epochs(run, plan.epochs)
    if epoch and every and epoch % every == 0 and epoch < plan.epochs:
        old = _old_epoch(epoch, every, run.save_last_n_epochs)
        old_state = _old_epoch(epoch, every, run.save_last_n_epochs_state or run.save_last_n_epochs)
        saves.append(Save(epoch_ending(epoch), epoch, old, old_state))
    return tuple(saves)


def samples_due(run: RunConfig, plan: Plan, step: int) -> bool:
    """Whether samples are drawn after `step`; 0 is before the first step. The end of a run counts as the end of its epoch."""
    if step == 0:
        return run.sample_at_first
    every, every_epochs = run.sample_every_n_steps, run.sample_every_n_epochs
    epoch = plan.epochs if step == plan.steps else _epoch_ended(plan, step)
    return bool((every and step % every == 0) or (every_epochs and epoch and epoch % every_epochs == 0))


def heldout_due(data: DataConfig, plan: Plan, step: int) -> bool:
    """Whether the validation loss is measured after `step`: at the configured intervals, and after the last step."""
    if not plan.heldout:
        return False
    steps, epochs = data.validate_every_n_steps, data.validate_every_n_epochs * plan.steps_per_epoch
    return step == plan.steps or any(every and step % every == 0 for every in (steps, epochs))


def record_due(event: Event, seconds: float) -> bool:
    """Whether to record a job's progress after `event`, `seconds` after the last record: for each file, and at intervals."""
    if isinstance(event, StepDone):
        return seconds >= RECORD_EVERY_S
    return isinstance(event, (Planned, StateSaved, Saved, SavedBetween))


def _epoch_ended(plan: Plan, step: int) -> int:
    """The epoch that ends with `step`, from 1; 0 if none does."""
    return 0 if step % plan.steps_per_epoch else step // plan.steps_per_epoch


def _old_epoch(epoch: int, every: int, kept: int) -> str | None:
    """sd-scripts `get_remove_epoch_no`."""
    old = epoch - every * kept
    return epoch_ending(old) if kept and old > 0 else None


def _old_step(step: int, every: int, kept: int) -> str | None:
    """sd-scripts `get_remove_step_no`: the last multiple of `every` that is more than `kept` steps back."""
    if not kept or not every:
        return None
    old = step - kept - 1
    old -= old % every
    return step_ending(old) if old > 0 else None
