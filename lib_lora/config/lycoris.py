"""The types of adapters under LyCORIS' names, as sd-scripts' `network_module` and `network_args` spell them."""

from __future__ import annotations

from lib_lora.config.adapter import AdapterConfig

LYCORIS, DYLORA = "lycoris.kohya", "networks.dylora"
ALGO = {"lora": "locon", "dora": "locon"}  # the others have the same name there
WITHOUT_CONVOLUTIONS = "attn-mlp"  # the preset that leaves convolutional blocks alone
PRESET_OF_IA3 = "ia3"  # the preset of the few layers that it is meant for


def network_module(adapter: AdapterConfig) -> str:
    """Kohya's own module for a LoRA, LyCORIS' for every other type."""
    if adapter.adapter_type != "lora":
        return LYCORIS
    return DYLORA if adapter.unit else "networks.lora"


def lycoris_arguments(adapter: AdapterConfig) -> dict[str, str]:
    """What makes LyCORIS train the same type on the same layers; nothing for a LoRA.

    There, without a preset, convolutions have the ordinary rank, and DoRA's strengths belong to output rows.
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
    """LyCORIS' name for the layers that are trained."""
    if adapter.adapter_type == "ia3":
        return PRESET_OF_IA3
    return "full" if adapter.conv_dim else WITHOUT_CONVOLUTIONS
