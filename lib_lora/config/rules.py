"""Rules that look at more than one value: small functions from a configuration to a sentence, or None."""

from __future__ import annotations

from pathlib import Path

from lib_lora.config import adapter_rules, data_rules, embedding_rules, run_rules, training_rules
from lib_lora.config.arguments import argument_problem, parse_arguments
from lib_lora.config.classes import class_problem
from lib_lora.config.groups import Rule, TrainConfig, all_options, is_read, options_by_name, unread
from lib_lora.config.names import name_problem, taken_between_problem, taken_problem
from lib_lora.config.optimizers import OPTIMIZERS, PINS, full_name, optimizer_spec
from lib_lora.config.options import bounds_problem, shown
from lib_lora.config.prompts import prompt_notes

SHOWN = 80  # characters of a name that is none


def config_problems(config: TrainConfig, out: Path | None) -> list[str]:
    """Every sentence that must be said about `config` before a run, all at once; `out` is the LoRA folder."""
    problems = [bounds_problem(opt, config.value(opt)) for opt in all_options() if is_read(config, opt.name)]
    problems += [rule(config) for rule in RULES]
    problems.append(name_problem(config.run.name))
    if out is not None and problems[-1] is None:
        problems.append(taken_problem(config.run.name, out, overwrite=config.run.overwrite))
        if not (config.run.overwrite or config.run.resume):  # what a resumed run may find is told with its state
            epochs = bool(config.run.save_every_n_epochs or config.run.save_n_epoch_ratio)
            steps = bool(config.run.save_every_n_steps)
            problems.append(taken_between_problem(config.run.name, out, epochs=epochs, steps=steps))
    return [problem for problem in problems if problem]


def config_notes(config: TrainConfig) -> list[str]:
    """What a run has to tell of its settings: what was set and has no effect, and what prompts say that is not read."""
    options = options_by_name()
    titles: dict[str, list[str]] = {}
    for name, since in unread(config):
        if config.value(options[name]) != options[name].default:
            titles.setdefault(since, []).append(options[name].title)
    notes = [f"{' and '.join(found)}: without effect, since {since}." for since, found in titles.items()]
    return notes + (prompt_notes(config.run.sample_prompts) if config.run.draws_samples else [])


def something_is_trained(config: TrainConfig) -> str | None:
    if config.optimizer.unet_lr > 0 or config.optimizer.text_encoder_lr != 0:  # where it is not given, the family decides
        return None
    return (
        "Learning rate, U-Net (unet_lr) and Learning rate, text encoder (text_encoder_lr): both are 0; nothing would be trained."
    )


def warmup_has_a_schedule(config: TrainConfig) -> str | None:
    optimizer = config.optimizer
    has_one = optimizer.lr_scheduler not in {"constant", "adafactor"} and not optimizer.lr_scheduler_type
    if optimizer.lr_warmup_steps == 0 or has_one or not is_read(config, "lr_warmup_steps"):
        return None
    name = optimizer.lr_scheduler_type or optimizer.lr_scheduler
    return f"Warm-up steps (lr_warmup_steps): the schedule {name} has no warm-up; choose constant_with_warmup, or 0."


def caption_extension_is_one(config: TrainConfig) -> str | None:
    value = config.text.caption_extension
    if value.startswith(".") and len(value) > 1 and not set(value) & set("/\\"):
        return None
    return f"Caption files (caption_extension): got {shown(value)}, must be an ending such as .txt."


def separators_are_there(config: TrainConfig) -> str | None:
    if config.text.caption_separator or not config.text.tags_move:
        return None
    return "Tag separator (caption_separator): is empty; a comma is usual."


def schedule_arguments_have_a_reader(config: TrainConfig) -> str | None:
    optimizer = config.optimizer
    has_reader = optimizer.lr_scheduler_type or optimizer.lr_scheduler == "piecewise_constant"
    if not optimizer.lr_scheduler_args or has_reader or not is_read(config, "lr_scheduler_args"):
        return None
    return (
        f"Schedule arguments (lr_scheduler_args): the schedule {optimizer.lr_scheduler} takes none; use its own fields, as "
        "Cycles (lr_scheduler_num_cycles), or name a class as Other schedule (lr_scheduler_type)."
    )


def timestep_range(config: TrainConfig) -> str | None:
    low, high = config.objective.min_timestep, config.objective.max_timestep
    if low < high:
        return None
    return f"First timestep (min_timestep): got {low}, must be smaller than Last timestep (max_timestep), {high}."


def velocity_weights_fit(config: TrainConfig) -> str | None:
    objective = config.objective
    if objective.scale_v_pred_loss_like_noise_pred and not objective.v_parameterization:
        return (
            "Scale v like noise (scale_v_pred_loss_like_noise_pred): only for a checkpoint that predicts v; "
            "turn it off, or Checkpoint predicts v (v_parameterization) on."
        )
    if objective.v_pred_like_loss > 0 and objective.v_parameterization:
        return (
            "v-like loss (v_pred_like_loss): only for a checkpoint that predicts noise; "
            "set it to 0, or turn Checkpoint predicts v (v_parameterization) off."
        )
    return None


