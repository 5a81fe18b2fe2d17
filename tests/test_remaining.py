"""How long a run still takes: synthetic runs on a clock of their own, whose end is known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lib_lora.check import find_images
from lib_lora.config.groups import build_config
from lib_lora.events import (
    Event,
    Finished,
    HeldOut,
    Lent,
    Note,
    Phase,
    Sampled,
    Saved,
    SavedBetween,
    StateSaved,
    StepDone,
)
from lib_lora.jobs.remaining import Timing, remaining_s, typical_s
from lib_lora.plan import Plan, make_plan
from lib_lora.training.cadence import due_saves, heldout_due, samples_due

BASE = {"name": "x", "resolution": 64, "batch_size": 1, "trigger": "a", "steps": 300}


@dataclass
class Costs:
    """Seconds of each part of a synthetic run; `step` gets the number of the step."""

    step: Callable[[int], float]
    sample: float = 6.0
    validation: float = 2.0
    save: float = 1.5
    card: float = 6.0


def events(settings: dict[str, Any], plan: Plan, costs: Costs) -> Iterator[tuple[float, Event]]:
    """The events of a run, each with what came before it took."""
    config = build_config({**BASE, **settings})
    yield 3.0, Phase("waiting for the model")
    for step in range(plan.steps + 1):
        if step:
            yield costs.step(step), StepDone(step, plan.steps, 1, 0.1, (1e-4,))
            if heldout_due(config.data, plan, step):
                yield costs.validation, HeldOut(step, 0.1)
            for save in due_saves(config.run, plan, step):
                yield 0.0, Phase("saving")
                yield costs.save, SavedBetween(Path(f"x{save.ending}.safetensors"), step)
                if config.run.save_state:
                    yield costs.save / 2, StateSaved(Path("state"), step)
        if samples_due(config.run, plan, step):
            yield 0.0, Phase("generating samples")
            yield costs.sample, Sampled(step, (Path("a.png"),), ("a",))
    yield costs.save, Saved(Path("x.safetensors"), plan.steps)
    yield 0.0, Phase("making the preview and card")
    yield costs.card, Finished(Path("x.safetensors"), plan.steps)


def errors(settings: dict[str, Any], photos: Path, costs: Costs) -> list[float]:
    """The relative error of the time left, as told from a tenth of the steps on until a tenth of the time is left."""
    config = build_config({**BASE, **settings, "data": [str(photos)]})
    plan = make_plan(config, find_images(config))
    timing, now, begun, told = Timing(), 0.0, 0.0, []
    timing.follow(config, plan)
    for seconds, event in events({**settings, "data": [str(photos)]}, plan, costs):
        for part in (0.0, 0.5):  # also in the middle of something
            told.append((now + part * seconds, timing.remaining_s(now + part * seconds)))
        now += seconds
        timing.happened(event, now)
        if isinstance(event, StepDone) and event.step <= plan.steps / 10:
            begun = now
    return [(left or 0.0) / (now - at) - 1 for at, left in told if begun <= at <= 0.9 * now]


def slowly(first: float, step: float, noise: float = 0.05) -> Callable[[int], float]:
    chance = random.Random(3)
    return lambda number: first if number == 1 else step * (1 + noise * chance.uniform(-1, 1))


RUNS: dict[str, tuple[dict[str, Any], Costs]] = {
    "steps alone": ({}, Costs(slowly(20.0, 0.5), card=7)),
    "few steps": ({"steps": 40}, Costs(slowly(4.0, 1.0), card=13, save=1.2)),
    "samples that take longer than the steps": ({"sample_every_n_steps": 10, "sample_at_first": True}, Costs(slowly(9.0, 0.5), sample=20)),
    "all at once": (
        {"sample_every_n_steps": 25, "save_every_n_steps": 20, "save_state": True, "sample_at_first": True,
         "validation_split": 0.3, "validate_every_n_steps": 15},
        Costs(slowly(9.0, 0.8), card=5),
    ),
    "buckets of two sizes": ({}, Costs(lambda number: 0.4 if number % 5 < 3 else 0.9)),
    "hiccups": ({}, Costs(lambda number: 8.0 if number in (12, 40, 77) else 0.6)),
    "slower and slower": ({}, Costs(lambda number: 0.5 if number < 25 else 0.55)),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_from_a_tenth_of_the_run_on_the_time_left_is_right_within_15_percent(name: str, photos: Path) -> None:
    settings, costs = RUNS[name]
    found = errors(settings, photos, costs)
    assert len(found) > 30 and max(map(abs, found)) <= 0.15, (min(found), max(found))


def test_hiccups_and_the_first_step_do_not_count() -> None:
    assert typical_s([50.0, 1.0, 1.0, 1.0, 1.0]) == 1.0
    assert typical_s([1.0, *[1.0] * 98, 1000.0]) == pytest.approx(1.0, rel=0.03)
    assert typical_s([9.0, *[1.0, 2.0] * 20]) == pytest.approx(1.5), "not the median, which is either"


def test_parts_that_were_not_measured_are_worth_steps() -> None:
    assert remaining_s({"step": [2.0]}, {"step": 5}, {}) is None
    assert remaining_s({"step": [2.0, 2.0]}, {"step": 5, "samples": 2, "card": 1}, {"samples": 10.0}) == 10 + 40
    assert remaining_s({"step": [2.0, 2.0], "samples": [7.0]}, {"step": 5, "samples": 2}, {"samples": 10.0}) == 10 + 14


def test_breaks_are_not_measured_and_notes_end_nothing(photos: Path) -> None:
    config = build_config({**BASE, "data": [str(photos)], "preview_steps": 0})
    plan = make_plan(config, find_images(config))
    timing = Timing()
    timing.follow(config, plan)
    now = 0.0
    for step in range(1, 11):
        for seconds, event in ((500.0, Phase("training")), (0.9, Note("small")), (0.1, StepDone(step, 300, 1, 0.1, ()))):
            if isinstance(event, Phase):
                timing.happened(Lent("lent"), now)
            now += seconds
            timing.happened(event, now)
    assert timing.remaining_s(now) == pytest.approx(290 + 1), "and a file"
    assert timing.remaining_s(now + 0.5) == pytest.approx(290.5)
    assert timing.remaining_s(now + 900) == pytest.approx(290), "what is late does not eat what comes"


def test_samples_that_failed_do_not_count_any_more(photos: Path) -> None:
    config = build_config({**BASE, "data": [str(photos)], "sample_every_n_steps": 1, "preview_steps": 0})
    timing = Timing()
    timing.follow(config, make_plan(config, find_images(config)))
    timing.happened(Phase("training"), 0.0)
    left = []
    for step in (1, 2, 3, 4):
        timing.happened(StepDone(step, 300, 1, 0.1, ()), float(step))
        left.append(timing.remaining_s(float(step)))
    assert left[0] is None and left[-1] == pytest.approx(296 + 1)
