"""Judgement on settings that are legal but odd, each with values that mend it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lib_lora.advice.derive import RARE, USUAL_RATE, derive, trigger_for
from lib_lora.advice.judgement import Judgement, changed, first_that_helps, only_new
from lib_lora.advice.memory import needed_gb
from lib_lora.advice.situation import NORMAL, THOROUGH, Situation
from lib_lora.advice.training_length import images_seen
from lib_lora.config.groups import TrainConfig, title
from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.config.options import decimal, shown
from lib_lora.errors import DatasetError
from lib_lora.plan import Length

FEWEST_STEPS, MOST_STEPS = 100, 15000
TOO_OFTEN = 3  # times as many images as the most thorough run sees
HIGH_RATE, LOW_RATE, LOW_OWN_RATE = 0.01, 1e-6, 0.1
SEEN_ALONE = 200  # times that a single image may be seen
COMMON_TOKENS = 40000  # CLIP's vocabulary is sorted: words behind this are rare
SMALLER = (768, 640, 512)
_LENGTH = ("epochs", "repeats")
_BATCH = ("batch_size", "gradient_accumulation_steps")

Ids = Callable[[str], Sequence[int]]


def judge(config: TrainConfig, situation: Situation, *, ids: Ids | None = None) -> list[Judgement]:
    """What is odd about `config` in a situation.

    Args:
        config: legal settings.
        situation: answers and facts.
        ids: token ids of a text, as `plain_ids`; None to leave the trigger word unjudged.
    """
    found = [
        one_image(config, situation),
        length_is_odd(config, situation),
        rates_are_odd(config, situation),
        trigger_is_known(config, ids) if ids else None,
        memory_is_short(config, situation),
    ]
    return [judgement for judgement in found if judgement is not None]


def one_image(config: TrainConfig, situation: Situation) -> Judgement | None:
    """A single image, seen often and always the same."""
    if len(situation.photos) != 1:
        return None

    def is_mended(tried: TrainConfig) -> bool:
        length = _length(tried, situation)
        return tried.data.flip_aug and length is not None and _seen(tried, length) <= SEEN_ALONE

    if is_mended(config):
        return None
    steps = SEEN_ALONE // (config.data.batch_size * config.optimizer.gradient_accumulation_steps)
    short = {"flip_aug": True, "steps": 0, "epochs": 10, "repeats": SEEN_ALONE // 10}
    mend = first_that_helps(config, [{"flip_aug": True}, short, {"flip_aug": True, "steps": max(steps, 1)}], is_mended)
    text = (
        "There is only one image, so its background and pose will be learned as well; add five or more, or let it be mirrored "
        f"and seen at most {SEEN_ALONE} times."
    )
    return Judgement("data", text, mend)


def length_is_odd(config: TrainConfig, situation: Situation) -> Judgement | None:
    """A run with so few steps that it learns nothing, or so many that it only copies."""
    length = _length(config, situation)
    if length is None or len(situation.photos) == 1:
        return None
    most = TOO_OFTEN * images_seen(replace(situation, thoroughness=THOROUGH))

    def is_long(tried: TrainConfig, of: Length) -> bool:
        return of.steps >= MOST_STEPS or (_seen(tried, of) > most and of.steps > FEWEST_STEPS)

    def is_mended(tried: TrainConfig) -> bool:
        of = _length(tried, situation)
        return of is not None and of.steps >= FEWEST_STEPS and not is_long(tried, of)

    if is_mended(config):
        return None
    mend = first_that_helps(config, _other_lengths(config, situation), is_mended)
    after = _length(changed(config, mend), situation) if mend else None
    button = f"About {after.steps} steps" if after else ""
    option, count = "steps" if config.run.steps else "epochs", len(situation.photos)
    if length.steps < FEWEST_STEPS:
        text = f"{title(option)}: {length.steps} steps are very few, and hardly anything would be learned from {count} images."
    else:
        text = f"{title(option)}: {length.steps} steps are very many for {count} images; the LoRA would copy them."
    return Judgement(option, text, mend, button)


def rates_are_odd(config: TrainConfig, situation: Situation) -> Judgement | None:
    """Learning rates that the optimizer cannot work with; all of them are mended at once."""
    optimizer, name = config.optimizer, config.optimizer.optimizer
    spec, text_rate = optimizer_spec(name), situation.family.text_encoder_lr
    rates = {"unet_lr": optimizer.unet_lr, "text_encoder_lr": optimizer.text_encoder_lr or 0.0}
    usual = {"unet_lr": USUAL_RATE, "text_encoder_lr": text_rate or USUAL_RATE / 2}
    if spec.one_rate:
        for option in (option for option, rate in rates.items() if 0 < rate < LOW_OWN_RATE):
            found = decimal(rates[option])
            text = f"{title(option)}: {found} is far too low for {name}, which finds the learning rate itself and expects 1."
            ones = {other: 1.0 if rate or text_rate else 0.0 for other, rate in rates.items()}
            return Judgement(option, text, only_new(config, ones))
    if spec.one_rate or not any(word in spec.attribute for word in ("Adam", "Lion")):
        return None
    high = [option for option, rate in rates.items() if rate >= HIGH_RATE]
    low = [option for option, rate in rates.items() if 0 < rate < LOW_RATE]
    for option in high:
        found = decimal(rates[option])
        text = f"{title(option)}: {found} is far too high for {name}, and the LoRA would draw only noise."
        return Judgement(option, text, {other: usual[other] for other in (*high, *low)})
    for option in low:
        text = f"{title(option)}: {rates[option]:g} is so low that hardly anything would be learned."
        return Judgement(option, text, {other: usual[other] for other in low})
    return None


def trigger_is_known(config: TrainConfig, ids: Ids) -> Judgement | None:
    """A trigger word of which the model has a picture already."""
    trigger = config.text.trigger
    if not is_ordinary(trigger, ids):
        return None
    better = trigger_for(trigger)
    text = (
        f"{title('trigger')}: the model knows {shown(trigger)} as an ordinary word, and would mix that with your images; "
        f"{shown(better)} is new to it."
    )
    return Judgement("trigger", text, {"trigger": better})


def is_ordinary(trigger: str, ids: Ids) -> bool:
    """Whether every word of the trigger is a token of its own that is not rare. `ids`: token ids of a text."""
    words = [word for word in re.split(r"[\W_]+", trigger) if word]
    tokens = [ids(word) for word in words]
    return bool(words) and RARE not in words and all(len(found) == 1 and found[0] < COMMON_TOKENS for found in tokens)


def memory_is_short(config: TrainConfig, situation: Situation) -> Judgement | None:
    """A run that needs more memory than is free: it fails, or the driver uses the computer's memory, many times slower."""
    free = situation.free_gb
    if free is None or situation.device != "cuda" or (needs := needed_gb(config, situation.family)) <= free:
        return None
    mend = first_that_helps(config, _smaller(config), lambda tried: needed_gb(tried, situation.family) <= free)
    if not mend:
        text = (
            f"The run needs about {needs:.1f} GB of GPU memory, but {free:.1f} GB are free, and no setting changes that; close "
            "other programs that use the GPU, or load a smaller model."
        )
        return Judgement("", text, {})
    text = (
        f"The run needs about {needs:.1f} GB of GPU memory, but {free:.1f} GB are free, so it may fail, or spill into the "
        "computer's memory (shared memory) and be many times slower."
    )
    return Judgement(next(iter(mend)), text, mend)


