"""LyCORIS' names of the adapter types, as in sd-scripts' `network_module` and `network_args`."""

from __future__ import annotations

from lib_lora.config.adapter import AdapterConfig

LYCORIS, DYLORA = "lycoris.kohya", "networks.dylora"
ALGO = {"lora": "locon", "dora": "locon"}  # the other types have the same name
WITHOUT_CONVOLUTIONS = "attn-mlp"  # the preset without convolutional blocks
PRESET_OF_IA3 = "ia3"  # the preset of the few layers that (IA)³ trains


def network_module(adapter: AdapterConfig) -> str:
    """Kohya's own module for a LoRA, LyCORIS' for every other type."""
    if adapter.adapter_type != "lora":
        return LYCORIS
    return DYLORA if adapter.unit else "networks.lora"


def lycoris_arguments(adapter: AdapterConfig) -> dict[str, str]:
    """LyCORIS' `network_args` for the same type on the same layers; empty for a LoRA.

    By default LyCORIS gives convolutions the ordinary rank, and DoRA one magnitude per output row.
    """
    if adapter.adapter_type == "lora":
        return {}
    arguments = {"algo": ALGO.get(adapter.adapter_type, adapter.adapter_type)}
    if adapter.adapter_type == "dora":
        arguments.update({"dora_wd": "True", "wd_on_output": "False"})
    if adapter.conv_dim == 0:
        return {**arguments, "preset": preset(adapter)}
    return {**arguments, "conv_dim": str(adapter.conv_dim), "conv_alpha": str(adapter.conv_alpha)}


def preset(adapter: AdapterConfig) -> str:
    """LyCORIS' preset of the trained layers."""
    if adapter.adapter_type == "ia3":
        return PRESET_OF_IA3
    return "full" if adapter.conv_dim else WITHOUT_CONVOLUTIONS
