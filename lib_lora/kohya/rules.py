"""Keys whose meaning depends on other keys or on the form of the file: rates, steps, optimizer, noise, sizes, types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lib_lora.config.keyword_arguments import parse_arguments
from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.config.options import Option
from lib_lora.kohya.files import Form
from lib_lora.kohya.known import DECIDING, Verdict
from lib_lora.kohya.spelling import (
    ALL_STEPS,
    BLANK,
    OWN_TEXT_RATE,
    TRIGGER_KEPT,
    is_off,
    number,
    percent,
    steps_or_share,
    truth,
    without_trigger_prefix,
)

SD_SCRIPTS_DEFAULTS: dict[str, Any] = {
    "rank": 4,
    "alpha": 1.0,
    "unet_lr": 2e-6,
    "text_encoder_lr": 2e-6,
    "steps": 1600,
    "mixed_precision": "no",
    "save_precision": "float",
    "gradient_checkpointing": "off",
}
# may also be set by a dataset file
DATASET_DEFAULTS: dict[str, Any] = {"enable_bucket": False, "caption_extension": ".caption"}
LARGEST_RATE = 100
RATES = ("unet_lr", "text_encoder_lr")
LEFT_UNTRAINED = {"unet only": "text_encoder_lr", "text encoder only": "unet_lr"}  # by network_train of early forms
MOST_CYCLES = 10**6  # above it, no number of epochs
OWN_RATE = "Without relative_step=False, AdaFactor sets its own learning rate and schedule"
OWN_WITH_CONVOLUTIONS = ("Kohya LoCon", "Kohya DyLoRA")
ORIGINAL = ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")
MULTIRES = ("multires_noise_iterations", "multires_noise_discount")


@dataclass(frozen=True)
class Context:
    """What the rules may read. `values`: the last value of each key; `last`: the key of its entry."""

    form: Form
    values: Mapping[str, Any]
    keep_names: bool
    told: Mapping[str, tuple[Verdict, str]]
    last: Mapping[str, str]
    folders: tuple[list[str], list[str]] = ([], [])
    with_defaults: bool = True
    trigger: str = ""

    def given(self, *keys: str) -> Any:
        """The first value of `keys` that is not blank."""
        return next((self.values[key] for key in keys if self.values.get(key) not in BLANK), None)

    def switched_on(self, key: str) -> bool | None:
        """Whether a switch of kohya_ss' form is on; None if the file does not have it."""
        if key not in self.values:
            return None
        return self.values[key] != "Standard" if key == "LoRA_type" else truth(self.values[key])


@dataclass(frozen=True)
class Finding:
    """The verdict on a key, and the options that it sets, with raw values that are not checked yet."""

    verdict: Verdict
    why: str
    values: dict[str, Any] = field(default_factory=dict)


Rule = Callable[[Any, Context], "Finding | None"]


def empty(opt: Option | None = None) -> Finding:
    """The finding of an empty field."""
    return Finding("ignored", f"Empty: {opt.title} keeps its default." if opt else "Empty: no effect.")


def _rate(name: str) -> Rule:
    def rule(value: Any, context: Context) -> Finding | None:
        if number(value) is None and value not in BLANK:
            return Finding("not_supported", f"{value!r} is not a number.")
        if isinstance(value, (list, tuple)) and len({number(rate) for rate in value}) > 1:
            return Finding("not_supported", "SDXL's text encoders share one learning rate here; enter a single one.")
        rates = _rates(context)
        if name == "learning_rate" and _is_inversion(context):
            return Finding("used", "Learning rate of the embedding.", {"embedding_lr": number(value)})
        if name == "learning_rate":
            stands_in = [part for part in RATES if context.values.get(part) in BLANK]
            rate = number(value)
            if stands_in and rate is not None and not 0 <= rate <= LARGEST_RATE:
                return Finding("not_supported", f"got {value!r}, must be a number from 0 to {LARGEST_RATE}.")
            why = (
                f"Used for {' and '.join(stands_in)}, which are not given." if stands_in else "Overridden by both learning rates."
            )
            return Finding("used", why)
        if name in rates and rates[name] is None:
            return Finding("used", "As in the file that we wrote: not given, so the model's family decides.", {name: None})
        why = "0: this part is not trained." if rates.get(name) == 0 else "Learning rate."
        return Finding("used", why, {name: rates[name]} if name in rates else {})

    return rule


