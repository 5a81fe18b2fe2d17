"""The curve of a run as the page gets it: few points, every peak, and only what is new."""

from __future__ import annotations

import itertools
import json
import math
import random
import time

import pytest

from lib_lora.jobs.curve import KEPT, MOST, Bucket, Curve


def curve_of(losses: list[float], norms: list[float] | None = None) -> Curve:
    curve = Curve()
    for step, loss in enumerate(losses, 1):
        curve.add(step, loss, step / 2, (1e-4, 5e-5 / step), norms[step - 1] if norms else None)
    return curve


@pytest.mark.parametrize("count", [1, 2, 299, 300, 301, 599, 600, 601, 4_999, 100_000])
def test_few_points_hold_every_step_and_every_peak(count: int) -> None:
    """Each step belongs to one bucket, which has the lowest and the highest of its steps."""
    losses = [random.Random(count).gauss(0.1, 0.02) for _ in range(count)]
    losses[count // 3] = 9.0
    losses[count // 2 - 1] = -9.0
    curve = curve_of(losses)
    assert len(curve.buckets) <= MOST and 2 * len(curve.buckets) <= 600
    firsts = [bucket.first for bucket in curve.buckets] + [count + 1]
    assert firsts[0] == 1 and count <= len(curve.buckets) * curve.stride
    for bucket, (first, after) in zip(curve.buckets, itertools.pairwise(firsts)):
        steps = range(first, after)
        assert 0 < len(steps) <= curve.stride
        low, high = (choose(steps, key=lambda step: losses[step - 1]) for choose in (min, max))
        assert (bucket.low_step, bucket.low, bucket.high_step, bucket.high) == (low, losses[low - 1], high, losses[high - 1])
        assert bucket.seconds == (after - 1) / 2 and bucket.high_rate == 1e-4
    if count > 2:
        assert (
            max(bucket.high or 0 for bucket in curve.buckets) == 9.0 and min(bucket.low or 0 for bucket in curve.buckets) == -9.0
        )


def test_the_smoothed_loss_is_the_exponential_mean_without_the_pull_of_its_start() -> None:
    numpy = pytest.importorskip("numpy")
    losses = list(numpy.random.default_rng(0).normal(0.1, 0.02, 50))
    for count in (1, 2, 50):
        weights = KEPT ** numpy.arange(count)[::-1]
        assert curve_of(losses[:count]).buckets[-1].mean == pytest.approx(numpy.average(losses[:count], weights=weights))


def test_what_is_not_a_number_is_left_out() -> None:
    buckets = curve_of([math.nan, 0.5, math.inf], [math.inf, 2.0, math.nan]).buckets
    assert [(bucket.low, bucket.high, bucket.norm) for bucket in buckets] == [
        (None, None, None),
        (0.5, 0.5, 2.0),
        (None, None, None),
    ]
    assert [bucket.mean for bucket in buckets] == [None, 0.5, 0.5]
    mixed = curve_of([0.3, math.nan] * MOST, [1.0, 4.0] * MOST).buckets
    assert {(bucket.low, bucket.high, bucket.norm) for bucket in mixed} == {(0.3, 0.3, 4.0)}
    json.dumps(curve_of([math.nan] * 700).since(1, 0), allow_nan=False)


def test_a_page_that_asks_at_any_times_has_the_curve_of_one_that_asks_once() -> None:
    """It asks for its last bucket again, which may not have been complete."""
    curve, chance = Curve(), random.Random(1)
    stride, had = 0, []
    for step in range(1, 5_000):
        curve.add(step, chance.random(), float(step))
        if chance.random() < 0.05:
            told = curve.since(stride, max(0, len(had) - 1))
            stride, had = told["stride"], [*had[: told["first"]], *told["buckets"]]
            assert had == [list(bucket) for bucket in curve.buckets]
    assert curve.stride > 1
    fresh = curve.since(curve.stride, len(curve.buckets) - 1)
    assert len(fresh["buckets"]) == 1 and Bucket(*fresh["buckets"][0]) == curve.buckets[-1]
    assert curve.since(curve.stride, 10**9)["buckets"] == [] and len(curve.since(0, 5)["buckets"]) == len(curve.buckets)


def test_a_long_run_is_told_as_quickly_as_a_short_one() -> None:
    took = {}
    for count in (100, 100_000):
        curve = curve_of([0.5] * count)
        start = time.perf_counter()
        for _ in range(20):
            sent = json.dumps(curve.since(0, 0))
        took[count] = (time.perf_counter() - start) / 20
        assert len(sent) < 60_000
    assert took[100_000] < 0.05
