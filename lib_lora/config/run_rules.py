"""Rules of what a run leaves behind that look at more than one value."""

from __future__ import annotations

from lib_lora.config.groups import Rule, TrainConfig
from lib_lora.config.prompts import read_prompts


def one_way_of_saving_epochs(config: TrainConfig) -> str | None:
    run = config.run
    if not (run.save_every_n_epochs and run.save_n_epoch_ratio):
        return None
    return (
        "Save every … epochs (save_every_n_epochs) and Saves in between (save_n_epoch_ratio): both say how often to save; "
        "set one of them to 0."
    )


def kept_epochs_are_saved(config: TrainConfig) -> str | None:
    run = config.run
    if not run.save_last_n_epochs or run.save_every_n_epochs or run.save_n_epoch_ratio:
        return None
    return (
        "Keep last … epochs (save_last_n_epochs): nothing is saved by epochs; set Save every … epochs (save_every_n_epochs), "
        "or 0 here."
    )


def kept_steps_are_saved(config: TrainConfig) -> str | None:
    run = config.run
    if not run.save_last_n_steps or run.save_every_n_steps:
        return None
    return (
        "Keep last … steps (save_last_n_steps): nothing is saved by steps; set Save every … steps (save_every_n_steps), "
        "or 0 here."
    )


def kept_states_are_saved(config: TrainConfig) -> str | None:
    run = config.run
    by_epochs = run.save_state and (run.save_every_n_epochs or run.save_n_epoch_ratio)
    by_steps = run.save_state and run.save_every_n_steps
    for label, name, value, saved, needed in (
        ("Keep states of … epochs", "save_last_n_epochs_state", run.save_last_n_epochs_state, by_epochs, "epochs"),
        ("Keep states of … steps", "save_last_n_steps_state", run.save_last_n_steps_state, by_steps, "steps"),
    ):
        if value and not saved:
            return (
                f"{label} ({name}): no state is saved by {needed}; set Save the state (save_state) and Save every … {needed} "
                f"(save_every_n_{needed}), or 0 here."
            )
    return None


def sample_prompts_can_be_read(config: TrainConfig) -> str | None:
    start = "Sample prompts (sample_prompts): "
    if not config.run.sample_prompts:
        return None
    try:
        prompts = read_prompts(config.run.sample_prompts)
    except ValueError as error:
        return f"{start}{error}."
    return None if prompts else start + "holds no prompt; write one, or leave the field empty for the trigger word."


RULES: tuple[Rule, ...] = (
    one_way_of_saving_epochs,
    kept_epochs_are_saved,
    kept_steps_are_saved,
    kept_states_are_saved,
    sample_prompts_can_be_read,
)