def _is_inversion(context: Context) -> bool:
    """Whether the file is one of sd-scripts' textual inversion, which trains no LoRA."""
    return context.given("token_string") is not None and context.given("network_module", "network_dim", *RATES) is None


def _only(value: Any, context: Context) -> Finding:
    return Finding("used", "The other part is not trained.") if truth(value) else empty()


def _rates(context: Context) -> dict[str, Any]:
    """The learning rates. `learning_rate` stands in for one that is not given; 0 leaves a part untrained.

    In kohya_ss' form an empty rate is 0, and two zeros mean `learning_rate` for both. In a file of ours the text encoder's rate
    was not given if it is still the one written for sd-scripts; it is then None.
    """
    raw = {name: context.values.get(name) for name in RATES}
    rates = {name: number(value) for name, value in raw.items()}
    if context.form == "kohya_ss":
        rates.update({name: 0.0 for name, value in raw.items() if name in context.values and value in ("", None)})
        if all(rate == 0 for rate in rates.values()):
            rates = dict.fromkeys(rates)
    shared = None if _is_inversion(context) else number(context.given("learning_rate"))
    if shared is None and context.with_defaults and context.form == "sd-scripts":
        shared = SD_SCRIPTS_DEFAULTS["unet_lr"]
    found = {name: shared if rate is None else rate for name, rate in rates.items()}
    if truth(context.values.get("network_train_unet_only")):
        found["text_encoder_lr"] = 0.0
    if truth(context.values.get("network_train_text_encoder_only")):
        found["unet_lr"] = 0.0
    left = LEFT_UNTRAINED.get(str(context.values.get("network_train")).strip().lower())
    found.update({left: 0.0} if left else {})
    given = {name: rate for name, rate in found.items() if rate is not None}
    written = number(context.values.get(OWN_TEXT_RATE))
    return {**given, "text_encoder_lr": None} if written is not None and written == given.get("text_encoder_lr") else given


def _max_steps(value: Any, context: Context) -> Finding | None:
    if is_off(value):
        return Finding("ignored", "Not given: the number of epochs decides.")
    if number(context.given("max_train_epochs")):
        return Finding("ignored", "Overridden by max_train_epochs.")
    return Finding("used", "An exact number of steps.", {"steps": value})


def _max_epochs(value: Any, context: Context) -> Finding | None:
    if is_off(value):
        return Finding("ignored", "Not given.")
    return Finding("used", "Overrides the steps.", {"epochs": value, "steps": 0})


def _epoch(value: Any, context: Context) -> Finding | None:
    if is_off(value):
        return Finding("ignored", "Not given.")
    if context.form == "sd-scripts":
        return Finding("ignored", "sd-scripts does not read it; max_train_epochs or max_train_steps decides.")
    for key in ("max_train_epochs", "max_train_steps"):
        if number(context.given(key)):
            return Finding("ignored", f"Overridden by {key}.")
    why = "The number of steps is repeats × images ÷ batch size × epochs; kohya_ss would have run its default of 1600."
    return Finding("used", why, {"epochs": value, "steps": 0})


def _warmup_percent(value: Any, context: Context) -> Finding | None:
    if is_off(value):
        return Finding("ignored", "No warm-up.")
    if _own_schedule(context):
        return Finding("ignored", f"{OWN_RATE}, without a warm-up.")
    if number(context.given("lr_warmup_steps")):
        return Finding("ignored", "Overridden by lr_warmup_steps.")
    if _no_warmup(context):
        return Finding("ignored", "The schedule constant has no warm-up; kohya_ss drops it too.")
    return Finding("used", "Percent of all steps, as a share.", {"lr_warmup_steps": percent(value)})


def _warmup_steps(value: Any, context: Context) -> Finding | None:
    if not is_off(value) and _own_schedule(context):
        return Finding("ignored", f"{OWN_RATE}, without a warm-up.")
    if context.form != "kohya_ss":
        return None if value in BLANK else Finding("used", "Warm-up.", {"lr_warmup_steps": steps_or_share(value, context.form)})
    if is_off(value):
        return Finding("ignored", "Not given: lr_warmup decides.")
    if _no_warmup(context):
        return Finding("ignored", "The schedule constant has no warm-up; kohya_ss drops it too.")
    return Finding("used", "Warm-up.", {"lr_warmup_steps": value})


