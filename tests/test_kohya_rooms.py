"""The modules behind the import of kohya's files, each by itself."""

from __future__ import annotations

from typing import Any

import pytest

from lib_lora.config.groups import all_options
from lib_lora.kohya.adapter_types import TYPE_RULES, lycoris_values
from lib_lora.kohya.files import Entry, Source, source_of
from lib_lora.kohya.handed import not_handed_on, type_of_form
from lib_lora.kohya.images import IMAGE_RULES, same_area, whole_cells
from lib_lora.kohya.importing import Imported, Said, out_of_bounds
from lib_lora.kohya.lora_easy import is_lora_easy, lora_easy_entries
from lib_lora.kohya.other_forms import OTHER_RULES, is_of_another_model
from lib_lora.kohya.report import import_text
from lib_lora.kohya.rules import Context
from lib_lora.kohya.spelling import (
    ALL_STEPS,
    is_never_reached,
    is_off,
    percent,
    sides,
    spelled,
    steps_or_share,
    with_trigger_prefix,
    without_trigger_prefix,
)  # fmt: skip

OPTIONS = {opt.name: opt for opt in all_options()}


def context(form: Any = "sd-scripts", **values: Any) -> Context:
    return Context(form, values, keep_names=True, told={}, last={key: key for key in values})


def given(rules: Any, key: str, **values: Any) -> Any:
    """What a rule makes of a key of a file with these values."""
    return rules[key](values[key], context(**values))


def test_a_number_out_of_bounds_counts_where_it_is_read() -> None:
    found = out_of_bounds({"rank": 0, "sample_every_n_steps": 5}, lambda flat: {})
    assert list(found) == ["rank"] and found["rank"][0] == "not_supported" and "got 0" in found["rank"][1]
    unread = out_of_bounds({"embedding_lr": -1.0}, lambda flat: {})["embedding_lr"]
    assert unread[0] == "ignored" and unread[1].startswith("No effect, because ")
    assert (
        out_of_bounds({"embedding_lr": -1.0}, lambda flat: {"embedding_vectors": 2, "trigger": "x"})["embedding_lr"][0]
        == "not_supported"
    )


def test_what_the_form_hands_on_hangs_on_the_type() -> None:
    standard = source_of({"LoRA_type": "Standard", "conv_dim": 8, "block_dims": "4"}, toml=False)
    assert standard.form == "kohya_ss" and list(not_handed_on(standard)) == ["conv_dim"]
    locon = source_of({"LoRA_type": "LyCORIS/LoCon", "conv_dim": 8, "block_dims": "4"}, toml=False)
    assert list(not_handed_on(locon)) == ["block_dims"]
    hidden = Source(
        "sd-scripts", (Entry("enable_preview", "enable_preview", False), Entry("prompt_file", "prompt_file", "a")), {}
    )
    assert "enable_preview is off" in not_handed_on(hidden)["prompt_file"]
    assert type_of_form({"locon": True}) == "LoCon" and type_of_form({"LoRA_type": 3}) is None


def test_sides_that_are_no_multiples_of_8() -> None:
    assert same_area(500, 512) is not None and same_area(500, 512)[0] * same_area(500, 512)[1] == 500 * 512  # type: ignore[index]
    assert same_area(512, 768) is None and same_area(501, 503) is None
    assert whole_cells(500, 515) == (496, 512) and whole_cells(512, 512) is None
    assert given(IMAGE_RULES, "max_token_length", max_token_length=200).values == {"max_token_length": "150"}
    assert given(IMAGE_RULES, "max_token_length", max_token_length=225) is None


def test_files_of_lora_easy_are_flattened() -> None:
    settings = {"subsets": [{"name": "a", "num_repeats": 3, "flip_aug": False}], "general_args": {"args": {"seed": 5}}}
    assert is_lora_easy(settings) and not is_lora_easy({"seed": 5, "datasets": []})
    found = {key: (name, value, place) for key, name, value, place, why in lora_easy_entries(settings) if not why}
    assert found == {
        "subsets[0].num_repeats": ("num_repeats", 3, (0, 0)),
        "general_args.args.seed": ("seed", 5, None),
    }
    flat = {
        name: value for _, name, value, _, why in lora_easy_entries({"net_dim": 8, "base_model": "x", "lyco": True}) if not why
    }
    assert flat == {"network_dim": 8, "pretrained_model_name_or_path": "x", "network_module": "lycoris.kohya"}


