"""Rules over several options: functions from a configuration to a problem, or None."""

from __future__ import annotations

from pathlib import Path

from lib_lora.config import adapter_rules, data_rules, embedding_rules
from lib_lora.config.classes import class_problem
from lib_lora.config.groups import Rule, TrainConfig, all_options, is_read, options_by_name, problem, title, unread
from lib_lora.config.keyword_arguments import argument_problem, parse_arguments
from lib_lora.config.names import name_problem, taken_between_problem, taken_problem
from lib_lora.config.optimizer_specs import OPTIMIZERS, PINS, full_name, optimizer_spec
from lib_lora.config.options import bounds_problem, shown
from lib_lora.config.prompts import prompt_notes, read_prompts
from lib_lora.config.settled import ModelRule, Settled
from lib_lora.errors import Problem

STEPS_OR_SHARES = ("lr_warmup_steps", "lr_decay_steps", "stop_text_encoder_training", "stop_embedding_training")
SHOWN = 80  # characters of an unknown name in a message
DIVIDES_BY_SQUARES = {"AdamW", "Adam", "NAdam", "Adagrad", "RMSprop"}  # of torch.optim, whose state has the weights' dtype


def config_problems(config: TrainConfig, settled: Settled | None = None) -> list[Problem]:
    """All problems of `config` itself.

    `settled`: `config` settled for the model, if the model is known.
    """
    bounds = {opt.name: bounds_problem(opt, config.value(opt)) for opt in all_options() if is_read(config, opt.name)}
    problems = [Problem(name, text) for name, text in bounds.items() if text]
    found = [*(rule(config) for rule in RULES), *(rule(config, settled) for rule in MODEL_RULES)]
    problems += filter(None, found)
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
            titles.setdefault(since, []).append(title(name))
    notes = [f"{' and '.join(found)}: no effect, because {since}." for since, found in titles.items()]
    return notes + (prompt_notes(config.run.sample_prompts) if config.run.draws_samples else [])


def something_is_trained(config: TrainConfig, settled: Settled | None = None) -> Problem | None:
    rate = (settled or config).optimizer.text_encoder_lr  # if not given, the family decides
    if config.optimizer.unet_lr > 0 or rate != 0:
        return None
    found = Problem("unet_lr", f"{title('unet_lr')} and {title('text_encoder_lr')}: both are 0; nothing would be trained.")
    return settled.because(found) if settled and config.optimizer.text_encoder_lr is None else found


