"""Derived settings: legal, with reasons, of a sensible length, and never against what the user pinned."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib_lora.advice.derive import derive, trigger_for
from lib_lora.advice.draft import Draft
from lib_lora.advice.memory import needed_gb, usable_gb
from lib_lora.advice.situation import FAST, THOROUGH, Photo, Situation, captions_of, photos_of
from lib_lora.advice.training_length import images_seen
from lib_lora.check import find_images, look
from lib_lora.config.groups import TrainConfig, all_options, build_config, options_by_name, unread
from lib_lora.config.options import in_words
from lib_lora.config.rules import config_problems
from lib_lora.data.sizes import Size
from lib_lora.families.family import DetectedModel
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL
from lib_lora.plan import make_plan
from lib_lora.settle import settle
from tests.conftest import write_picture
from tests.situations import SITUATIONS, legal, named, photos
from tests.test_tab import Host

EVERY = pytest.mark.parametrize("situation", SITUATIONS, ids=named)
ALWAYS = {
    "epochs", "repeats", "batch_size", "rank", "alpha", "unet_lr", "text_encoder_lr", "optimizer", "lr_scheduler", "min_snr_gamma",
    "flip_aug", "shuffle_caption", "mixed_precision", "save_precision", "gradient_checkpointing", "cache_latents", "resolution",
    "sample_at_first", "validation_split", "trigger",
}  # fmt: skip


def problems_of(config: TrainConfig, situation: Situation) -> list[str]:
    """What settling and checking says of settings that get a name."""
    config = replace(config, run=replace(config.run, name="my cat"))
    return [*config_problems(config, settle(config, DetectedModel(situation.family, "a test")))]


def test_there_are_forty_situations() -> None:
    assert len(SITUATIONS) == 40 and len({named(situation) for situation in SITUATIONS}) == 40
    assert {len(situation.photos) for situation in SITUATIONS} >= {3, 3000}
    assert {situation.free_gb for situation in SITUATIONS} >= {6.0, 24.0}


@EVERY
def test_derived_settings_have_no_problem_and_no_note(situation: Situation) -> None:
    derived = derive(situation)
    assert problems_of(derived.config, situation) == []
    ineffective = {name for name, _ in unread(derived.config)}
    assert not ineffective & derived.settings().keys()


@EVERY
def test_every_derived_setting_has_one_sentence_why(situation: Situation) -> None:
    derived = derive(situation)
    choices = derived.choices
    assert {choice.name for choice in choices} >= ALWAYS
    assert len({choice.name for choice in choices}) == len(choices)
    for choice in choices:
        assert choice.why[0].isupper() or choice.why[0].isdigit(), choice
        assert choice.why.endswith(".") and ". " not in choice.why.replace("SD 1.x", "").replace("SD 2.x", ""), choice
        assert derived.config.value(options_by_name()[choice.name]) == choice.value


@EVERY
def test_a_run_is_neither_too_short_nor_too_long(situation: Situation) -> None:
    for thoroughness in range(FAST, THOROUGH + 1):
        length = derive(replace(situation, thoroughness=thoroughness, regularisation=())).length
        assert length is not None and 120 <= length.steps <= 7000
        assert 1 <= length.epochs <= 10


@EVERY
def test_about_ten_versions_are_saved_and_sampled(situation: Situation) -> None:
    for thoroughness in (FAST, THOROUGH):
        derived = derive(replace(situation, thoroughness=thoroughness))
        run, length = derived.config.run, derived.length
        assert length is not None and run.sample_at_first
        saved = length.epochs // run.save_every_n_epochs if run.save_every_n_epochs else length.steps // run.save_every_n_steps
        assert 5 <= saved <= 11
        assert (run.save_every_n_epochs, run.save_every_n_steps) == (run.sample_every_n_epochs, run.sample_every_n_steps)


@EVERY
def test_more_thorough_is_longer(situation: Situation) -> None:
    lengths = [derive(replace(situation, thoroughness=level)).length for level in range(FAST, THOROUGH + 1)]
    steps = [length.steps for length in lengths if length]
    assert steps == sorted(steps) and steps[-1] > 1.5 * steps[0]


@EVERY
def test_the_memory_that_is_free_is_enough(situation: Situation) -> None:
    derived = derive(situation)
    assert situation.free_gb is not None
    assert needed_gb(derived.config, situation.family) <= usable_gb(situation.free_gb)


def test_less_memory_makes_smaller_batches_of_as_many_steps() -> None:
    rich, poor = (derive(Situation(photos=photos(100), family=SDXL, free_gb=free)) for free in (24.0, 10.2))
    assert rich.config.data.batch_size == 4
    assert poor.config.data.batch_size == 1 and poor.config.optimizer.gradient_accumulation_steps == 4
    assert rich.length and poor.length and abs(rich.length.steps - poor.length.steps) < rich.length.steps / 20


@pytest.mark.parametrize(
    ("family", "changed", "measured"),
    [
        (SD1, {"resolution": 512, "gradient_checkpointing": "on"}, 2.96),
        (SD1, {"resolution": 512, "batch_size": 4, "gradient_checkpointing": "off"}, 8.69),
        (SD1, {"resolution": 768, "gradient_checkpointing": "on"}, 3.91),
        (SD1, {"resolution": 768, "gradient_checkpointing": "off"}, 6.81),
        (SDXL, {"resolution": 1024, "gradient_checkpointing": "on", "text_encoder_lr": 5e-5}, 9.78),
    ],
)
def test_the_rough_account_is_near_what_was_measured(family: Any, changed: dict[str, Any], measured: float) -> None:
    """GB of runs on a GPU in docs/memory.md, where encoding images or training needs most."""
    assert needed_gb(build_config(changed), family) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_the_length_is_that_of_the_plan(seed: int, tmp_path: Path) -> None:
    """Photos in files, with and without repeats of their folders, regularisation images and images held out."""
    drawn = random.Random(seed)
    sizes = [(96, 96), (160, 96), (96, 160), (200, 90)]
    folder = tmp_path / drawn.choice(["plain", "7_cat", "1_cat"])
    for number in range(drawn.randint(3, 9)):
        write_picture(folder / f"{number}.png", *drawn.choice(sizes), seed=number)
    if drawn.random() < 0.5:
        for number in range(drawn.randint(1, 5)):
            write_picture(tmp_path / "reg" / "2_cats" / f"{number}.png", *drawn.choice(sizes), seed=number)
    pinned = {
        "data": [str(folder)], "reg_data": [str(tmp_path / "reg")] if (tmp_path / "reg").is_dir() else [], "trigger": "ohwx",
        "resolution": 128, "batch_size": drawn.randint(1, 4), "gradient_accumulation_steps": drawn.randint(1, 3),
        "validation_split": drawn.choice([0, 0.3]),
    }  # fmt: skip
    scanned = build_config(pinned)
    learned, regularising = photos_of(find_images(scanned), scanned.data.repeats)
    situation = Situation(photos=learned, regularisation=regularising, thoroughness=drawn.randint(FAST, THOROUGH))
    derived = derive(situation, pinned)
    plan = make_plan(derived.config, find_images(derived.config))
    assert derived.length == (plan.batches_per_epoch, plan.steps_per_epoch, plan.epochs, plan.steps)
    seen = plan.epochs * sum(plan.samples[index].repeats for index in range(len(learned)))
    assert 0.6 * images_seen(situation) <= seen <= 1.6 * images_seen(situation)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_pinned_stays_as_it_is(seed: int) -> None:
    drawn = random.Random(seed)
    names = drawn.sample([opt.name for opt in all_options()], 12)
    pinned = {name: legal(name, drawn) for name in names}
    situation = drawn.choice(SITUATIONS)
    derived = derive(situation, pinned)
    assert not derived.settings().keys() & pinned.keys()
    assert build_config({**derived.settings(), **pinned}) == derived.config
    assert all(choice.why for choice in derived.choices)


@pytest.mark.parametrize(
    ("pinned", "followed"),
    [
        ({"rank": 64}, {"alpha": 32.0}),
        ({"unet_lr": 2e-4}, {"text_encoder_lr": 1e-4}),
        ({"optimizer": "Prodigy"}, {"unet_lr": 1.0, "text_encoder_lr": 1.0}),
        ({"optimizer": "Lion"}, {"unet_lr": 1e-4 / 3}),
        ({"optimizer": "AdaFactor"}, {"lr_scheduler": "adafactor"}),
        ({"random_crop": True}, {"cache_latents": False}),
        ({"resolution": 200}, {"min_bucket_reso": 64}),
        ({"resolution": 1024}, {"max_bucket_reso": 2048}),
        ({"full_bf16": True}, {"mixed_precision": "bf16"}),
        ({"epochs": 20}, {"repeats": 8, "save_every_n_epochs": 2, "sample_every_n_epochs": 2}),
        ({"repeats": 1}, {"epochs": 150, "save_every_n_epochs": 15}),
        ({"steps": 1000, "batch_size": 1}, {"repeats": 10, "save_every_n_epochs": 1}),
        ({"trigger": "", "shuffle_caption": True}, {"keep_tokens": 1}),
        ({"embedding_vectors": 2, "optimizer": "Prodigy"}, {"embedding_lr": 1.0}),
        ({"unet_lr": 0.0}, {"text_encoder_lr": 5e-5}),
    ],
    ids=str,
)
def test_the_others_follow_what_is_pinned(pinned: dict[str, Any], followed: dict[str, Any]) -> None:
    situation = Situation(name="my cat", photos=photos(10), captions="tags", free_gb=12.0)
    derived = derive(situation, pinned)
    for name, value in followed.items():
        assert derived.settings()[name] == (pytest.approx(value) if isinstance(value, float) else value)
    packages = ("needs the package", "is not installed")
    assert [text for text in problems_of(derived.config, situation) if not any(word in text for word in packages)] == []


def test_settings_of_a_file_or_state_are_not_derived() -> None:
    situation = Situation(photos=photos(10))
    assert derive(situation, {"resume": "my_cat"}).choices == ()
    assert not {"rank", "alpha"} & derive(situation, {"network_weights": "a.safetensors"}).settings().keys()
    assert "epochs" not in derive(situation, {"steps": 500}).settings()


def test_pinned_values_that_are_not_legal_stay_and_do_not_end_it() -> None:
    pinned = {"rank": "many", "batch_size": 0, "no such option": 1}
    derived = derive(Situation(photos=photos(10)), pinned)
    assert not derived.settings().keys() & pinned.keys() and derived.config.adapter.rank == 16


def test_kinds_differ_where_their_reasons_say() -> None:
    person, style, thing = (derive(Situation(kind=kind, photos=photos(15), captions="tags")).config for kind in ("person", "style", "object"))  # type: ignore[arg-type]  # fmt: skip
    assert (person.adapter.rank, style.adapter.rank, thing.adapter.rank) == (16, 32, 8)
    assert (person.data.flip_aug, style.data.flip_aug, thing.data.flip_aug) == (False, True, False)
    assert style.text.caption_dropout_rate == 0.1 and person.text.caption_dropout_rate == 0
    assert style.optimizer.text_encoder_lr == pytest.approx(2e-5) and person.optimizer.text_encoder_lr == pytest.approx(5e-5)
    lengths = [derive(Situation(kind=kind, photos=photos(15))).length for kind in ("person", "object")]  # type: ignore[arg-type]
    assert lengths[0] and lengths[1] and lengths[1].steps < lengths[0].steps


def test_families_have_their_resolution_and_their_text_encoders() -> None:
    sizes = {
        (family.id, v): derive(Situation(photos=photos(10), family=family, predicts_v=v)).config.data.resolution
        for family in (SD1, SD2, SDXL)
        for v in (False, True)
    }
    assert sizes == {("sd1", False): 512, ("sd1", True): 512, ("sd2", False): 512, ("sd2", True): 768,
                     ("sdxl", False): 1024, ("sdxl", True): 1024}  # fmt: skip
    small = tuple(Photo(Size(600, 500)) for _ in range(10))
    assert derive(Situation(photos=small, family=SDXL)).config.data.resolution == 768
    assert derive(Situation(photos=small, family=SDXL)).config.optimizer.text_encoder_lr == 0


def test_tags_are_shuffled_and_sentences_are_not() -> None:
    assert [derive(Situation(photos=photos(9), captions=kind)).config.text.shuffle_caption for kind in ("tags", "sentences", "none")] == [True, False, False]  # type: ignore[arg-type]  # fmt: skip
    assert captions_of(["1girl, red hair, smile", "", "1boy, hat"]) == "tags"
    assert captions_of(["a photo of a cat that sits on a wall, in the sun", "a cat"]) == "sentences"
    assert captions_of(["", "  "]) == "none" == captions_of([])


def test_long_captions_are_not_cut() -> None:
    lengths = {tokens: derive(Situation(longest_caption=tokens)).config.text.max_token_length for tokens in (75, 76, 150, 151)}
    assert lengths == {75: "75", 76: "150", 150: "150", 151: "225"}


def test_without_images_there_are_settings_and_no_length() -> None:
    derived = derive(Situation(name="x"))
    assert derived.length is None and derived.config.data.repeats == 15
    tiny = derive(Situation(photos=(Photo(Size(5, 4000)),)))
    assert tiny.length is None or tiny.length.steps > 0


def test_repeats_of_folders_count() -> None:
    of_kohya = tuple(Photo(Size(600, 600), 100) for _ in range(10))
    derived = derive(Situation(photos=of_kohya))
    assert derived.config.run.epochs == 2 and "repeats" not in derived.settings()


@pytest.mark.parametrize("name", ["my cat", "My-Cat.v2", "猫", "ohwx_cat"])
def test_the_trigger_is_made_of_the_name(name: str) -> None:
    trigger = trigger_for(name)
    assert trigger.startswith("ohwx") and trigger == trigger_for(trigger) and not set(trigger) & set(" ,.-()")
    assert derive(Situation(name=name)).settings()["trigger"] == trigger
    assert "trigger" not in derive(Situation(name=name), {"trigger": "mine"}).settings()
    assert "trigger" not in derive(Situation(name="a/b")).settings()


def test_a_draft_tries_without_touching_what_is_pinned() -> None:
    draft = Draft({"rank": 8})
    draft.choose("rank", 99, "Never.")
    assert draft.config.adapter.rank == 8 and draft.choices() == ()
    assert draft.tried({"rank": 5, "batch_size": 3}).data.batch_size == 3 and draft.tried({"rank": 5}).adapter.rank == 8
    assert draft.config.data.batch_size == 1 and draft.is_pinned("rank") and not draft.is_pinned("alpha")


def test_values_are_in_the_words_of_the_form() -> None:
    config = build_config(
        {"unet_lr": 2e-5, "enable_bucket": False, "text_encoder_lr": 0, "alpha": 8, "optimizer_args": ["a=1", "b=2"]}
    )
    names = ("unet_lr", "enable_bucket", "text_encoder_lr", "alpha", "optimizer_args")
    options = options_by_name()
    assert [in_words(options[name], config.value(options[name])) for name in names] == ["0.00002", "off", "0", "8", "a=1 b=2"]
    defaults = [in_words(options[name], options[name].default) for name in names]
    assert defaults == ["0.0001", "on", "0.00005; 0 for SDXL", "16", "empty"]
    assert all(in_words(opt, opt.default) for opt in all_options())


def test_the_check_of_train_finds_nothing_in_derived_settings(photos_on_disk: Path, tmp_path: Path) -> None:
    scanned = build_config({"data": [str(photos_on_disk)]})
    learned, _ = photos_of(find_images(scanned), scanned.data.repeats)
    for family in (SD1, SD2, SDXL):
        host = Host(tmp_path)
        host.held = DetectedModel(family, "a test")
        situation = Situation(name="my cat", photos=learned, family=family, free_gb=12.0, device="cpu")
        derived = derive(situation)
        flat = {**derived.settings(), "name": "my cat", "data": [str(photos_on_disk)]}
        found = look(build_config(flat), host)  # type: ignore[arg-type]
        assert list(found.problems) == [] and found.plan is not None and derived.length is not None
        assert (found.plan.steps, found.plan.steps_per_epoch) == (derived.length.steps, derived.length.steps_per_epoch)


@pytest.fixture
def photos_on_disk(tmp_path: Path) -> Path:
    """Twelve photos without captions."""
    for number in range(12):
        write_picture(tmp_path / "photos" / f"{number}.png", 300 + 40 * (number % 3), 280, seed=number)
    return tmp_path / "photos"


def test_regularisation_images_are_shown_once_unless_their_folder_says_otherwise() -> None:
    """20 images of the subject in one bucket, and as many of the class: 10 in the same, 10 in another; in batches of 4."""
    square, wide = Photo(Size(512, 512)), Photo(Size(512, 1024))
    situation = Situation(photos=(square,) * 2, regularisation=(square,) * 10 + (wide,) * 10)
    length = situation.length(build_config({"repeats": 10, "batch_size": 4, "epochs": 3}))
    assert length == (8 + 3, 11, 3, 33)