def test_keys_of_other_forms() -> None:
    assert given(OTHER_RULES, "warmup_ratio", warmup_ratio=0.1).values == {"lr_warmup_steps": 0.1}
    line = given(OTHER_RULES, "positive_prompts", positive_prompts="a cat", negative_prompts="dogs", sample_width=512)
    assert line.values["sample_prompts"].startswith("a cat --n dogs --w 512")
    assert given(OTHER_RULES, "model_train_type", model_train_type="flux-lora").verdict == "not_supported"
    assert is_of_another_model(context(t5xxl="a.safetensors")) and is_of_another_model(
        context(network_module="networks.lora_flux")
    )
    assert not is_of_another_model(context(network_module="networks.lora", model_train_type="sdxl-lora"))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("clip_skip", 0, 1), ("gradient_checkpointing", True, "on"), ("gradient_checkpointing", "false", "off"),
        ("save_every_n_epochs", 999999, 0), ("resize_interpolation", "cubic", "bicubic"), ("enable_bucket", 1, True),
        ("optimizer_args", '"weight_decay=0.1" betas=0.9,0.99', ["weight_decay=0.1", "betas=0.9,0.99"]),
    ],
)  # fmt: skip
def test_kohyas_spelling_becomes_ours(name: str, value: Any, wanted: Any) -> None:
    assert spelled(OPTIONS[name], value) == wanted


def test_numbers_switches_and_prefixes() -> None:
    assert sides("512, 768") == ("512", "768") and sides([512, 512]) == (512, 0) and sides("1,2,3") == ("1,2,3", 0)
    assert is_off("None") and is_off(0.0) and is_off("-1", (-1,)) and not is_off("yes") and not is_off(0.5)
    assert is_never_reached(OPTIONS["save_every_n_epochs"], 10**9) and not is_never_reached(OPTIONS["seed"], 10**9)
    assert percent(10) == 0.1 and percent(100) == ALL_STEPS and percent("x") == "x"
    assert steps_or_share(1.0, "sd-scripts") == ALL_STEPS and steps_or_share(1.0, "kohya_ss") == 1.0
    assert with_trigger_prefix("photo of", "ohwx") == "photo of ohwx,"
    assert without_trigger_prefix(with_trigger_prefix("photo of", "ohwx"), "ohwx") == "photo of"


def test_what_needs_attention_is_told_first() -> None:
    found = Imported(flat={"rank": 8})
    found.used.append(Said("network_dim", 8, "The rank."))
    found.unknown.append(Said("netwrok_dim", "\ud800", "Unknown."))
    lines = import_text(found).split("\n")
    assert lines[0] == "Unknown and left out: 1" and lines[2] == "Used: 1" and lines[-1] == "  rank = 8"
    import_text(found).encode()


def test_types_of_adapters() -> None:
    lokr = {"network_module": "lycoris.kohya", "network_args.algo": "lokr"}
    assert given(TYPE_RULES, "network_module", **lokr).values == {"adapter_type": "lokr"}
    assert given(TYPE_RULES, "network_module", **{**lokr, "network_args.algo": "boft"}).verdict == "not_supported"
    whole = given(TYPE_RULES, "network_dim", **lokr, network_dim=100000)
    assert whole.values == {"rank": 1024, "full_matrix": True}
    assert lycoris_values(context(**lokr), {"rank": 4, "alpha": 2}) == {"conv_dim": 4, "conv_alpha": 2}
    assert lycoris_values(context(network_module="networks.dylora"), {}) == {"unit": 1}
    assert lycoris_values(context(network_module="networks.lora"), {"rank": 4}) == {}


def test_the_word_of_textual_inversion() -> None:
    found = given(IMAGE_RULES, "token_string", token_string="ohwx", num_vectors_per_token=3)
    assert found.values == {"trigger": "ohwx", "embedding_vectors": 3}
    assert given(IMAGE_RULES, "init_word", init_word="cat").verdict == "ignored"
    assert given(IMAGE_RULES, "init_word", init_word="cat", token_string="ohwx").values == {"init_word": "cat"}