def steps_are_whole(config: TrainConfig) -> str | None:
    optimizer = config.optimizer
    for label, name, value in (("Warm-up steps", "lr_warmup_steps", optimizer.lr_warmup_steps),
                               ("Decay steps", "lr_decay_steps", optimizer.lr_decay_steps)):  # fmt: skip
        if value >= 1 and value != int(value) and is_read(config, name):
            return f"{label} ({name}): got {value:g}, must be a whole number of steps, or a share below 1."
    return None


def optimizer_is_installed(config: TrainConfig) -> str | None:
    name = config.optimizer.optimizer
    spec = optimizer_spec(name)
    if spec not in OPTIMIZERS.values():  # looked at as text: nothing is imported for a name
        problem = class_problem(f"{spec.module}.{spec.attribute}", "optimizer") if name else None
        return f"Optimizer (optimizer): {name[:SHOWN]!r} {problem}; choose one of the list." if problem else None
    if spec.installed():
        return None
    return (
        f"Optimizer (optimizer): {name} needs the package {spec.package}; choose AdamW, or install {PINS[spec.package]} with "
        "pip's --no-deps, which leaves the webui's torch as it is."
        if spec.package in PINS
        else f"Optimizer (optimizer): {name} needs the package {spec.package}, which is not installed; choose AdamW."
    )


def other_schedule_is_installed(config: TrainConfig) -> str | None:
    name = config.optimizer.lr_scheduler_type
    problem = class_problem(full_name(name), "schedule") if name else None
    return (
        f"Other schedule (lr_scheduler_type): {name[:SHOWN]!r} {problem}; leave it empty for the one above." if problem else None
    )


def optimizer_has_a_name(config: TrainConfig) -> str | None:
    if config.optimizer.optimizer:
        return None
    return "Optimizer (optimizer): is empty; choose AdamW."


def arguments_can_be_read(config: TrainConfig) -> str | None:
    optimizer = config.optimizer
    for label, name, texts in (("Optimizer arguments", "optimizer_args", optimizer.optimizer_args),
                               ("Schedule arguments", "lr_scheduler_args", optimizer.lr_scheduler_args)):  # fmt: skip
        problem = argument_problem(texts if is_read(config, name) else ())
        if problem:
            return f"{label} ({name}): {problem}"
    return None


def one_rate_for_all(config: TrainConfig) -> str | None:
    optimizer, embedding = config.optimizer, config.embedding
    rates = {rate for rate in (optimizer.unet_lr, optimizer.text_encoder_lr) if rate}
    rates |= {embedding.embedding_lr} if embedding.embedding_vectors else set()
    if len(rates) < 2 or not optimizer_spec(optimizer.optimizer).one_rate:
        return None
    last = " and Learning rate, embedding (embedding_lr)" if embedding.embedding_vectors else ""
    return (
        f"Optimizer (optimizer): {optimizer.optimizer} finds one learning rate for all; give Learning rate, U-Net (unet_lr) and "
        f"Learning rate, text encoder (text_encoder_lr){last} the same value, usually 1."
    )


def schedule_fits_the_optimizer(config: TrainConfig) -> str | None:
    optimizer = config.optimizer
    spec = optimizer_spec(optimizer.optimizer)
    start = f"Learning rate schedule (lr_scheduler): got {optimizer.lr_scheduler}, "
    if not is_read(config, "lr_scheduler"):
        return None
    try:
        arguments = {**spec.defaults, **parse_arguments(optimizer.optimizer_args)}
    except ValueError:
        return None  # arguments_can_be_read tells
    makes_its_own = spec.attribute == "Adafactor" and bool(arguments.get("relative_step"))
    if makes_its_own and optimizer.lr_scheduler != "adafactor":
        return start + "but AdaFactor makes its own rate; choose adafactor, or the argument relative_step=False."
    if optimizer.lr_scheduler == "adafactor" and not makes_its_own:
        return start + "which goes with the optimizer AdaFactor (relative_step=True) alone."
    return None


RULES: tuple[Rule, ...] = (
    something_is_trained,
    warmup_has_a_schedule,
    caption_extension_is_one,
    separators_are_there,
    schedule_arguments_have_a_reader,
    timestep_range,
    velocity_weights_fit,
    steps_are_whole,
    optimizer_has_a_name,
    optimizer_is_installed,
    other_schedule_is_installed,
    arguments_can_be_read,
    one_rate_for_all,
    schedule_fits_the_optimizer,
    *data_rules.RULES,
    *adapter_rules.RULES,
    *embedding_rules.RULES,
    *run_rules.RULES,
    *training_rules.RULES,
)