def _other_lengths(config: TrainConfig, situation: Situation) -> Iterator[Mapping[str, Any]]:
    """Settings of a usual length: first epochs and repeats, then the batch size too, then a number of steps."""
    flat, normal = config.to_flat(), replace(situation, thoroughness=NORMAL)
    for released in (_LENGTH, (*_LENGTH, *_BATCH)):
        pinned = {**{name: value for name, value in flat.items() if name not in released}, "steps": 0, "resume": ""}
        chosen = derive(normal, pinned).settings()
        yield {**{name: chosen[name] for name in released if name in chosen}, "steps": 0}
    per_step = config.data.batch_size * config.optimizer.gradient_accumulation_steps
    yield {"steps": min(max(images_seen(normal) // per_step, FEWEST_STEPS), MOST_STEPS - 1)}


def _smaller(config: TrainConfig) -> Iterator[Mapping[str, Any]]:
    """Settings that need less and less memory, those first that change the result least."""
    values: dict[str, Any] = {"gradient_checkpointing": "on"}
    yield values
    values["vae_batch_size"] = 1
    yield values
    batch, accumulation = config.data.batch_size, config.optimizer.gradient_accumulation_steps
    while batch > 1:
        batch, accumulation = batch // 2, min(accumulation * 2, 1024)
        values = {**values, "batch_size": batch, "gradient_accumulation_steps": accumulation}
        yield values
    values = {**values, "text_encoder_lr": 0.0} if config.optimizer.unet_lr > 0 else values
    yield values
    for side in SMALLER:
        if side < config.data.resolution and not config.data.resolution_height:
            yield {**values, "resolution": side}


def _length(config: TrainConfig, situation: Situation) -> Length | None:
    try:
        return situation.length(config)
    except DatasetError:
        return None


def _seen(config: TrainConfig, length: Length) -> int:
    """How many images the run sees, about."""
    return length.steps * config.data.batch_size * config.optimizer.gradient_accumulation_steps
