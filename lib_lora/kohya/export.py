"""Export to kohya's files: sd-scripts' TOML, kohya_ss' JSON, and a dataset file if folders have their own repeats.

Options that sd-scripts lacks are in a section of ours, which it ignores; importing the file restores all settings.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lib_lora.config.groups import TrainConfig, all_options
from lib_lora.config.keyword_arguments import parse_arguments
from lib_lora.config.literals import LiteralError, literal
from lib_lora.config.lycoris import lycoris_arguments, network_module, preset
from lib_lora.config.options import Option
from lib_lora.config.settled import Settled, with_rates
from lib_lora.config.toml_reader import toml_table
from lib_lora.data.folders import Folder, FolderSearch, repeats_in
from lib_lora.families.family import Family
from lib_lora.families.sd1 import SD1
from lib_lora.kohya.adapter_types import KINDS_OF_FORM
from lib_lora.kohya.files import MAX_NUMBER, OUR_SECTION
from lib_lora.kohya.handed import HANDED_ON
from lib_lora.kohya.rules import DATASET_DEFAULTS, MULTIRES, ORIGINAL, SD_SCRIPTS_DEFAULTS
from lib_lora.kohya.spelling import MOST_KEPT, NEVER, OWN_TEXT_RATE, TRIGGER_KEPT, with_trigger_prefix
from lib_lora.kohya.table import NETWORK_ARGS
from lib_lora.paths import at_home, split_repeats

ExportForm = Literal["toml", "json", "dataset"]
ALWAYS = {"rank", "alpha", "resolution", "batch_size", "optimizer", "lr_scheduler", "seed", "caption_extension", "cache_latents"}
_BY_HAND = {
    "trigger",
    "caption_prefix",
    "unet_lr",
    "text_encoder_lr",
    "resolution",
    "epochs",
    "steps",
    "stop_text_encoder_training",
}
REACHES_ALL = "caption_prefix also applies to regularisation images; a dataset file keeps the trigger word out of their captions."
RATE_OF_SD = (
    "text_encoder_lr was not given and has the value for SD 1.x and 2.x; for SDXL set it to 0 and use network_train_unet_only."
)
_BY_ITSELF = ("mixed_precision", "gradient_checkpointing")  # sd-scripts has no "auto"
_OF_ALL_FOLDERS = (
    "batch_size", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale",
    "caption_extension", "flip_aug", "color_aug", "random_crop", "shuffle_caption",
)  # fmt: skip
_OF_TYPE = {"factor": "lokr", "full_matrix": "lokr", "decompose_both": "lokr", "unit": "lora"}


def export_kohya(
    config: TrainConfig, form: ExportForm = "toml", *, dataset_config: str = "", family: Family | None = None
) -> str:
    """The text of a file. Imported with names and paths, it gives `config` again (a dataset file: its options of images).

    `dataset_config`: the dataset file that has the folders instead. `family`: the model's, if known; it decides a text encoder's
    learning rate that was not given, since sd-scripts would use the U-Net's.
    """
    if form == "dataset":
        return _dataset_text(config)
    rated, notes = with_rates(config, (family or SD1).text_encoder_lr), list[str]()
    settings, arguments, own = _sd_scripts(rated)
    if config.optimizer.text_encoder_lr is None:
        own[OWN_TEXT_RATE] = rated.optimizer.text_encoder_lr
        notes += [] if family else [RATE_OF_SD]
    if dataset_config:
        for names in (settings, own):
            for name in ("train_data_dir", "reg_data_dir", "data", "reg_data"):
                names.pop(name, None)
        settings["dataset_config"] = dataset_config
    elif config.text.trigger and config.data.reg_data:
        notes.append(REACHES_ALL)
    own.update({"note": " ".join(notes)} if notes else {})
    return _toml_text(settings, arguments, own) if form == "toml" else _json_text(rated, settings, arguments, own)


def export_files(
    config: TrainConfig, form: ExportForm, path: Path, *, relative: bool = False, family: Family | None = None
) -> dict[Path, str]:
    """Path -> text: the file, and for sd-scripts a dataset file beside it if one parent folder is not enough."""
    if form != "toml" or not _needs_dataset_file(config):
        return {path: export_kohya(config, form, family=family)}
    beside = path.with_name(f"{path.stem}-dataset.toml")
    named = beside.name if relative else str(beside.absolute())
    return {
        path: export_kohya(config, form, dataset_config=named, family=family),
        beside: export_kohya(config, "dataset"),
    }


def _needs_dataset_file(config: TrainConfig) -> bool:
    """Whether sd-scripts needs a dataset file: without one it takes one parent of folders named N_name.

    Regularisation images need one too if there is a trigger word.
    """
    if config.text.trigger and config.data.reg_data:
        return True
    for paths in (config.data.data, config.data.reg_data):
        parents = {folder.path.parent for entry in paths for folder in _folders(entry, 1) if folder.concept}
        if paths and parents != {at_home(paths[0])} or len(paths) > 1:
            return True
    return False


def _sd_scripts(config: Settled) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Options by sd-scripts' name, those inside `network_args`, and those that sd-scripts lacks."""
    settings = {"network_module": network_module(config.adapter), **_by_hand(config)}
    arguments: dict[str, Any] = {**lycoris_arguments(config.adapter)}
    own: dict[str, Any] = {}
    for opt in all_options():
        value, name = config.value(opt), opt.declaration.kohya
        if opt.name in _BY_HAND or name in settings or _as_absent(opt, value):
            continue
        if name is None or _OF_TYPE.get(opt.name, config.adapter.adapter_type) != config.adapter.adapter_type:
            if opt.name != "resolution_height":
                own[opt.name] = list(value) if isinstance(value, tuple) else value
        elif name.startswith(NETWORK_ARGS):
            arguments[name.removeprefix(NETWORK_ARGS)] = f"{value:g}" if isinstance(value, float) else value
        elif opt.name in ("data", "reg_data") and (len(value) != 1 or split_repeats(value[0])[1]):
            own[opt.name] = list(value)
        else:
            settings[name] = _value(opt, value)
    by_itself = [name for name in _BY_ITSELF if getattr(config.precision, name) == "auto"]
    if by_itself:
        own["set_by_itself"] = by_itself
    own.update(_own_by_hand(config))
    return settings, arguments, own


