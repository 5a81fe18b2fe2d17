"""kohya's names and spellings -> our options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib_lora.config.groups import all_options
from lib_lora.errors import ConfigError

# sd-scripts names that say nothing about the LoRA's numbers, or whose only value is what we do anyway
_WITHOUT_EFFECT = {
    "console_log_simple",
    "console_log_level",
    "save_model_as",
    "sdpa",
    "xformers",
    "mem_eff_attn",
    "max_data_loader_n_workers",
    "no_half_vae",
    "logging_dir",
    "output_dir",
    "pretrained_model_name_or_path",
    "persistent_data_loader_workers",
}
_ONLY_VALUE: dict[str, tuple[Any, ...]] = {
    "network_module": ("networks.lora",),
    "v2": (False,),
    "network_args": (None, [], ""),
}

_NOT_GIVEN = (None, "")
# sd-scripts' own values of what is absent from a complete configuration, where ours differ
KOHYA_DEFAULTS: dict[str, Any] = {"network_dim": 4, "network_alpha": 1, "learning_rate": 2e-6, "max_train_steps": 1600}


@dataclass(frozen=True)
class KohyaSettings:
    """`flat`: our option names with raw values; `unsupported`: sentences about keys that would change the result."""

    flat: dict[str, Any]
    unsupported: list[str]


def from_kohya(settings: Mapping[str, Any], *, without_effect: frozenset[str] = frozenset()) -> KohyaSettings:
    """Translate sd-scripts options by name.

    Args:
        settings: option name -> value, as in a config file of sd-scripts.
        without_effect: further names that the caller knows to say nothing.
    """
    names = {opt.declaration.kohya: opt.name for opt in all_options() if opt.declaration.kohya}
    flat: dict[str, Any] = {}
    unsupported = []
    for key, value in settings.items():
        if key in _WITHOUT_EFFECT | without_effect or key in {
            "learning_rate",
            "network_train_unet_only",
            "network_train_text_encoder_only",
        }:
            continue
        if key in names:
            spelled = _spelled(key, value)
            if spelled not in _NOT_GIVEN:
                flat[names[key]] = spelled
        elif value not in _ONLY_VALUE.get(key, ()):
            unsupported.append(f"{key} = {value!r} is not supported.")
    _apply_rates(settings, flat)
    if flat.get("epochs"):
        flat.pop("steps", None)  # sd-scripts: epochs win
    return KohyaSettings(flat, unsupported)


def _apply_rates(settings: Mapping[str, Any], flat: dict[str, Any]) -> None:
    """`learning_rate` stands in for a rate that is not given; `network_train_…_only` leaves the other part untrained."""
    if settings.get("learning_rate") not in _NOT_GIVEN:
        for name in ("unet_lr", "text_encoder_lr"):
            flat.setdefault(name, settings["learning_rate"])
    if settings.get("network_train_unet_only"):
        flat["text_encoder_lr"] = 0
    if settings.get("network_train_text_encoder_only"):
        flat["unet_lr"] = 0


def _spelled(key: str, value: Any) -> Any:
    """`value` as our option is spelled."""
    if key == "resolution":
        sides = {part.strip() for part in str(value).split(",")}
        if len(sides) != 1:
            raise ConfigError([f"Resolution (resolution): got {value!r}; only squares can be trained on for now."])
        return sides.pop()
    if key == "text_encoder_lr" and isinstance(value, list):
        return value[0] if value else None
    if key == "gradient_checkpointing":
        return "on" if value else "off"
    if key == "max_token_length" and value not in _NOT_GIVEN:
        return str(value)
    return value