def _own_schedule(context: Context) -> bool:
    return _makes_its_own_rate(context.given("optimizer", "optimizer_type"), context.given("optimizer_args"))


def _no_warmup(context: Context) -> bool:
    return bool(context.values.get("lr_scheduler") == "constant" and not context.given("lr_scheduler_type"))


def _decay_steps(value: Any, context: Context) -> Finding | None:
    return None if value in BLANK else Finding("used", "Decay.", {"lr_decay_steps": steps_or_share(value, context.form)})


def _stop_text(value: Any, context: Context) -> Finding | None:
    if is_off(value):
        return Finding("used", "The text encoder is trained to the end.", {"stop_text_encoder_training": 0})
    if context.form != "kohya_ss":
        return Finding("used", "Stop the text encoder.", {"stop_text_encoder_training": value})
    share = percent(value)
    why = "Percent of all steps, as a share. kohya_ss shows this for LoRA but does not stop; here it stops."
    never = isinstance(share, float) and share >= ALL_STEPS
    return Finding("used", why, {"stop_text_encoder_training": 0 if never else share})


def _stop_text_older(value: Any, context: Context) -> Finding | None:
    if "stop_text_encoder_training" in context.values and truth(context.values["stop_text_encoder_training"]):
        return Finding("ignored", "Overridden by stop_text_encoder_training.")
    return _stop_text(value, context)


def _optimizer_older(name: str) -> Rule:
    """The rule of a switch from before optimizers had names."""

    def rule(value: Any, context: Context) -> Finding | None:
        if context.given("optimizer", "optimizer_type") is not None:
            return Finding("ignored", "Overridden by the optimizer.")
        if truth(value):
            return Finding("used", "An older option.", {"optimizer": name})
        if context.form == "kohya_ss" and name == "AdamW8bit":
            return Finding("used", "Off, and no optimizer is given.", {"optimizer": "AdamW"})
        return Finding("ignored", "Off: no effect.")

    return rule


def _schedule(value: Any, context: Context) -> Finding | None:
    if not _own_schedule(context):
        return None
    return Finding("used", f"{OWN_RATE}, as in sd-scripts.", {"lr_scheduler": "adafactor"})


def _makes_its_own_rate(optimizer: Any, arguments: Any) -> bool:
    """Whether the optimizer is AdaFactor without relative_step=False."""
    texts = [arguments] if isinstance(arguments, str) else arguments if isinstance(arguments, (list, tuple)) else []
    try:
        given = parse_arguments([str(text).replace('"', "") for text in texts])
    except ValueError:
        given = {}  # reported with the arguments
    return optimizer_spec(str(optimizer)).makes_its_own_rate(given)


def _noise_kind(value: Any, context: Context) -> Finding | None:
    if value not in ("Original", "Multires"):
        return empty() if value in BLANK else Finding("not_supported", f"{value!r}: must be Original or Multires.")
    return Finding("used", f"Only the options of {value} noise are used.")


def _noise_of(kind: str) -> Rule:
    def rule(value: Any, context: Context) -> Finding | None:
        chosen = context.given("noise_offset_type")
        if chosen in ("Original", "Multires") and chosen != kind:
            return Finding("ignored", f"Not used, because noise_offset_type is {chosen}.")
        return None

    return rule


def _cycles(value: Any, context: Context) -> Finding | None:
    epochs = number(context.given("epoch"))
    restarts = context.given("lr_scheduler") == "cosine_with_restarts"
    if context.form != "kohya_ss" or value not in BLANK or not restarts or epochs is None or not 1 <= epochs < MOST_CYCLES:
        return None
    return Finding("used", "Empty: kohya_ss uses the number of epochs.", {"lr_scheduler_num_cycles": int(epochs)})