def _as_absent(opt: Option, value: Any) -> bool:
    """Whether the option may be omitted: sd-scripts and our import then use the same value."""
    if opt.name in _BY_ITSELF and value == "auto":
        return True
    if opt.name in ALWAYS:
        return False
    return bool(value == {**SD_SCRIPTS_DEFAULTS, **DATASET_DEFAULTS}.get(opt.name, opt.default))


def _by_hand(config: Settled) -> dict[str, Any]:
    """Options that are one here and several in sd-scripts, or vice versa."""
    data, optimizer, run = config.data, config.optimizer, config.run
    found: dict[str, Any] = {"resolution": f"{data.resolution},{data.resolution_height or data.resolution}"}
    found.update({"max_train_steps": run.steps} if run.steps else {"max_train_epochs": run.epochs})
    prefix = with_trigger_prefix(config.text.caption_prefix, config.text.trigger)
    found.update({"caption_prefix": prefix} if prefix else {})
    if _holds_trigger(config):
        found["keep_tokens"] = _keep_tokens(config)
    found["learning_rate"] = optimizer.first_rate
    found["unet_lr"], found["text_encoder_lr"] = optimizer.unet_lr, optimizer.text_encoder_lr
    if optimizer.text_encoder_lr == 0 < optimizer.unet_lr:
        found["network_train_unet_only"] = True
    if optimizer.unet_lr == 0 < optimizer.text_encoder_lr:
        found["network_train_text_encoder_only"] = True
    return found


def _holds_trigger(config: TrainConfig) -> bool:
    """Whether tags move, so that sd-scripts must keep one more, the trigger word."""
    text = config.text
    moves = text.shuffle_caption or text.caption_tag_dropout_rate or text.token_warmup_step
    return bool(text.trigger and moves and text.keep_tokens < MOST_KEPT)


