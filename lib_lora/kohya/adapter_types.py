"""The adapter type that a kohya file asks for: its module, LyCORIS' arguments, and the fields that depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_lora.config.lycoris import DYLORA, LYCORIS, PRESET_OF_IA3, WITHOUT_CONVOLUTIONS
from lib_lora.kohya.handed import EARLY_LOCON, type_of_form
from lib_lora.kohya.rules import RULES, SD_SCRIPTS_DEFAULTS, Context, Finding, Rule, empty
from lib_lora.kohya.spelling import BLANK, number, truth
from lib_lora.kohya.table import NETWORK_ARGS

BYPASS = ("bypass_mode", "network_args.bypass_mode")
ALGO = ("network_args.algo", "lycoris_algo")
_OWN = ("loha", "lokr", "ia3", "diag-oft", "glora")  # same name in LyCORIS
ALGORITHMS = {"lora": "lora", "locon": "lora", **{name: name for name in _OWN}}
TRAINED = "lora, locon, loha, lokr, ia3, diag-oft and glora"
KINDS_OF_FORM = {
    "Standard": "lora",
    "Kohya LoCon": "lora",
    "Kohya DyLoRA": "lora",
    EARLY_LOCON: "locon",
    "LyCORIS/LoCon": "locon",
    "LyCORIS/LoHa": "loha",
    "LyCORIS/LoKr": "lokr",
    "LyCORIS/iA3": "ia3",
    "LyCORIS/Diag-OFT": "diag-oft",
    "LyCORIS/GLoRA": "glora",
}
MORE_LAYERS = "LyCORIS also trains the U-Net's first and last convolution and its time embedding, which are not trained here."
LINEAR_LAYERS = {
    "ia3": "The layers of LyCORIS' preset ia3, and four of the text encoder's attention: for SDXL the webui needs these.",
    "glora": "Linear layers of the transformers, under the names that the webui reads; LyCORIS since 3.0 swaps a1 and a2, b1 and "
    "b2.",
}
WITHOUT_NORM = ("ia3", "glora")
PREFIXES = "Each step uses only the first ranks, a random number of units; sd-scripts uses all ranks and trains one unit."
WITHOUT_BYPASS = "From LyCORIS 3.1.0 up to 3.2.0 it had no effect unless bypass_mode was False: a plain LoRA was trained."
WHOLE_FROM = 5120  # half the widest layer: from this rank on LyCORIS keeps both matrices of a LoKr whole
AS_ORDINARY = "0 means the rank of the other layers, as in LyCORIS since 1.9; before, convolutions were not trained."
WHOLE = "A rank higher than any layer's, with which LyCORIS keeps LoKr's matrices whole."
WHOLE_FOR_ALL = "LoKr's matrices are whole in all layers or in none; set network_dim and conv_dim alike."
LARGEST_RANK = 1024
OVER_INPUTS = "Magnitudes are per input here, as the webui reads them; LyCORIS' own default is per output (wd_on_output)."


def _algorithm(context: Context) -> str | None:
    """LyCORIS' algorithm; None for kohya's own LoRA, or if the file does not say."""
    kind, module = type_of_form(context.values), context.given("network_module")
    algorithm = context.given(*ALGO)
    if kind == EARLY_LOCON or (kind or "").startswith("LyCORIS/"):
        return str(algorithm or "lora").lower() if _is_replaced(context) else KINDS_OF_FORM.get(str(kind), "another")
    if module == LYCORIS or (module is None and kind is None and algorithm is not None):
        return str(algorithm or "lora").lower()
    return None


def _is_replaced(context: Context) -> bool:
    """Whether `additional_parameters` of kohya_ss' form has network_args, which override the form's own."""
    return any(name.startswith(NETWORK_ARGS) and key == "additional_parameters" for name, key in context.last.items())


def _adapter_type(context: Context) -> str | None:
    """Our adapter type; None if it cannot be trained."""
    found = ALGORITHMS.get(_algorithm(context) or "lora")
    return "dora" if found == "lora" and _decomposes(context) else found


def _decomposes(context: Context) -> bool:
    return _algorithm(context) is not None and truth(context.given("dora_wd", "network_args.dora_wd"))


def _kind_of_form(value: Any, context: Context) -> Finding | None:
    if value in BLANK:
        return empty()
    kind = _adapter_type(context)
    if not isinstance(value, str) or value not in KINDS_OF_FORM or kind is None:
        return Finding("not_supported", f"{value}: supported are LoRA, LoCon, LoHa, LoKr, DoRA, (IA)³, Diag-OFT and GLoRA.")
    why = "A LoRA of linear layers and 1×1 convolutions, as in kohya."
    if value == "Kohya LoCon":
        why = "A LoRA that includes convolutions; conv_dim is their rank."
    if value == "Kohya DyLoRA":
        why = PREFIXES
    return Finding("used", _layers(kind) if _algorithm(context) else why, {"adapter_type": kind})


def _early_locon(value: Any, context: Context) -> Finding:
    return Finding("used", _layers("lora"), {"adapter_type": "lora"}) if truth(value) else empty()


def _module(value: Any, context: Context) -> Finding | None:
    if value in BLANK:
        return empty()
    kind = _adapter_type(context)
    if value == LYCORIS and kind:
        return Finding("used", _layers(kind), {"adapter_type": kind})
    if value == "networks.lora":
        return Finding("used", "A LoRA of linear layers and 1×1 convolutions, and with conv_dim of the others too, as in kohya.")
    if value == DYLORA:
        return Finding("used", PREFIXES)
    return Finding("not_supported", f"{value}: supported are networks.lora, networks.dylora, and lycoris.kohya with {TRAINED}.")


def _layers(kind: str) -> str:
    return LINEAR_LAYERS.get(kind, MORE_LAYERS)


def _algo(value: Any, context: Context) -> Finding | None:
    if _algorithm(context) is None:
        return Finding("ignored", "kohya's own LoRA does not read it.")
    if str(value).lower() not in ALGORITHMS:
        return Finding("not_supported", f"{value}: supported LyCORIS algorithms are {TRAINED}.")
    return Finding("used", "The type.", {"adapter_type": _adapter_type(context)})


def _dora(value: Any, context: Context) -> Finding | None:
    if not truth(value):
        return empty()
    if _algorithm(context) is None:
        return Finding("ignored", "kohya's own LoRA does not read it.")
    if _adapter_type(context) != "dora":
        return Finding("not_supported", "DoRA is supported only with LoRA and LoCon.")
    bypass = WITHOUT_BYPASS if context.form != "kohya_ss" and context.given(*BYPASS) is None else ""
    return Finding("used", f"{OVER_INPUTS} {bypass}".strip(), {"adapter_type": "dora"})


def _of_lokr(value: Any, context: Context) -> Finding | None:
    algorithm = _algorithm(context)
    if algorithm != "lokr" and (algorithm is not None or context.form == "kohya_ss"):
        return Finding("ignored", "Has no meaning for types other than LoKr.")
    return None


def _is_dylora(context: Context) -> bool:
    return bool(context.given("LoRA_type") == "Kohya DyLoRA" or context.given("network_module") == DYLORA)


def _unit(value: Any, context: Context) -> Finding | None:
    """The form keeps the field filled for other types."""
    if not _is_dylora(context) and (context.form == "kohya_ss" or context.given("network_module")):
        return Finding("ignored", "Only DyLoRA has units.")
    return None


def _conv_dim(value: Any, context: Context) -> Finding | None:
    if _algorithm(context) in LINEAR_LAYERS:
        return Finding("ignored", "Convolutions of this type are not supported: the webui does not read them.")
    if _algorithm(context) and _preset(context) == WITHOUT_CONVOLUTIONS:
        return Finding("ignored", "LyCORIS' preset does not train convolutions.")
    ordinary = context.given("network_dim")
    as_ordinary = bool(_algorithm(context)) and number(value) == 0
    if _is_whole(ordinary, context) and (as_ordinary or _is_whole(value, context)):
        return Finding("used", WHOLE, {"conv_dim": LARGEST_RANK, "full_matrix": True})
    if _is_whole(value, context):
        return Finding("not_supported", WHOLE_FOR_ALL)
    return Finding("used", AS_ORDINARY, {"conv_dim": ordinary or SD_SCRIPTS_DEFAULTS["rank"]}) if as_ordinary else None


def _rank(value: Any, context: Context) -> Finding | None:
    if not _is_whole(value, context):
        return None
    conv = context.given("conv_dim", "network_args.conv_dim")
    if conv is not None and number(conv) and not _is_whole(conv, context):
        return Finding("not_supported", WHOLE_FOR_ALL)
    return Finding("used", WHOLE, {"rank": LARGEST_RANK, "full_matrix": True})


def _is_whole(rank: Any, context: Context) -> bool:
    return _algorithm(context) == "lokr" and (number(rank) or 0) >= WHOLE_FROM


def _largest_norm(value: Any, context: Context) -> Finding | None:
    if _algorithm(context) in WITHOUT_NORM and truth(value):
        return Finding("ignored", "LyCORIS does not support a max norm for this type and ignores it.")
    return None


def _alpha_of(key: str) -> Rule:
    def rule(value: Any, context: Context) -> Finding | None:
        if _is_whole(context.given("network_dim"), context) and (number(value) or 0) > LARGEST_RANK:
            return Finding("ignored", "Whole matrices are not scaled.")
        if key != "network_alpha" and _algorithm(context) and number(value) == 0:
            alpha = context.given("network_alpha")
            return Finding(
                "used",
                "0 means the alpha of the other layers.",
                {"conv_alpha": SD_SCRIPTS_DEFAULTS["alpha"] if alpha is None else alpha},
            )
        general = RULES.get(key)
        return general(value, context) if general else None

    return rule


def _preset_rule(value: Any, context: Context) -> Finding | None:
    if _algorithm(context) is None:
        return Finding("ignored", "kohya's own LoRA does not read it.")
    if value == PRESET_OF_IA3 and _algorithm(context) == "ia3":
        return Finding("used", LINEAR_LAYERS["ia3"], {})
    if value == WITHOUT_CONVOLUTIONS:
        return Finding("used", "Convolutions are not trained.", {"conv_dim": 0})
    return None


def _preset(context: Context) -> Any:
    return context.given("LyCORIS_preset", "network_args.preset")


def lycoris_values(context: Context, flat: Mapping[str, Any]) -> dict[str, Any]:
    """LyCORIS' defaults for convolutions (the ordinary rank and alpha), and kohya's default unit, 1, if the file has none."""
    if _is_dylora(context):
        return {} if "unit" in flat else {"unit": 1}
    if _algorithm(context) in (None, *LINEAR_LAYERS) or _preset(context) not in (None, "full"):
        return {}
    rank = {"conv_dim": flat["rank"]} if "rank" in flat and "conv_dim" not in flat else {}
    return {**rank, **({"conv_alpha": flat["alpha"]} if "alpha" in flat and "conv_alpha" not in flat else {})}


TYPE_RULES: dict[str, Rule] = {
    "LoRA_type": _kind_of_form,
    "network_module": _module,
    **dict.fromkeys(ALGO, _algo),
    "network_dim": _rank,
    "scale_weight_norms": _largest_norm,
    **{key: _alpha_of(key) for key in ("network_alpha", "conv_alpha", "network_args.conv_alpha")},
    "dora_wd": _dora,
    "network_args.dora_wd": _dora,
    **{prefix + name: _of_lokr for prefix in ("", "network_args.") for name in ("factor", "full_matrix", "decompose_both")},
    "lokr_factor": _of_lokr,
    "locon": _early_locon,
    "dylora_unit": _unit,
    **{prefix + "conv_dim": _conv_dim for prefix in ("", "network_args.")},
    "unit": _unit,
    "network_args.unit": _unit,
    "LyCORIS_preset": _preset_rule,
    "network_args.preset": _preset_rule,
}
