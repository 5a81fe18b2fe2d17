"""Files of LoRA_Easy_Training_Scripts: sections of `args` and `dataset_args` with one list of subsets; earlier, flat JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Place = tuple[int, ...]
INNER = ("args", "dataset_args")
LEFT_OUT = "LoRA_Easy_Training_Scripts leaves out what is empty, false or 0."
OF_THE_SCRIPTS = "What the scripts do besides training."
NAME_OF_SUBSET = "A name that only the form uses."

# name of early versions -> sd-scripts' name
FLAT = {
    "alpha": "network_alpha",
    "base_model": "pretrained_model_name_or_path",
    "batch_size": "train_batch_size",
    "buckets": "enable_bucket",
    "change_output_name": "output_name",
    "cosine_restarts": "lr_scheduler_num_cycles",
    "gradient_acc_steps": "gradient_accumulation_steps",
    "img_folder": "train_data_dir",
    "log_dir": "logging_dir",
    "lora_model_for_resume": "network_weights",
    "lyco": "network_module",
    "max_bucket_resolution": "max_bucket_reso",
    "max_clip_token_length": "max_token_length",
    "max_steps": "max_train_steps",
    "min_bucket_resolution": "min_bucket_reso",
    "net_dim": "network_dim",
    "no_meta": "no_metadata",
    "num_epochs": "max_train_epochs",
    "num_workers": "max_data_loader_n_workers",
    "output_folder": "output_dir",
    "persistent_workers": "persistent_data_loader_workers",
    "reg_img_folder": "reg_data_dir",
    "save_as": "save_model_as",
    "scheduler": "lr_scheduler",
    "scheduler_power": "lr_scheduler_power",
    "shuffle_captions": "shuffle_caption",
    "test_seed": "seed",
    "text_only": "network_train_text_encoder_only",
    "train_resolution": "resolution",
    "unet_only": "network_train_unet_only",
    "use_lion": "use_lion_optimizer",
    "warmup_lr_ratio": "warmup_ratio",
}
BOOKKEEPING = {
    "save_json_folder",
    "save_json_name",
    "save_json_only",
    "load_json_path",
    "multi_run_folder",
    "json_load_skip_list",
    "list_of_json_to_run",
    "tag_occurrence_txt_file",
    "sort_tag_occurrence_alphabetically",
}
OF_FLAT = {"net_dim", "base_model"}


def is_lora_easy(settings: Mapping[str, Any]) -> bool:
    """Whether a file has this layout."""
    sections = [value for value in settings.values() if isinstance(value, Mapping)]
    inner = any(isinstance(section.get(name), Mapping) for section in sections for name in INNER)
    return "datasets" not in settings and (inner or _subsets(settings) != [] or set(settings) >= OF_FLAT)


def lora_easy_entries(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Place | None, str]]:
    """Key, name, value, place in the dataset, and why it does not count ("" if it does), of every setting."""
    if set(settings) >= OF_FLAT:
        yield from _flat(settings)
        return
    subsets = _subsets(settings)
    for key, value in settings.items():
        if key == "subsets" and subsets:
            for number, subset in enumerate(subsets):
                yield from _subset(f"subsets[{number}]", subset, (0, number))
        elif not isinstance(value, Mapping):
            yield key, key, value, None, ""
        else:
            yield from _section(key, value)


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Place | None, str]]:
    for key, value in settings.items():
        read, why = _spelled(key, value), ""
        if key in BOOKKEEPING or value is None:
            why = OF_THE_SCRIPTS if key in BOOKKEEPING else LEFT_OUT
        elif key == "lyco":
            read = "lycoris.kohya" if value else "networks.lora"
        elif key == "train_resolution" and settings.get("height_resolution"):
            read = [value, settings["height_resolution"]]
        elif key == "height_resolution":
            why = "Belongs to train_resolution."
        elif key == "num_epochs" and settings.get("max_steps"):
            why = "Overridden by max_steps."
        yield key, FLAT.get(key, key), read, None, why


def _subsets(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = settings.get("subsets")
    return found if isinstance(found, list) and all(isinstance(subset, Mapping) for subset in found) else []


def _section(key: str, section: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Place | None, str]]:
    for inner, values in section.items():
        if inner not in INNER or not isinstance(values, Mapping):
            yield f"{key}.{inner}", inner, values, None, ""
            continue
        place: Place | None = () if inner == "dataset_args" else None
        for name, value in values.items():
            read = _spelled(name, value)
            yield f"{key}.{inner}.{name}", name, read, place, LEFT_OUT if _left_out(read) else ""


def _subset(key: str, subset: Mapping[str, Any], place: Place) -> Iterator[tuple[str, str, Any, Place | None, str]]:
    for name, value in subset.items():
        why = NAME_OF_SUBSET if name == "name" else LEFT_OUT if _left_out(value) else ""
        yield f"{key}.{name}", name, value, place, why


def _left_out(value: Any) -> bool:
    return not value or (isinstance(value, str) and value.lower() == "false")


def _spelled(name: str, value: Any) -> Any:
    """Tables of arguments as sd-scripts spells them: numbers per block with commas, True and False with a capital."""
    if isinstance(value, str) and value.lower() == "true":
        return True
    if not isinstance(value, Mapping):
        return value
    if name == "network_args":
        return {key: ",".join(map(str, inner)) if isinstance(inner, list) else inner for key, inner in value.items()}
    if name in ("optimizer_args", "lr_scheduler_args"):
        return [f"{key}={inner.capitalize() if inner in ('true', 'false') else inner}" for key, inner in value.items()]
    return value
