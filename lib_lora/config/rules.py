"""Rules over several options: functions from a configuration to a problem, or None."""

from __future__ import annotations

from pathlib import Path

from lib_lora.config import adapter_rules, data_rules, embedding_rules, run_rules, training_rules
from lib_lora.config.classes import class_problem
from lib_lora.config.groups import Rule, TrainConfig, all_options, is_read, options_by_name, unread
from lib_lora.config.keyword_arguments import argument_problem, parse_arguments
from lib_lora.config.names import name_problem, taken_between_problem, taken_problem
from lib_lora.config.optimizer_specs import OPTIMIZERS, PINS, full_name, optimizer_spec
from lib_lora.config.options import bounds_problem, shown
from lib_lora.config.prompts import prompt_notes
from lib_lora.config.settled import ModelRule, Settled
from lib_lora.errors import Problem

STEPS_OR_SHARES = ("lr_warmup_steps", "lr_decay_steps", "stop_text_encoder_training", "stop_embedding_training")
SHOWN = 80  # characters of an unknown name in a message


def config_problems(config: TrainConfig, settled: Settled | None = None) -> list[Problem]:
    """All problems of `config` itself.

    `settled`: `config` settled for the model, if the model is known.
    """
    bounds = {opt.name: bounds_problem(opt, config.value(opt)) for opt in all_options() if is_read(config, opt.name)}
    problems = [Problem(name, text) for name, text in bounds.items() if text]
    found = [*(rule(config) for rule in RULES), *(rule(config, settled) for rule in MODEL_RULES)]
    problems += [problem for problem in found if problem]
    unfit = name_problem(config.run.name)
    return [*problems, Problem("name", unfit)] if unfit else problems


def taken_problems(config: TrainConfig, out: Path) -> list[Problem]:
    """Problems if the LoRA folder `out` already has files under the run's names. The name itself is legal."""
    run = config.run
    found = [taken_problem(run.name, out, overwrite=run.overwrite)]
    if not (run.overwrite or run.resume):  # for a resumed run, the check of its state does this
        epochs, steps = bool(run.save_every_n_epochs or run.save_n_epoch_ratio), bool(run.save_every_n_steps)
        found.append(taken_between_problem(run.name, out, epochs=epochs, steps=steps))
    return [Problem("name", text) for text in found if text]


def config_notes(config: TrainConfig) -> list[str]:
    """Notes on the settings: options without effect, and parts of sample prompts that are not read."""
    options = options_by_name()
    titles: dict[str, list[str]] = {}
    for name, since in unread(config):
        if config.value(options[name]) != options[name].default:
            titles.setdefault(since, []).append(options[name].title)
    notes = [f"{' and '.join(found)}: no effect, because {since}." for since, found in titles.items()]
    return notes + (prompt_notes(config.run.sample_prompts) if config.run.draws_samples else [])


def something_is_trained(config: TrainConfig, settled: Settled | None = None) -> Problem | None:
    rate = (settled or config).optimizer.text_encoder_lr  # if not given, the family decides
    if config.optimizer.unet_lr > 0 or rate != 0:
        return None
    problem = Problem(
        "unet_lr",
        "Learning rate, U-Net (unet_lr) and Learning rate, text encoder (text_encoder_lr): both are 0; nothing would be trained.",
    )
    return settled.because(problem) if settled and config.optimizer.text_encoder_lr is None else problem