def _alpha(value: Any, context: Context) -> Finding | None:
    if number(value) != 0:
        return None
    rank = number(context.given("network_dim")) or SD_SCRIPTS_DEFAULTS["rank"]
    dropped = " kohya_ss since v24 drops a 0, and the alpha would have been 1." if context.form == "kohya_ss" else ""
    return Finding("used", f"0 means equal to the rank.{dropped}", {"alpha": rank})


def _conv_alpha(value: Any, context: Context) -> Finding | None:
    if number(value) != 0 or context.form != "kohya_ss" or context.given("LoRA_type") not in OWN_WITH_CONVOLUTIONS:
        return None
    why = "0 means equal to their rank. kohya_ss drops a 0 for this type, and the alpha would have been 1."
    return Finding("used", why, {"conv_alpha": value})


def _precision(value: Any, context: Context) -> Finding | None:
    if isinstance(value, str) and value.lower() == "fp8":
        return Finding("not_supported", "fp8: the loaded model's weights are never cast; choose bf16 or fp16.")
    return None


def _caption_extension(value: Any, context: Context) -> Finding | None:
    if value != "" or context.form != "kohya_ss":
        return None
    return Finding("used", "Empty: kohya uses .caption.", {"caption_extension": ".caption"})


def _composite(value: Any, context: Context) -> Finding | None:
    """The finding of a key without parts; if it has parts, these are judged instead."""
    return empty() if is_off(value) else Finding("not_supported", f"{value!r} contains no arguments of the form name=value.")


RULES: dict[str, Rule] = {
    **{name: _rate(name) for name in ("learning_rate", *RATES)},
    "network_train_unet_only": _only,
    "network_train_text_encoder_only": _only,
    "max_train_steps": _max_steps,
    "max_train_epochs": _max_epochs,
    "epoch": _epoch,
    "lr_warmup": _warmup_percent,
    "lr_warmup_steps": _warmup_steps,
    "lr_decay_steps": _decay_steps,
    "stop_text_encoder_training": _stop_text,
    "stop_text_encoder_training_pct": _stop_text_older,
    "use_8bit_adam": _optimizer_older("AdamW8bit"),
    "use_lion_optimizer": _optimizer_older("Lion"),
    "lr_scheduler": _schedule,
    "noise_offset_type": _noise_kind,
    **{name: _noise_of("Original") for name in ORIGINAL},
    **{name: _noise_of("Multires") for name in MULTIRES},
    "lr_scheduler_num_cycles": _cycles,
    "network_alpha": _alpha,
    "conv_alpha": _conv_alpha,
    "mixed_precision": _precision,
    "caption_extension": _caption_extension,
    "network_args": _composite,
    "additional_parameters": _composite,
}


def closing_values(context: Context, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Options that several keys decide together, and sd-scripts' defaults for keys that its file lacks."""
    defaults: dict[str, Any] = {}
    if context.with_defaults and context.form == "dataset":
        defaults = {**DATASET_DEFAULTS, "repeats": 1}
    if context.with_defaults and context.form == "sd-scripts":
        defaults = {**SD_SCRIPTS_DEFAULTS, **DATASET_DEFAULTS}
        if flat.get("epochs"):
            defaults.pop("steps")
        if any(key.startswith(("datasets[", "subsets[", "dataset_config.")) for key in context.last.values()):
            defaults["repeats"] = 1
    found = {name: value for name, value in defaults.items() if name not in flat}
    if context.form not in ("ours", "dataset") or (set(DECIDING) - {"init_word"}) & set(context.values):
        found.update(_rates(context))
    if context.form != "ours" and _makes_its_own_rate(flat.get("optimizer"), flat.get("optimizer_args")):
        found["lr_scheduler"] = "adafactor"
    trigger = flat.get("trigger") or context.trigger
    if trigger and flat.get("caption_prefix"):  # in a file of ours the prefix has the trigger, for sd-scripts
        found["trigger"] = trigger
        found["caption_prefix"] = without_trigger_prefix(flat["caption_prefix"], trigger)
    if truth(context.values.get(TRIGGER_KEPT)):
        found["keep_tokens"] = max(flat.get("keep_tokens", 0) - 1, 0)
    if context.with_defaults and "cache_latents" not in flat and (flat.get("random_crop") or flat.get("color_aug")):
        found["cache_latents"] = False
    return found
