"""The option list, and what is derived from it."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
from pathlib import Path

import pytest

from lib_lora.config.groups import TrainConfig, all_options, build_config, group_titles
from lib_lora.config.options import Option, bounds_problem, parse_typed
from lib_lora.errors import ConfigError
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_listing import details
from lib_lora.kohya.importing import from_kohya
from tests.samples import sample
from tests.test_kohya_table import KEYS

OPTIONS = all_options()
OPTIONS_BY_NAME = {opt.name: opt for opt in OPTIONS}


@pytest.mark.parametrize("opt", OPTIONS, ids=lambda opt: opt.name)
def test_option_is_declared_whole(opt: Option) -> None:
    declared = opt.declaration
    assert declared.label and declared.help.endswith(".")
    assert declared.kohya is None or declared.kohya.removeprefix("network_args.").isidentifier()
    assert declared.place in {"basic", "advanced", "none"}
    if opt.type in (int, float):
        assert declared.between is not None
        assert declared.unset if opt.default is None else declared.between[0] <= opt.default <= declared.between[1]


@pytest.mark.parametrize("opt", OPTIONS, ids=lambda opt: opt.name)
def test_every_option_goes_through_json_and_text(opt: Option) -> None:
    changed = build_config({opt.name: sample(opt)})
    assert changed != TrainConfig() and changed.value(opt) != opt.default
    assert build_config(json.loads(json.dumps(changed.to_flat()))) == changed
    text = " ".join(changed.value(opt)) if opt.type is tuple else str(changed.value(opt))  # as a command line gives it
    assert build_config({opt.name: text}) == changed
    assert parse_typed(opt, opt.default) == opt.default and bounds_problem(opt, opt.default) is None


@pytest.mark.case(57)
@pytest.mark.parametrize("opt", OPTIONS, ids=lambda opt: opt.name)
def test_bounds_hold(opt: Option) -> None:
    if opt.type in (int, float):
        step = 1 if opt.type is int else 1e-9
        for bound, outside in zip(opt.declaration.between or (), (-step, step)):
            assert build_config({opt.name: bound}).value(opt) == bound
            assert "must be" in str(bounds_problem(opt, parse_typed(opt, bound + outside * max(1, abs(bound)))))
    if opt.choices:
        with pytest.raises(ConfigError):
            build_config({opt.name: "none of these"})


def test_kohyas_names_are_kohyas_and_options_without_one_are_meant_to_have_none() -> None:
    names = {opt.declaration.kohya for opt in OPTIONS if opt.declaration.kohya}
    inside = {
        f"network_args.{key}" for key in KEYS["network_args_lora"] + KEYS["network_args_dylora"] + KEYS["network_args_lycoris"]
    }
    assert names <= {*KEYS["sd_scripts"], *inside}
    assert {opt.name for opt in OPTIONS if opt.declaration.kohya is None} == {
        "adapter_type", "train_layers", "repeats", "resolution_height", "trigger", "filename_captions", "token_rule", "stop_text_encoder_training", "ema_decay",
        "overwrite", "preview_steps", "generate_while_training", "embedding_vectors", "embedding_lr", "init_word",
        "stop_embedding_training"}  # fmt: skip


def test_only_folders_and_files_that_the_webui_decides_have_no_place_in_the_form() -> None:
    assert {opt.name for opt in OPTIONS if opt.declaration.place == "none"} == {"out", "checkpoint"}
    assert all(group_titles()[opt.group] for opt in OPTIONS)


def test_the_queues_list_names_no_folder_of_the_machine() -> None:
    places = ("data", "reg_data", "mask_data", "network_weights", "base_weights", "resume", "out", "checkpoint", "sample_prompts")
    shown = {name: "/home/somebody/last.txt" for name in places}
    lists = {name: [path] if OPTIONS_BY_NAME[name].type is tuple else path for name, path in shown.items()}
    settings = json.loads(json.dumps(build_config(lists).to_flat()))
    assert {name: value for _, name, value in details(Entry("1", settings, 1.0))["settings"]} == dict.fromkeys(shown, "last.txt")
    kept = {"sample_prompts": "a cat /home/x", "resume": "my_cat", "training_comment": "see /home/x"}
    told = details(Entry("1", json.loads(json.dumps(build_config(kept).to_flat())), 1.0))["settings"]
    assert {name: value for _, name, value in told} == kept


def test_names_are_unique() -> None:
    names = [opt.name for opt in OPTIONS]
    kohya = [opt.declaration.kohya for opt in OPTIONS if opt.declaration.kohya]
    assert len(set(names)) == len(names) and len(set(kohya)) == len(kohya)


def test_json_round_trip() -> None:
    config = build_config({"rank": 8, "data": ["a", "b"], "unet_lr": "3e-4", "overwrite": True, "lr_scheduler": "cosine"})
    again = build_config(json.loads(json.dumps(config.to_flat())))
    assert again == config and again != TrainConfig()
    assert again.adapter.rank == 8 and again.optimizer.unet_lr == 3e-4


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().adapter.rank = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("rank", 0, "Rank (rank): got 0, must be a whole number from 1 to 1024."),
        ("rank", 2.5, "Rank (rank): got 2.5, must be a whole number from 1 to 1024."),
        ("rank", None, "Rank (rank): got None, must be a whole number from 1 to 1024."),
        ("unet_lr", "NaN", "Learning rate, U-Net (unet_lr): got 'NaN', must be a number from 0 to 100."),
        ("unet_lr", math.inf, "Learning rate, U-Net (unet_lr): got inf, must be a number from 0 to 100."),
        ("unet_lr", "fast", "Learning rate, U-Net (unet_lr): got 'fast', must be a number from 0 to 100."),
        ("loss_type", "l3", "Loss (loss_type): got 'l3', must be one of l2, l1, huber, smooth_l1."),
        ("overwrite", "maybe", "Overwrite (overwrite): got 'maybe', must be true or false."),
        ("seed", -1, "Seed (seed): got -1, must be a whole number from 0 to 4.29497e+09."),
        ("batch_size", True, "Batch size (batch_size): got True, must be a whole number from 1 to 64."),
    ],
)
def test_illegal_values_get_one_sentence(name: str, raw: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({name: raw})
    assert caught.value.problems == [said]


def test_all_illegal_values_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"rank": 0, "alpha": "x", "nonsense": 1})
    assert len(caught.value.problems) == 3


def test_kohya_names() -> None:
    settings = from_kohya({"network_dim": 4, "network_alpha": 2, "learning_rate": 1e-3, "text_encoder_lr": [5e-4, 5e-4],
                           "resolution": "256,256", "max_token_length": 150, "max_train_steps": 7, "caption_extension": ".txt"})  # fmt: skip
    config = build_config(settings.flat)
    assert settings.problems() == []
    assert (config.adapter.rank, config.adapter.alpha, config.data.resolution, config.run.steps) == (4, 2.0, 256, 7)
    assert (config.optimizer.unet_lr, config.optimizer.text_encoder_lr, config.text.max_token_length) == (1e-3, 5e-4, "150")


def test_epochs_win_over_steps_as_in_sd_scripts() -> None:
    assert build_config(from_kohya({"max_train_epochs": 10, "max_train_steps": 1600}).flat).run.steps == 0
    assert build_config(from_kohya({"max_train_epochs": None, "max_train_steps": 1600}).flat).run.steps == 1600


def test_what_kohya_leaves_empty_is_not_given() -> None:
    settings = from_kohya({"optimizer_type": "", "caption_extension": "", "keep_tokens": None, "optimizer_args": [],
                           "text_encoder_lr": [], "learning_rate": "", "max_token_length": None})  # fmt: skip
    assert build_config(settings.flat) == build_config({})


def test_kohya_options_that_would_change_the_result_are_named() -> None:
    told = from_kohya({"network_module": "networks.oft", "debug_dataset": True, "brand_new": 3, "v2": True}).problems()
    assert [sentence.split(":")[0] for sentence in told] == [
        "network_module = 'networks.oft'",
        "debug_dataset = True",
        "brand_new = 3",
    ]


def test_kohya_only_switches() -> None:
    assert from_kohya({"learning_rate": 1e-3, "network_train_unet_only": True}).flat == {"unet_lr": 1e-3, "text_encoder_lr": 0}
    assert from_kohya({"unet_lr": 1e-3, "network_train_text_encoder_only": True, "text_encoder_lr": 2}).flat["unet_lr"] == 0


def test_the_page_of_options_is_current() -> None:
    from tools.options_table import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tools.options_table"


@pytest.mark.parametrize("name", ["trigger", "name", "data"])
def test_half_a_surrogate_pair_is_no_text(name: str) -> None:
    """A browser may send it in JSON; no file could hold it."""
    with pytest.raises(ConfigError, match="must be a"):
        build_config({name: ["\ud83d"] if name == "data" else "\ud83d"})


# sentences on several options together, and on arguments of the command line
WITHOUT_A_LABEL = {
    "are not trained (conv_dim", "rate factors (down_lr_weight", "by epochs (save_every_n_epochs", "by steps (save_every_n_steps",
    "are generated (sample_every_n_steps", "is saved by epochs (save_state", "is saved by steps (save_state",
    "a caption (weighted_captions", "File (out", "--d (seed", "--s (steps",
}  # fmt: skip


def test_sentences_name_options_by_their_labels() -> None:
    """`Rank (rank)`: what stands before an option's name in brackets is the label that the form shows."""
    wrong = []
    for path in sorted((Path(__file__).parent.parent / "lib_lora").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for text in (_text(node) for node in nodes if id(node) not in docstrings):
            for found in re.finditer(r" \((\w+)", text):
                named = text[: found.end()]
                label = OPTIONS_BY_NAME[found[1]].declaration.label if found[1] in OPTIONS_BY_NAME else ""
                if not named.endswith(f"{label} ({found[1]}") and label and not named.endswith(tuple(WITHOUT_A_LABEL)):
                    wrong.append((path.name, named[-60:]))
    assert wrong == []


def _text(node: ast.AST) -> str:
    """A text as it is written, with {} for what is filled in; of a part of such a text, nothing."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{}" for part in parts]
    return "".join(texts) if texts[0].strip() not in ("", "{}") else ""
