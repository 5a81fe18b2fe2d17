"""Configuration + dataset -> plan: what will happen, in exact numbers, before any model is touched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lib_lora.config.groups import TrainConfig
from lib_lora.data.buckets import BucketRule, Placement, place, place_fixed
from lib_lora.data.dataset import Dataset, Folder, Sample
from lib_lora.data.order import batches_per_epoch, epoch_batches
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError


@dataclass(frozen=True)
class Batch:
    """Samples that go through the model together. `epoch` counts from 0, `step` from 0 over the whole run.

    `first` is the place of its first sample in the step: with gradient accumulation a step has several batches, and draws the
    same numbers as one large batch would.
    """

    step: int
    epoch: int
    indices: list[int]
    first: int = 0


@dataclass(frozen=True)
class Plan:
    """Derived numbers of a run. `buckets` holds every sample's index once per repeat."""

    samples: tuple[Sample, ...]
    folders: tuple[Folder, ...]
    placements: tuple[Placement, ...]
    buckets: dict[Size, tuple[int, ...]]
    batch_size: int
    accumulation: int
    batches_per_epoch: int
    steps_per_epoch: int
    epochs: int
    steps: int
    formula: str

    def updates(self, seed: int) -> Iterator[list[Batch]]:
        """The batches of every step, in order; exactly `steps` of them. The last step of an epoch may have fewer batches."""
        step = 0
        for epoch in range(self.epochs):
            batches = epoch_batches(self.buckets, self.batch_size, seed, epoch)
            for start in range(0, len(batches), self.accumulation):
                if step == self.steps:
                    return
                yield _update(step, epoch, batches[start : start + self.accumulation])
                step += 1


def _update(step: int, epoch: int, batches: Sequence[list[int]]) -> list[Batch]:
    firsts = itertools.accumulate((len(indices) for indices in batches), initial=0)
    return [Batch(step, epoch, indices, first) for indices, first in zip(batches, firsts)]


def make_plan(config: TrainConfig, dataset: Dataset) -> Plan:
    """The plan of a run.

    Raises:
        DatasetError: an image is too small or too long for every bucket.
    """
    rule = bucket_rule(config)
    placements, problems = [], []
    for sample in dataset.samples:
        fixed = not config.data.enable_bucket
        placement = place_fixed(sample.size, rule.max_size) if fixed else place(sample.size, rule)
        placements.append(placement)
        if min(placement.bucket) < 64:
            problems.append(
                f"Image {sample.path.name!r} is {sample.size}, too small or too narrow to train on; replace or remove it."
            )
    if problems:
        raise DatasetError(problems)
    buckets: dict[Size, list[int]] = {}
    for index, (sample, placement) in enumerate(zip(dataset.samples, placements)):
        buckets.setdefault(placement.bucket, []).extend([index] * sample.repeats)
    frozen = {size: tuple(members) for size, members in sorted(buckets.items())}
    batches = batches_per_epoch(frozen, config.data.batch_size)
    accumulation = config.optimizer.gradient_accumulation_steps
    per_epoch = -(-batches // accumulation)
    steps = config.run.steps or per_epoch * config.run.epochs
    epochs = -(-steps // per_epoch)
    return Plan(
        dataset.samples,
        dataset.folders,
        tuple(placements),
        frozen,
        config.data.batch_size,
        accumulation,
        batches,
        per_epoch,
        epochs,
        steps,
        _formula(config, dataset, frozen, batches, per_epoch, steps),
    )


def bucket_rule(config: TrainConfig) -> BucketRule:
    """The bucket options as the bucket room wants them."""
    data = config.data
    return BucketRule(
        Size(data.resolution, data.resolution),
        data.min_bucket_reso,
        data.max_bucket_reso,
        data.bucket_reso_steps,
        data.bucket_no_upscale,
    )


def _formula(
    config: TrainConfig, dataset: Dataset, buckets: dict[Size, tuple[int, ...]], batches: int, per_epoch: int, steps: int
) -> str:
    """Where the number of steps comes from, in one line."""
    shown = sum(sample.repeats for sample in dataset.samples)
    text = f"{len(dataset.samples)} images, {shown} per epoch with repeats"
    size, accumulation = config.data.batch_size, config.optimizer.gradient_accumulation_steps
    rounded = f", rounded up in each of {len(buckets)} buckets" if len(buckets) > 1 and size > 1 else ""
    together = f": {batches} batches; {accumulation} of them a step" if accumulation > 1 else ""
    text += f"; in batches of {size}{rounded}{together}: {per_epoch} steps per epoch"
    if config.run.steps:
        return f"{text}; stopped at {steps} steps ({steps / per_epoch:.2f} epochs)"
    return f"{text}; × {config.run.epochs} epochs = {steps} steps"
