"""The planned number of steps equals the executed one, whatever the settings."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_lora.config.groups import build_config
from lib_lora.data.dataset import Dataset, Sample
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError
from lib_lora.plan import Plan, make_plan

sizes = st.sampled_from([Size(64, 64), Size(300, 451), Size(1000, 400), Size(400, 1000), Size(512, 512)])


def plan_of(pictures: list[tuple[Size, int]], **flat: object) -> Plan:
    samples = tuple(Sample(Path(f"{i}.png"), "x", repeats, size, False) for i, (size, repeats) in enumerate(pictures))
    return make_plan(build_config({"resolution": 256, **flat}), Dataset(samples, (), (), ()))


@settings(max_examples=60, deadline=None)
@given(
    pictures=st.lists(st.tuples(sizes, st.integers(1, 9)), min_size=1, max_size=9),
    batch_size=st.integers(1, 5), together=st.integers(1, 4), epochs=st.integers(1, 4), steps=st.integers(0, 60),
    bucket=st.booleans(), seed=st.integers(0, 9),
)  # fmt: skip
def test_steps(
    pictures: list[tuple[Size, int]], batch_size: int, together: int, epochs: int, steps: int, bucket: bool, seed: int
) -> None:
    plan = plan_of(pictures, batch_size=batch_size, epochs=epochs, steps=steps, enable_bucket=bucket,
                   gradient_accumulation_steps=together)  # fmt: skip
    updates = list(plan.updates(seed))
    assert len(updates) == plan.steps == (steps or plan.steps_per_epoch * epochs)
    assert [update[0].step for update in updates] == list(range(plan.steps))
    assert list(plan.updates(seed, 3)) == updates[3:]
    members = Counter(plan.placements[i].bucket for i, (_, repeats) in enumerate(pictures) for _ in range(repeats))
    assert plan.batches_per_epoch == sum(math.ceil(count / batch_size) for count in members.values())
    assert plan.steps_per_epoch == math.ceil(plan.batches_per_epoch / together)
    for update in updates:
        assert 1 <= len(update) <= together and len({(batch.step, batch.epoch) for batch in update}) == 1
        places = [batch.first + i for batch in update for i in range(len(batch.indices))]
        assert places == list(range(len(places)))
    for batch in (batch for update in updates for batch in update):
        assert len({plan.placements[i].bucket for i in batch.indices}) == 1 and len(batch.indices) <= batch_size
    if not steps:
        seen = Counter(i for update in updates for batch in update for i in batch.indices)
        assert seen == {i: repeats * epochs for i, (_, repeats) in enumerate(pictures)}


def test_order_is_a_function_of_seed_and_epoch() -> None:
    pictures = [(Size(512, 512), 5)] * 6

    def order(seed: int, **flat: object) -> list[list[int]]:
        return [batch.indices for update in plan_of(pictures, **flat).updates(seed) for batch in update]

    assert order(1, epochs=2) == order(1, epochs=5, steps=60)
    assert order(1, epochs=2)[:30] != order(1, epochs=2)[30:] and order(1, epochs=2) != order(2, epochs=2)


def test_formula_in_words() -> None:
    plan = plan_of([(Size(512, 512), 5), (Size(300, 451), 5), (Size(400, 1000), 4)], batch_size=2, epochs=3, min_bucket_reso=64)
    assert plan.formula == (
        "3 images, 14 per epoch with repeats; in batches of 2, rounded up in each of 3 buckets: 8 steps per epoch; × 3 epochs = 24 steps"
    )
    assert (
        "in batches of 1: 8 batches; 3 per step: 3 steps per epoch"
        in plan_of([(Size(512, 512), 8)], gradient_accumulation_steps=3).formula
    )
    assert "stopped at 6 steps (0.75 epochs)" in plan_of([(Size(512, 512), 8)], steps=6).formula


def test_too_narrow_images_are_named() -> None:
    with pytest.raises(DatasetError, match="'0.png' is 900x20, too small or too narrow"):
        plan_of([(Size(20, 900), 1)], bucket_no_upscale=True)
    for size, resolution in ((Size(90, 500), 64), (Size(90, 900), 128), (Size(3000, 100), 256)):
        with pytest.raises(DatasetError, match="too small or too narrow"):
            plan_of([(size, 1)], bucket_no_upscale=True, resolution=resolution, min_bucket_reso=64)
