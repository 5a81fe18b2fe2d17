"""Which keys of a file its program passes on to the trainer: kohya_ss by type of LoRA and version, sd-scripts by section.

From `train_model` of kohya_ss' LoRA form, v20 to v26, and sd-scripts' `--config_file`, whose keys are command line options.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from lib_lora.kohya.files import ARGUMENT, OUR_SECTION, Entry, Source
from lib_lora.kohya.spelling import BLANK, truth
from lib_lora.kohya.table import NETWORK_ARGS, inner_names

OWN = frozenset({"Standard", "Kohya LoCon", "Kohya DyLoRA", "LoRA-FA"})
NATIVE = frozenset({"Kohya LoHa", "Kohya LoKr"})  # v26, of newer sd-scripts
FULL = "LyCORIS/Native Fine-Tuning"
IA3, LOKR, DYLORA, OFT = "LyCORIS/iA3", "LyCORIS/LoKr", "LyCORIS/DyLoRA", "LyCORIS/Diag-OFT"
EARLY_LOCON = "LoCon"  # v21.1: LyCORIS' predecessor
PRODUCTS = frozenset({EARLY_LOCON, "LyCORIS/LoCon", "LyCORIS/LoHa", LOKR})
LYCORIS = PRODUCTS | {IA3, DYLORA, OFT, "LyCORIS/GLoRA", "LyCORIS/BOFT", FULL}
KNOWN = OWN | NATIVE | LYCORIS
BLOCKS = (
    "down_lr_weight",
    "mid_lr_weight",
    "up_lr_weight",
    "block_lr_zero_threshold",
    "block_dims",
    "block_alphas",
    "conv_block_dims",
    "conv_block_alphas",
)

# key of the form -> the types that it is passed on for
HANDED_ON: dict[str, Set[str]] = {
    **dict.fromkeys(BLOCKS, OWN),
    **dict.fromkeys(("conv_dim", "conv_alpha"), (LYCORIS | NATIVE | {"Kohya LoCon", "Kohya DyLoRA"}) - {FULL}),
    **dict.fromkeys(("rank_dropout", "module_dropout"), KNOWN - {IA3}),
    **dict.fromkeys(("bypass_mode", "use_scalar", "dora_wd"), PRODUCTS),
    **dict.fromkeys(("rescaled", "constrain"), {OFT}),
    "LyCORIS_preset": LYCORIS,
    "unit": {"Kohya DyLoRA", DYLORA},
    "factor": {LOKR, "Kohya LoKr"},
    "decompose_both": {LOKR},
    "use_cp": {LOKR},
    "use_tucker": (LYCORIS | NATIVE) - {IA3, LOKR, FULL},  # for LoKr use_cp is passed too, and wins
    "train_on_input": {IA3},
    "rank_dropout_scale": LYCORIS - {IA3, DYLORA},
    "train_norm": LYCORIS - {IA3},
}
# v21.7.6 to v22.3.0
HANDED_ON_BEFORE: dict[str, Set[str]] = {
    "use_cp": {"LyCORIS/LoHa", LOKR, DYLORA},
    **dict.fromkeys(("rank_dropout", "module_dropout"), OWN),
    "decompose_both": frozenset(),
}
OF_FLUX = "kohya_ss passes it on only for FLUX.1."
WHOLE = 80  # keys: the form writes all its fields, so that a file with so many lacks only those that its version lacked
RATIOS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
OF_V26 = ("anima_", "hunyuan_", "lumina_", "show_timesteps", "train_inpainting")
REPLACED = "additional_parameters has --network_args, which replaces what kohya_ss makes of such fields."
AT_THE_TOP = (
    "kohya_ss up to v25 wrote it at the top level, where nothing reads it, so it never had an effect; to use it, put it into "
    "network_args, or set LoRA+ ({name}) here."
)
# lora-scripts' form: switch -> the fields that it hides while it is off
HIDDEN = {
    "enable_block_weights": BLOCKS[:4],
    "enable_base_weight": ("base_weights", "base_weights_multiplier"),
    "enable_preview": ("sample_prompts", "prompt_file", "positive_prompts", "sample_every_n_epochs", "sample_every_n_steps"),
}
OUTSIDE = "sd-scripts reads it only inside network_args; here it has no effect."


def not_handed_on(source: Source) -> dict[str, str]:
    """Entry key -> why it has no effect, whatever its value."""
    entries = [entry for entry in source.entries if not entry.key.startswith((OUR_SECTION + ".", ARGUMENT))]
    found = dict(source.left_out)
    if source.form == "kohya_ss":
        is_our_own = any(entry.key.startswith(OUR_SECTION + ".") for entry in source.entries)
        found.update(_of_the_form(entries, is_our_own=is_our_own))
        if any(part.name.startswith(NETWORK_ARGS) for part in source.parts.get("additional_parameters", ())):
            found.update({entry.key: REPLACED for entry in entries if entry.name in HANDED_ON and entry.key not in found})
    if source.form == "sd-scripts":
        found.update({**_outside(entries), **_hidden(entries)})
    return found


def type_of_form(values: Mapping[str, object]) -> str | None:
    """`LoRA_type`, or its equivalent in v21.1.0; None if the file has neither."""
    kind = values.get("LoRA_type")
    if kind in BLANK and "locon" in values:
        return EARLY_LOCON if truth(values["locon"]) else "Standard"
    return kind if isinstance(kind, str) and kind else None


def _of_the_form(entries: list[Entry], *, is_our_own: bool) -> dict[str, str]:
    values = {entry.name: entry.value for entry in entries}
    before = len(values) >= WHOLE and "use_cp" in values and "use_tucker" not in values
    handed = {**HANDED_ON, **HANDED_ON_BEFORE} if before else HANDED_ON
    kind = type_of_form(values)
    found: dict[str, str] = {}
    for entry in entries if kind in KNOWN else []:
        types = handed.get(entry.name)
        if types is not None and kind not in types:
            found[entry.key] = f"kohya_ss {_hands_on(types)}, not for {kind}."
    if not truth(values.get("flux1_checkbox")):
        found.update({entry.key: OF_FLUX for entry in entries if entry.name == "fp8_base_unet"})
    if not is_our_own and not any(name.startswith(OF_V26) for name in values):
        found.update(_ratios(entries))
    return found


def _hands_on(types: Set[str]) -> str:
    if not types:
        return "of that time does not pass it on for any type"
    if types >= OWN and not types & LYCORIS:
        return "passes it on for kohya's own types"
    if len(types) > 4:
        return "passes it on for other types"
    return f"passes it on only for {', '.join(sorted(types - {EARLY_LOCON}))}"


def _ratios(entries: list[Entry]) -> dict[str, str]:
    given = [entry for entry in entries if entry.name in RATIOS and truth(entry.value)]
    return {entry.key: AT_THE_TOP.format(name=entry.name) for entry in given}


def _outside(entries: list[Entry]) -> dict[str, str]:
    """Keys outside `network_args` that belong inside; none in lora-scripts' own form, which has them outside."""
    names = {entry.name for entry in entries}
    if names & {"lycoris_algo", "network_args_custom", "enable_block_weights"}:
        return {}
    outside = [entry for entry in entries if entry.place is None and entry.name in inner_names()]
    return {**{entry.key: OUTSIDE for entry in outside if truth(entry.value)}, **_ratios(outside)}


def _hidden(entries: list[Entry]) -> dict[str, str]:
    off = {entry.name for entry in entries if entry.name in HIDDEN and not truth(entry.value)}
    hidden = {name: switch for switch in off for name in HIDDEN[switch]}
    return {entry.key: f"Hidden while {hidden[entry.name]} is off." for entry in entries if entry.name in hidden}