def _keep_tokens(config: TrainConfig) -> int:
    return config.text.keep_tokens + int(_holds_trigger(config))


def _own_by_hand(config: TrainConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if config.run.steps and config.run.epochs != type(config.run)().epochs:
        found["epochs"] = config.run.epochs
    if config.text.trigger:  # exported as a part of caption_prefix, which the import takes out again
        found["trigger"] = config.text.trigger
    if _holds_trigger(config):
        found[TRIGGER_KEPT] = True
    if config.optimizer.stop_text_encoder_training:
        found["stop_text_encoder_training"] = config.optimizer.stop_text_encoder_training
    return found


def _value(opt: Option, value: Any) -> Any:
    if opt.name == "gradient_checkpointing":
        return value == "on"
    if opt.name == "max_token_length":
        return int(value)
    if opt.name == "validate_every_n_epochs":
        return value or NEVER * 10
    if opt.name == "base_weights_multiplier":
        return [_strength(item) for item in value]
    if opt.name in ("data", "reg_data"):
        return value[0]
    if opt.name.endswith("_args"):
        return _one_each(value)
    if opt.name in ("lr_warmup_steps", "lr_decay_steps", "token_warmup_step") and value >= 1:
        return int(value)
    return list(value) if isinstance(value, tuple) else value


def _strength(text: str) -> Any:
    """`text` as a short number; unchanged if it is none, which the rules report."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and abs(number) < MAX_NUMBER else number if math.isfinite(number) else text


def _one_each(texts: Sequence[str]) -> list[str]:
    """`name=value` one by one, each value a Python literal without spaces, as sd-scripts expects them."""
    found: dict[str, str] = {}
    for text in texts:
        try:
            parsed = parse_arguments([text])
        except ValueError:
            return list(texts)  # cannot be parsed here either, which the rules report
        for name, value in parsed.items():
            written = text.partition("=")[2].strip().rstrip(",")
            written = written if len(parsed) == 1 and _is_literal(written, value) else repr(value)
            found[name] = written if {"'", '"'} & set(written) else written.replace(" ", "")
    return [f"{name}={value}" for name, value in found.items()]


def _is_literal(text: str, value: Any) -> bool:
    try:
        return bool(literal(text) == value)
    except LiteralError:
        return False


def _toml_text(settings: dict[str, Any], arguments: dict[str, Any], own: dict[str, Any]) -> str:
    if arguments:
        settings["network_args"] = [f"{key}={value}" for key, value in arguments.items()]
    return toml_table(settings) + (f"\n[{OUR_SECTION}]\n{toml_table(own)}" if own else "")


def _json_text(config: TrainConfig, settings: dict[str, Any], arguments: dict[str, Any], own: dict[str, Any]) -> str:
    """kohya_ss' JSON: every field of the form, since the form keeps its former value for absent ones."""
    names = {opt.declaration.kohya: opt for opt in all_options() if opt.declaration.kohya}
    more = {key: value for key, value in settings.items() if key in names and not names[key].declaration.in_kohya_form}
    form: dict[str, Any] = {**_kind_in_form(config), "network_args": ""}
    for name, opt in names.items():
        value = config.value(opt)
        inner = name.removeprefix(NETWORK_ARGS)
        if value != opt.default and not _reads(form["LoRA_type"], inner):
            own = {**own, opt.name: value}
        if name.startswith(NETWORK_ARGS) and opt.name not in own and inner != "full_matrix":
            form[inner] = value
        elif opt.declaration.in_kohya_form and not (opt.name in _BY_ITSELF and value == "auto") and opt.name not in own:
            form[name] = _form_value(opt, value)
    del form["network_args"]
    form["unit"] = max(1, config.adapter.unit)  # the form's minimum
    form["keep_tokens"] = _keep_tokens(config)
    form["max_resolution"] = settings["resolution"]
    form["optimizer"] = form.pop("optimizer_type")
    form["learning_rate"] = settings["learning_rate"]
    form["epoch"] = config.run.epochs
    form["max_train_epochs"] = 0 if config.run.steps else config.run.epochs
    form["noise_offset_type"] = "Multires" if config.objective.multires_noise_iterations else "Original"
    form.pop("resolution")
    # the form has one type of noise or the other
    left_out = ORIGINAL if config.objective.multires_noise_iterations else MULTIRES
    usual = type(config.objective)()
    odd = {name: getattr(config.objective, name) for name in left_out}
    own = {**own, **{name: value for name, value in odd.items() if value != getattr(usual, name)}}
    warmup = config.optimizer.lr_warmup_steps
    form["lr_warmup"], form["lr_warmup_steps"] = (round(warmup * 100, 9), 0) if warmup < 1 else (0, warmup)
    form["additional_parameters"] = " ".join(_argument(key, value) for key, value in more.items())
    return json.dumps({**form, OUR_SECTION: own} if own else form, indent=2, ensure_ascii=False) + "\n"


def _reads(kind: str, field: str) -> bool:
    """Whether kohya_ss passes a field on for this type; for LoKr's whole matrices the form has no field."""
    return field != "full_matrix" and kind in HANDED_ON.get(field, {kind})


def _kind_in_form(config: TrainConfig) -> dict[str, Any]:
    """The form's fields of the type. Its standard LoRA has none for convolutions."""
    adapter = config.adapter
    if adapter.adapter_type == "lora":
        if adapter.unit:
            return {"LoRA_type": "Kohya DyLoRA"}
        conv = any(config.value(opt) != opt.default for opt in all_options() if opt.name.startswith("conv_"))
        return {"LoRA_type": "Kohya LoCon" if conv else "Standard"}
    dora = adapter.adapter_type == "dora"
    kind = "LyCORIS/LoCon" if dora else next(name for name, kind in KINDS_OF_FORM.items() if kind == adapter.adapter_type)
    return {"LoRA_type": kind, "LyCORIS_preset": preset(adapter), "dora_wd": dora}


def _form_value(opt: Option, value: Any) -> Any:
    """`value` for the form: lists of arguments are one text, separated by spaces; there is one folder."""
    if opt.name.endswith("_args"):
        return " ".join(_one_each(value))
    return "" if value == () else _value(opt, value)


def _argument(key: str, value: Any) -> str:
    if value is True:
        return f"--{key}"
    values = value if isinstance(value, list) else [value]
    if len(values) == 1:
        return shlex.quote(f"--{key}={values[0]}")
    return " ".join([f"--{key}", *(shlex.quote(str(item)) for item in values)])


def _dataset_text(config: TrainConfig) -> str:
    """sd-scripts' dataset file: each folder with its repeats, and the settings that all folders share."""
    data, text = config.data, config.text
    side = [data.resolution, data.resolution_height or data.resolution]
    flat = config.to_flat()
    same = {name: flat[name] for name in _OF_ALL_FOLDERS}
    shared = {"resolution": side, **same, "keep_tokens": _keep_tokens(config)}
    prefix = with_trigger_prefix(text.caption_prefix, text.trigger)
    if not data.reg_data:
        shared["caption_prefix"] = prefix
    parts = ["[general]\n" + toml_table(shared), "[[datasets]]\n"]
    for paths, is_reg in ((data.data, False), (data.reg_data, True)):
        for folder in (found for entry in paths for found in _folders(entry, 1 if is_reg else data.repeats)):
            subset = {
                "image_dir": str(folder.path),
                "num_repeats": folder.repeats,
                "is_reg": is_reg,
                **({"class_tokens": folder.concept} if folder.concept else {}),
                **({"caption_prefix": text.caption_prefix if is_reg else prefix} if data.reg_data else {}),
            }
            parts.append("[[datasets.subsets]]\n" + toml_table(subset))
    return "\n".join(parts)


def _folders(entry: str, repeats: int) -> list[Folder]:
    """The image folders that `entry` names; a missing or empty folder is returned as it is named."""
    found = [*FolderSearch("", repeats, [], []).folders(entry)]
    path, number = split_repeats(entry)
    return found or [Folder(at_home(path), repeats_in(number or "") or repeats, None, Path(path))]
