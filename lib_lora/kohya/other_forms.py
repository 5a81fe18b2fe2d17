"""Keys of other programs and versions: early kohya_ss, lora-scripts and its successors, LoRA_Easy_Training_Scripts."""

from __future__ import annotations

from typing import Any

from lib_lora.kohya.known import OF_THE_SAMPLE
from lib_lora.kohya.rules import LEFT_UNTRAINED, Context, Finding, Rule, empty
from lib_lora.kohya.spelling import BLANK, is_off, number, percent, truth

MODELS = ("sd-lora", "sdxl-lora")
OWN_CLASSES = "LoraEasyCustomOptimizer"
OWN_OPTIMIZERS = ("came", "compass", "lpfadamw")
BROUGHT_ALONG = "A class that comes with LoRA_Easy_Training_Scripts; choose one from the list"


def _network_train(value: Any, context: Context) -> Finding:
    left = LEFT_UNTRAINED.get(str(value).strip().lower())
    return empty() if value in BLANK else Finding("used", "The other part is not trained." if left else "Both parts are trained.")


def _lora_fa(value: Any, context: Context) -> Finding:
    if is_off(value):
        return empty()
    return Finding("not_supported", "LoRA-FA, which does not train lora_down, is not supported; choose another type.")


def _model_train_type(value: Any, context: Context) -> Finding:
    if value in BLANK or value in MODELS:
        return Finding("ignored", "Detected from the checkpoint.")
    return Finding("not_supported", f"{value}: supported are LoRAs of SD 1.x, 2.x and SDXL, {' and '.join(MODELS)}.")


def _train_mode(value: Any, context: Context) -> Finding:
    if is_off(value) or value == "lora":
        return Finding("ignored", "A LoRA is trained.")
    return Finding("not_supported", f"{value}: only a LoRA can be trained, with an embedding of the trigger word if you want.")


def _warmup_ratio(value: Any, context: Context) -> Finding:
    if is_off(value):
        return empty()
    if context.given("lr_scheduler_type") is not None:
        return Finding("not_supported", "Belongs to a schedule class; see Other schedule (lr_scheduler_type).")
    share = number(value)
    return Finding("used", "Share of all steps.", {"lr_warmup_steps": value if share is None else percent(share * 100)})


def _scheduler_class(value: Any, context: Context) -> Finding | None:
    if str(value).startswith(OWN_CLASSES):
        return Finding("not_supported", f"{BROUGHT_ALONG}, Learning rate schedule (lr_scheduler).")
    return None


def _optimizer(value: Any, context: Context) -> Finding | None:
    if str(value).startswith(OWN_CLASSES) or str(value).lower() in OWN_OPTIMIZERS:
        return Finding("not_supported", f"{BROUGHT_ALONG}, Optimizer (optimizer).")
    return None


def _prodigy(value: Any, context: Context) -> Finding:
    if str(context.given("optimizer_type", "optimizer") or "").lower() != "prodigy" or value in BLANK:
        return Finding("ignored", "Hidden, because the optimizer is not Prodigy.")
    if context.given("optimizer_args", "optimizer_args_custom") is not None:
        return Finding("ignored", "Overridden by optimizer_args.")
    return Finding("not_supported", "Enter Prodigy's arguments in Optimizer arguments (optimizer_args).")


def _positive_prompts(value: Any, context: Context) -> Finding:
    """The prompt line that lora-scripts writes for sd-scripts."""
    if value in BLANK:
        return empty()
    if context.given("prompt_file") is not None:
        return Finding("ignored", "Overridden by prompt_file.")
    given = [(flag, context.given(name)) for flag, name in zip(("n", "w", "h", "l", "s", "d"), OF_THE_SAMPLE)]
    flags = "".join(f" --{flag} {said}" for flag, said in given if said is not None)
    return Finding("used", "The sample prompt.", {"sample_prompts": " ".join(f"{value}{flags}".split())})


def _of_the_sample(value: Any, context: Context) -> Finding:
    if context.given("positive_prompts") is None:
        return Finding("ignored", "Belongs to positive_prompts, which is not given.")
    return Finding("used", "Part of the sample prompt.")


OTHER_RULES: dict[str, Rule] = {
    "network_train": _network_train,
    "fa": _lora_fa,
    "model_train_type": _model_train_type,
    "train_mode": _train_mode,
    "warmup_ratio": _warmup_ratio,
    "lr_scheduler_type": _scheduler_class,
    "optimizer_type": _optimizer,
    "optimizer": _optimizer,
    "prodigy_d0": _prodigy,
    "prodigy_d_coef": _prodigy,
    "positive_prompts": _positive_prompts,
    **dict.fromkeys(OF_THE_SAMPLE, _of_the_sample),
}


def is_of_another_model(context: Context) -> bool:
    """Whether a file for sd-scripts is for another model than SD 1.x, 2.x or SDXL."""
    module = str(context.given("network_module") or "")
    other = [name for name in OF_OTHER_MODELS if truth(context.given(name))]
    kind = context.given("model_train_type")
    return bool(other) or module.startswith(OTHER_MODULES) or (kind is not None and kind not in MODELS)


OTHER_MODULES = ("networks.lora_", "networks.oft_flux")
OF_OTHER_MODELS = ("ae", "t5xxl", "clip_l", "clip_g", "gemma2", "qwen3", "byt5", "text_encoder")
