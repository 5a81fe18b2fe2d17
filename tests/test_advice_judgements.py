"""What is odd about settings and runs: told in its situation, not in good ones, and ended by its button."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from lib_lora.advice import judgements
from lib_lora.advice.derive import derive
from lib_lora.advice.judgement import Judgement, changed, first_that_helps, values_in_words
from lib_lora.advice.judgements import is_ordinary, judge
from lib_lora.advice.memory import needed_gb
from lib_lora.advice.mends import with_mends
from lib_lora.advice.situation import FAST, THOROUGH, Photo, Situation
from lib_lora.config.groups import TrainConfig, all_options, build_config, options_by_name, read_config
from lib_lora.config.rules import config_problems
from lib_lora.data.sizes import Size
from lib_lora.data.tokens import load_tokenizer, plain_ids
from lib_lora.errors import Problem
from lib_lora.families.family import Family
from lib_lora.families.sd1 import SD1
from lib_lora.families.sdxl import SDXL
from tests.situations import SITUATIONS, legal, named, photos


def ids(text: str) -> Sequence[int]:
    return plain_ids(load_tokenizer(), text)


def situation(count: int = 12, **changed: Any) -> Situation:
    return replace(Situation(name="my cat", photos=photos(count), captions="tags", free_gb=12.0), **changed)


def of_kohya(count: int, repeats: int) -> Situation:
    return situation(photos=tuple(Photo(Size(700, 700), repeats) for _ in range(count)))


@pytest.mark.parametrize("good", SITUATIONS, ids=named)
def test_nothing_is_said_of_derived_settings(good: Situation) -> None:
    for thoroughness in (FAST, THOROUGH):
        good = replace(good, thoroughness=thoroughness, regularisation=())
        assert judge(derive(good).config, good, ids=ids) == []


ODD: list[tuple[str, Situation, dict[str, Any], str, str]] = [
    ("18,000 steps", situation(200), {"epochs": 10, "repeats": 10, "batch_size": 1}, "epochs", "18000 steps are very many"),
    ("20,000 steps", situation(), {"steps": 20000}, "steps", "20000 steps are very many"),
    ("repeats of a folder", of_kohya(200, 100), {"epochs": 10, "batch_size": 1}, "epochs", "steps are very many"),
    ("a few photos for ever", situation(4), {"steps": 12000}, "steps", "12000 steps are very many"),
    ("30 steps", situation(10), {"epochs": 3, "repeats": 2, "batch_size": 2}, "epochs", "30 steps are very few"),
    ("30 steps, given", situation(), {"steps": 30}, "steps", "30 steps are very few"),
    ("a large batch", situation(8, free_gb=None), {"batch_size": 64}, "epochs", "steps are very few"),
    ("a rate of 1", situation(), {"unet_lr": 1}, "unet_lr", "1 is far too high for AdamW"),
    ("a rate of 1 of the text encoder", situation(), {"text_encoder_lr": 1}, "text_encoder_lr", "1 is far too high for AdamW"),
    ("a low rate", situation(), {"unet_lr": 1e-8}, "unet_lr", "1e-08 is so low"),
    ("Prodigy with AdamW's rates", situation(), {"optimizer": "Prodigy", "unet_lr": 1e-4}, "unet_lr", "0.0001 is far too low"),
    ("Prodigy, SDXL", situation(family=SDXL), {"optimizer": "Prodigy", "unet_lr": 1e-4}, "unet_lr", "0.0001 is far too low"),
    ("one photo", situation(1), {}, "data", "There is only one image"),
    ("one photo, thoroughly", situation(1, thoroughness=THOROUGH), {"batch_size": 4}, "data", "There is only one image"),
    ("an ordinary word", situation(), {"trigger": "cat"}, "trigger", "the model knows 'cat'"),
    ("ordinary words", situation(), {"trigger": "my_cat"}, "trigger", "the model knows 'my_cat'"),
    ("a large batch for the GPU", situation(), {"batch_size": 16, "gradient_checkpointing": "off", "steps": 500},
     "gradient_checkpointing", "may fail, or spill into the computer's memory"),
    ("SDXL on 8 GB", situation(family=SDXL, free_gb=8.0), {}, "resolution", "9.8 GB of GPU memory, but 8.0 GB are free"),
]  # fmt: skip


@pytest.mark.parametrize(("odd", "pinned", "option", "said"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
def test_what_is_odd_is_said_and_its_button_mends_it(odd: Situation, pinned: dict[str, Any], option: str, said: str) -> None:
    config = derive(odd, pinned).config
    (told,) = judge(config, odd, ids=ids)
    assert isinstance(told, Problem) and told.option == option and said in told
    assert told.endswith(".") and told.mend and told.button()
    after = changed(config, told.mend)
    assert judge(after, odd, ids=ids) == []
    assert {name for name in config.to_flat() if config.to_flat()[name] != after.to_flat()[name]} == told.mend.keys()
    before, left = config_problems(config), config_problems(after)
    assert {str(problem) for problem in left} <= {str(problem) for problem in before}


@pytest.mark.parametrize("seed", range(30))
def test_any_legal_settings_can_be_judged(seed: int) -> None:
    drawn = random.Random(seed)
    pinned = {opt.name: legal(opt.name, drawn) for opt in drawn.sample(all_options(), 15)}
    odd = drawn.choice(SITUATIONS[:30])
    config = read_config({**derive(odd).settings(), **pinned})[0]
    for told in (*judge(config, odd, ids=ids), *with_mends(config_problems(config), config, odd)):
        after = judge(changed(config, told.mend), odd, ids=ids) if told.mend else []
        assert str(told) not in map(str, after)


def test_two_odd_things_are_both_said() -> None:
    config = derive(situation(), {"unet_lr": 1, "steps": 20}).config
    assert {told.option for told in judge(config, situation())} == {"unet_lr", "steps"}


def test_what_no_setting_mends_has_no_button_and_says_so() -> None:
    small = situation(family=SDXL, free_gb=6.0)
    (told,) = judge(derive(small).config, small)
    assert told.mend == {} and told.button() == "" and "close other programs" in told


def test_memory_is_judged_by_the_account_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    config = derive(situation()).config
    asked: list[TrainConfig] = []

    def needed(tried: TrainConfig, family: Family) -> float:
        asked.append(tried)
        assert family is SD1
        return 20.0 / (1 + (tried.precision.gradient_checkpointing == "on"))

    assert needed_gb(config, SD1) < 12 and judge(config, situation()) == []
    monkeypatch.setattr(judgements, "needed_gb", needed)
    (told,) = judge(config, situation())
    assert told.mend == {"gradient_checkpointing": "on"} and asked[0] == config
    assert judge(config, situation(device="cpu")) == [] == judge(config, situation(free_gb=None))


@pytest.mark.parametrize(("trigger", "known"), [
    ("cat", True), ("red cat", True), ("anna", True), ("style", True), ("ohwx_cat", False), ("ohwx", False), ("zhangsan", False),
    ("sks", False), ("猫", False), ("", False), ("mycat42", False), ("...", False),
])  # fmt: skip
def test_ordinary_words_are_known_by_their_token(trigger: str, known: bool) -> None:
    assert is_ordinary(trigger, ids) == known


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"optimizer": "AdamW8bit"}, {"optimizer": "AdamW"}),
        ({"optimizer": "Prodigy", "unet_lr": 1, "text_encoder_lr": 1},
         {"optimizer": "AdamW", "unet_lr": 1e-4, "text_encoder_lr": None}),
        ({"optimizer": ""}, {"optimizer": "AdamW"}),
        ({"resolution": 200}, {"min_bucket_reso": 64}),
        ({"resolution": 2000}, {"max_bucket_reso": 4000}),
        ({"resolution": 513}, {"resolution": 512}),
        ({"random_crop": True}, {"cache_latents": False}),
        ({"lr_warmup_steps": 10}, {"lr_warmup_steps": 0.0}),
        ({"unet_lr": 0, "text_encoder_lr": 0}, {"unet_lr": 1e-4}),
        ({"full_fp16": True}, {"mixed_precision": "fp16"}),
        ({"optimizer": "AdaFactor", "lr_scheduler": "cosine"}, {"lr_scheduler": "adafactor"}),
        ({"min_timestep": 900, "max_timestep": 100}, {"min_timestep": 0}),
    ],
    ids=str,
)  # fmt: skip
def test_problems_get_what_mends_them(wrong: dict[str, Any], mend: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    gone = ("bitsandbytes", "prodigyopt")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in gone else real(name, *rest))
    config = build_config({"name": "x", "data": ["photos"], **wrong})
    problems = config_problems(config)
    told = with_mends(problems, config, situation())
    assert [str(one) for one in told] == [str(problem) for problem in problems]
    assert told[0].option == problems[0].option and told[0].mend == mend
    assert len(config_problems(changed(config, told[0].mend))) < len(problems)


def test_problems_of_names_have_no_button_and_those_of_the_device_the_safe_value() -> None:
    config = build_config({"optimizer": "AdamW8bit", "data": ["photos"], "mixed_precision": "bf16"})
    problems = [
        Problem("name", "Name (name): is empty."), Problem("", "The webui is busy."), Problem("data", "No images."),
        Problem("optimizer", "Optimizer (optimizer): AdamW8bit works only on CUDA; choose AdamW."),
        Problem("mixed_precision", "Mixed precision (mixed_precision): got bf16, which this GPU does not support; choose fp16."),
    ]  # fmt: skip
    mends = [told.mend for told in with_mends(problems, config, situation())]
    assert mends == [{}, {}, {}, {"optimizer": "AdamW"}, {"mixed_precision": "auto"}]


def test_a_button_says_the_values() -> None:
    assert values_in_words({"flip_aug": True, "unet_lr": 2e-5}) == "Flip augmentation: on, Learning rate, U-Net: 0.00002"
    told = Judgement("rank", "Odd.", {"rank": 4})
    assert told == "Odd." and told.button() == "Rank: 4" and options_by_name()[told.option].name == "rank"
    assert first_that_helps(build_config({}), [{"rank": 16}, {"rank": 4}], lambda tried: True) == {"rank": 4}
    assert first_that_helps(build_config({}), [{"rank": 4}], lambda tried: False) == {}