def something_is_left_to_train(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    stops = optimizer.stop_text_encoder_training and is_read(config, "stop_text_encoder_training")
    if not stops or optimizer.unet_lr > 0:
        return None
    return problem(
        "stop_text_encoder_training",
        f"nothing else is trained, since {title('unet_lr')} is 0; set that above 0, or this to 0.",
    )


def warmup_has_a_schedule(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    has_one = optimizer.lr_scheduler not in {"constant", "adafactor"} and not optimizer.lr_scheduler_type
    if optimizer.lr_warmup_steps == 0 or has_one or not is_read(config, "lr_warmup_steps"):
        return None
    name = optimizer.lr_scheduler_type or optimizer.lr_scheduler
    return problem("lr_warmup_steps", f"the schedule {name} has no warm-up; choose constant_with_warmup, or 0.")


def caption_extension_is_one(config: TrainConfig) -> Problem | None:
    value = config.text.caption_extension
    if value.startswith(".") and len(value) > 1 and not set(value) & set("/\\"):
        return None
    return problem("caption_extension", f"got {shown(value)}, must be an ending such as .txt.")


def separators_are_there(config: TrainConfig) -> Problem | None:
    if config.text.caption_separator or not config.text.tags_move:
        return None
    return problem("caption_separator", "is empty; a comma is usual.")


def schedule_arguments_have_a_reader(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    has_reader = optimizer.lr_scheduler_type or optimizer.lr_scheduler == "piecewise_constant"
    if not optimizer.lr_scheduler_args or has_reader or not is_read(config, "lr_scheduler_args"):
        return None
    return problem(
        "lr_scheduler_args",
        f"the schedule {optimizer.lr_scheduler} takes none; use its own options, such as {title('lr_scheduler_num_cycles')}, or "
        f"choose a class in {title('lr_scheduler_type')}.",
    )


def timestep_range(config: TrainConfig) -> Problem | None:
    low, high = config.objective.min_timestep, config.objective.max_timestep
    if low < high:
        return None
    return problem("min_timestep", f"got {low}, must be smaller than {title('max_timestep')}, {high}.")


def velocity_weights_fit(config: TrainConfig, settled: Settled | None = None) -> Problem | None:
    objective, only = config.objective, "works only with a checkpoint that predicts"
    if objective.scale_v_pred_loss_like_noise_pred and not objective.v_parameterization:
        return problem("scale_v_pred_loss_like_noise_pred", f"{only} v; turn it off, or turn on {title('v_parameterization')}.")
    if objective.v_pred_like_loss <= 0 or not (settled or config).objective.v_parameterization:
        return None
    found = problem("v_pred_like_loss", f"{only} noise; set it to 0, or turn off {title('v_parameterization')}.")
    return settled.because(found) if settled and not objective.v_parameterization else found


def steps_are_whole(name: str) -> Rule:
    """The rule that `name` is a whole number of steps, or a share below 1."""
    opt = options_by_name()[name]

    def rule(config: TrainConfig) -> Problem | None:
        value = config.value(opt)
        if value < 1 or value == int(value) or not is_read(config, name):
            return None
        return problem(name, f"got {value:g}, must be a whole number of steps, or a share below 1.")

    return rule


def optimizer_has_a_name(config: TrainConfig) -> Problem | None:
    return None if config.optimizer.optimizer else problem("optimizer", "is empty; choose AdamW.")


def optimizer_is_installed(config: TrainConfig) -> Problem | None:
    name = config.optimizer.optimizer
    spec = optimizer_spec(name)
    if spec not in OPTIMIZERS.values():  # checked as text, without an import
        refused = class_problem(f"{spec.module}.{spec.attribute}", "optimizer") if name else None
        return problem("optimizer", f"{name[:SHOWN]!r} {refused}; choose one from the list.") if refused else None
    if spec.installed():
        return None
    text = ", which is not installed; choose AdamW."
    if spec.package in PINS:
        text = f"; choose AdamW, or install {PINS[spec.package]} with pip and --no-deps, which keeps the webui's torch."
    return problem("optimizer", f"{name} needs the package {spec.package}{text}")


def other_schedule_is_installed(config: TrainConfig) -> Problem | None:
    name = config.optimizer.lr_scheduler_type
    refused = class_problem(full_name(name), "schedule") if name else None
    text = f"{name[:SHOWN]!r} {refused}; leave it empty to use {title('lr_scheduler')}."
    return problem("lr_scheduler_type", text) if refused else None


def arguments_can_be_read(config: TrainConfig) -> Problem | None:
    for name in ("optimizer_args", "lr_scheduler_args"):
        refused = argument_problem(getattr(config.optimizer, name) if is_read(config, name) else ())
        if refused:
            return problem(name, refused)
    return None


def one_rate_for_all(config: TrainConfig, settled: Settled | None = None) -> Problem | None:
    optimizer, embedding = config.optimizer, config.embedding
    given = {rate for rate in (optimizer.unet_lr, optimizer.text_encoder_lr) if rate}
    given |= {embedding.embedding_lr} if embedding.embedding_vectors else set()
    rates = given | ({settled.optimizer.text_encoder_lr} - {0.0} if settled else set())
    if len(rates) < 2 or not optimizer_spec(optimizer.optimizer).one_rate:
        return None
    names = ["unet_lr", "text_encoder_lr", *(["embedding_lr"] if embedding.embedding_vectors else [])]
    found = problem(
        "optimizer",
        f"{optimizer.optimizer} finds one learning rate for everything; set {' and '.join(map(title, names))} to the same "
        "value, usually 1.",
    )
    return settled.because(found) if settled and len(given) < 2 else found


def schedule_fits_the_optimizer(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    start, is_adafactor = f"got {optimizer.lr_scheduler}, ", optimizer.lr_scheduler == "adafactor"
    if not is_read(config, "lr_scheduler"):
        return None
    try:
        makes_its_own = optimizer_spec(optimizer.optimizer).makes_its_own_rate(parse_arguments(optimizer.optimizer_args))
    except ValueError:
        return None  # reported by arguments_can_be_read
    if makes_its_own and not is_adafactor:
        return problem(
            "lr_scheduler",
            f"{start}but AdaFactor sets its own learning rate; choose adafactor, or add relative_step=False to "
            f"{title('optimizer_args')}.",
        )
    if is_adafactor and not makes_its_own:
        return problem(
            "lr_scheduler", f"{start}which works only with the optimizer AdaFactor and relative_step=True; choose another."
        )
    return None


def full_precision_fits(config: TrainConfig) -> Problem | None:
    mixed, title_of_mixed = config.precision.mixed_precision, title("mixed_precision")
    for name, wanted in (("full_fp16", "fp16"), ("full_bf16", "bf16")):
        if getattr(config.precision, name) and mixed != wanted:
            text = f"is on, but {title_of_mixed} is {mixed}; choose {wanted} there, or turn it off."
            return Problem("mixed_precision", f"{title(name)}: {text}")
    return None


def fp16_holds_the_squares(config: TrainConfig) -> Problem | None:
    """Torch's Adam and its relatives divide by √v + eps; in fp16 the v of usual gradients is 0.

    No usual eps helps: at β₂ = 0.999 a gradient of up to 5e-3 leaves v = 0, and the update is gradient / eps. With
    eps = 1e-6 on a GPU the loss was NaN within 8 steps.
    """
    spec = optimizer_spec(config.optimizer.optimizer)
    if not config.precision.full_fp16 or spec.module != "torch.optim" or spec.attribute not in DIVIDES_BY_SQUARES:
        return None
    return problem(
        "full_fp16",
        f"{spec.attribute} keeps squared gradients in fp16, where they become 0 and the loss soon is not a number; choose "
        f"AdamW8bit or Lion, or use {title('full_bf16')}.",
    )


def sample_prompts_can_be_read(config: TrainConfig) -> Problem | None:
    if not config.run.sample_prompts or not is_read(config, "sample_prompts"):
        return None
    try:
        if read_prompts(config.run.sample_prompts):
            return None
    except ValueError as error:
        return problem("sample_prompts", f"{error}.")
    return problem("sample_prompts", "contains no prompt; enter one, or leave it empty to use the trigger word.")


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
    sample_prompts_can_be_read,
    full_precision_fits,
    fp16_holds_the_squares,
    something_is_left_to_train,
)
MODEL_RULES: tuple[ModelRule, ...] = (something_is_trained, velocity_weights_fit, one_rate_for_all, *adapter_rules.MODEL_RULES)