def warmup_has_a_schedule(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    has_one = optimizer.lr_scheduler not in {"constant", "adafactor"} and not optimizer.lr_scheduler_type
    if optimizer.lr_warmup_steps == 0 or has_one or not is_read(config, "lr_warmup_steps"):
        return None
    name = optimizer.lr_scheduler_type or optimizer.lr_scheduler
    return Problem(
        "lr_warmup_steps",
        f"Warm-up steps (lr_warmup_steps): the schedule {name} has no warm-up; choose constant_with_warmup, or 0.",
    )


def caption_extension_is_one(config: TrainConfig) -> Problem | None:
    value = config.text.caption_extension
    if value.startswith(".") and len(value) > 1 and not set(value) & set("/\\"):
        return None
    return Problem("caption_extension", f"Caption files (caption_extension): got {shown(value)}, must be an ending such as .txt.")


def separators_are_there(config: TrainConfig) -> Problem | None:
    if config.text.caption_separator or not config.text.tags_move:
        return None
    return Problem("caption_separator", "Tag separator (caption_separator): is empty; a comma is usual.")


def schedule_arguments_have_a_reader(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    has_reader = optimizer.lr_scheduler_type or optimizer.lr_scheduler == "piecewise_constant"
    if not optimizer.lr_scheduler_args or has_reader or not is_read(config, "lr_scheduler_args"):
        return None
    return Problem(
        "lr_scheduler_args",
        f"Schedule arguments (lr_scheduler_args): the schedule {optimizer.lr_scheduler} takes none; use its own options, such as "
        "Cycles (lr_scheduler_num_cycles), or choose a class in Other schedule (lr_scheduler_type).",
    )


def timestep_range(config: TrainConfig) -> Problem | None:
    low, high = config.objective.min_timestep, config.objective.max_timestep
    if low < high:
        return None
    return Problem(
        "min_timestep", f"First timestep (min_timestep): got {low}, must be smaller than Last timestep (max_timestep), {high}."
    )


def velocity_weights_fit(config: TrainConfig, settled: Settled | None = None) -> Problem | None:
    objective = config.objective
    if objective.scale_v_pred_loss_like_noise_pred and not objective.v_parameterization:
        return Problem(
            "scale_v_pred_loss_like_noise_pred",
            "Scale v like noise (scale_v_pred_loss_like_noise_pred): works only with a checkpoint that predicts v; turn it off, "
            "or turn on Checkpoint predicts v (v_parameterization).",
        )
    if objective.v_pred_like_loss <= 0 or not (settled or config).objective.v_parameterization:
        return None
    problem = Problem(
        "v_pred_like_loss",
        "v-like loss (v_pred_like_loss): works only with a checkpoint that predicts noise; set it to 0, or turn off Checkpoint "
        "predicts v (v_parameterization).",
    )
    return settled.because(problem) if settled and not objective.v_parameterization else problem


def steps_are_whole(name: str) -> Rule:
    """The rule that `name` is a whole number of steps, or a share below 1."""
    opt = options_by_name()[name]

    def rule(config: TrainConfig) -> Problem | None:
        value = config.value(opt)
        if value < 1 or value == int(value) or not is_read(config, name):
            return None
        return Problem(name, f"{opt.title}: got {value:g}, must be a whole number of steps, or a share below 1.")

    return rule


def optimizer_is_installed(config: TrainConfig) -> Problem | None:
    name = config.optimizer.optimizer
    spec = optimizer_spec(name)
    if spec not in OPTIMIZERS.values():  # checked as text, without an import
        problem = class_problem(f"{spec.module}.{spec.attribute}", "optimizer") if name else None
        text = f"Optimizer (optimizer): {name[:SHOWN]!r} {problem}; choose one from the list."
        return Problem("optimizer", text) if problem else None
    if spec.installed():
        return None
    start = f"Optimizer (optimizer): {name} needs the package {spec.package}"
    if spec.package not in PINS:
        return Problem("optimizer", f"{start}, which is not installed; choose AdamW.")
    return Problem(
        "optimizer",
        f"{start}; choose AdamW, or install {PINS[spec.package]} with pip and --no-deps, which keeps the webui's torch.",
    )


def other_schedule_is_installed(config: TrainConfig) -> Problem | None:
    name = config.optimizer.lr_scheduler_type
    problem = class_problem(full_name(name), "schedule") if name else None
    text = (
        f"Other schedule (lr_scheduler_type): {name[:SHOWN]!r} {problem}; leave it empty to use Learning rate schedule "
        "(lr_scheduler)."
    )
    return Problem("lr_scheduler_type", text) if problem else None


def optimizer_has_a_name(config: TrainConfig) -> Problem | None:
    if config.optimizer.optimizer:
        return None
    return Problem("optimizer", "Optimizer (optimizer): is empty; choose AdamW.")


def arguments_can_be_read(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    for label, name, texts in (("Optimizer arguments", "optimizer_args", optimizer.optimizer_args),
                               ("Schedule arguments", "lr_scheduler_args", optimizer.lr_scheduler_args)):  # fmt: skip
        problem = argument_problem(texts if is_read(config, name) else ())
        if problem:
            return Problem(name, f"{label} ({name}): {problem}")
    return None


def one_rate_for_all(config: TrainConfig, settled: Settled | None = None) -> Problem | None:
    optimizer, embedding = config.optimizer, config.embedding
    given = {rate for rate in (optimizer.unet_lr, optimizer.text_encoder_lr) if rate}
    given |= {embedding.embedding_lr} if embedding.embedding_vectors else set()
    rates = given | ({settled.optimizer.text_encoder_lr} - {0.0} if settled else set())
    if len(rates) < 2 or not optimizer_spec(optimizer.optimizer).one_rate:
        return None
    last = " and Learning rate, embedding (embedding_lr)" if embedding.embedding_vectors else ""
    problem = Problem(
        "optimizer",
        f"Optimizer (optimizer): {optimizer.optimizer} finds one learning rate for everything; set Learning rate, U-Net "
        f"(unet_lr) and Learning rate, text encoder (text_encoder_lr){last} to the same value, usually 1.",
    )
    return settled.because(problem) if settled and len(given) < 2 else problem


def schedule_fits_the_optimizer(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    spec = optimizer_spec(optimizer.optimizer)
    start = f"Learning rate schedule (lr_scheduler): got {optimizer.lr_scheduler}, "
    if not is_read(config, "lr_scheduler"):
        return None
    try:
        makes_its_own = spec.makes_its_own_rate(parse_arguments(optimizer.optimizer_args))
    except ValueError:
        return None  # reported by arguments_can_be_read
    if makes_its_own and optimizer.lr_scheduler != "adafactor":
        return Problem(
            "lr_scheduler",
            start + "but AdaFactor sets its own learning rate; choose adafactor, or add relative_step=False to "
            "Optimizer arguments (optimizer_args).",
        )
    if optimizer.lr_scheduler == "adafactor" and not makes_its_own:
        return Problem(
            "lr_scheduler", start + "which works only with the optimizer AdaFactor and relative_step=True; choose another."
        )
    return None


RULES: tuple[Rule, ...] = (
    warmup_has_a_schedule,
    caption_extension_is_one,
    separators_are_there,
    schedule_arguments_have_a_reader,
    timestep_range,
    *map(steps_are_whole, STEPS_OR_SHARES),
    optimizer_has_a_name,
    optimizer_is_installed,
    other_schedule_is_installed,
    arguments_can_be_read,
    schedule_fits_the_optimizer,
    *data_rules.RULES,
    *adapter_rules.RULES,
    *embedding_rules.RULES,
    *run_rules.RULES,
    *training_rules.RULES,
)
MODEL_RULES: tuple[ModelRule, ...] = (something_is_trained, velocity_weights_fit, one_rate_for_all, *adapter_rules.MODEL_RULES)
