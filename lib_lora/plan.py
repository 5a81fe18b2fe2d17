"""Configuration + dataset -> plan: buckets, batches and steps of a run, without a model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lib_lora.config.groups import TrainConfig
from lib_lora.config.rules import config_notes
from lib_lora.data.buckets import BucketRule, Placement, place, place_fixed
from lib_lora.data.dataset import Dataset, Sample
from lib_lora.data.folders import Folder, named
from lib_lora.data.hidden_names import given_name
from lib_lora.data.masks import masks_told
from lib_lora.data.order import batches_per_epoch, epoch_batches, held_out, matched_repeats
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError, bounded


@dataclass(frozen=True)
class Batch:
    """Samples of one forward pass. `epoch` counts from 0, `step` from 0 over the whole run.

    `first` is the position of its first sample in the step: with gradient accumulation a step has several batches, and draws
    the same random numbers as one large batch would.
    """

    step: int
    epoch: int
    indices: list[int]
    first: int = 0


@dataclass(frozen=True)
class Plan:
    """The derived numbers of a run.

    `samples` are all samples, including those held out. `buckets` holds the index of every trained sample, once per repeat in
    an epoch. `heldout` are the indices held out for validation. `model` and `layers` are descriptions, empty if the model is not
    known yet. `captions` says how many come from files, `masks` how many images have one, `notes` which folders and settings are
    not used.
    """

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
    heldout: tuple[int, ...] = ()
    layers: str = ""
    model: str = ""
    captions: str = ""
    masks: str = ""
    notes: tuple[str, ...] = ()

    @property
    def trained(self) -> list[int]:
        """Indices of the samples that are trained on, with the regularisation images that are used."""
        return sorted({index for members in self.buckets.values() for index in members})

    @property
    def learned(self) -> list[int]:
        """Indices of the samples that are trained on, without regularisation images."""
        return [index for index in self.trained if not self.samples[index].is_reg]

    def updates(self, seed: int, first: int = 0) -> Iterator[list[Batch]]:
        """The batches of each step, from step `first` on. The last step of an epoch may have fewer batches."""
        step = 0
        for epoch in range(self.epochs):
            batches = epoch_batches(self.buckets, self.batch_size, seed, epoch)
            for start in range(0, len(batches), self.accumulation):
                if step == self.steps:
                    return
                if step >= first:
                    yield _update(step, epoch, batches[start : start + self.accumulation])
                step += 1


def _update(step: int, epoch: int, batches: Sequence[list[int]]) -> list[Batch]:
    firsts = itertools.accumulate((len(indices) for indices in batches), initial=0)
    return [Batch(step, epoch, indices, first) for indices, first in zip(batches, firsts)]


class Length(NamedTuple):
    """How long a run is. A step is `accumulation` batches; `epochs` are begun."""

    batches_per_epoch: int
    steps_per_epoch: int
    epochs: int
    steps: int


def length_of(config: TrainConfig, buckets: Mapping[Size, Sequence[int]]) -> Length:
    """The length of a run. `buckets`: as in `Plan`, not all empty."""
    batches = batches_per_epoch(buckets, config.data.batch_size)
    per_epoch = -(-batches // config.optimizer.gradient_accumulation_steps)
    steps = config.run.steps or per_epoch * config.run.epochs
    return Length(batches, per_epoch, -(-steps // per_epoch), steps)


def planned_length(config: TrainConfig, dataset: Dataset) -> Length:
    """The length that the plan of `dataset` has.

    Raises:
        DatasetError: as `make_plan`.
    """
    shown = _shown(dataset, set(_held_out(config, dataset)))
    return length_of(config, _buckets(_placements(config, dataset), shown))


def make_plan(config: TrainConfig, dataset: Dataset) -> Plan:
    """The plan of a run.

    Raises:
        DatasetError: an image is too small or too long for every bucket.
    """
    placements = _placements(config, dataset)
    heldout = _held_out(config, dataset)
    shown = _shown(dataset, set(heldout))
    buckets = _buckets(placements, shown)
    batches, per_epoch, epochs, steps = length_of(config, buckets)
    return Plan(
        dataset.samples,
        dataset.folders,
        tuple(placements),
        buckets,
        config.data.batch_size,
        config.optimizer.gradient_accumulation_steps,
        batches,
        per_epoch,
        epochs,
        steps,
        _formula(config, _counted(dataset, shown, set(heldout)), len(buckets), batches, per_epoch, steps),
        heldout,
        captions=_captions(dataset),
        masks=masks_told(dataset.samples),
        notes=tuple(bounded([*dataset.notes, *config_notes(config)])),
    )


def _buckets(placements: Sequence[Placement], shown: Sequence[int]) -> dict[Size, tuple[int, ...]]:
    """The index of every sample by bucket, as often as it is shown in an epoch."""
    buckets: dict[Size, list[int]] = {}
    for index, count in enumerate(shown):
        if count:
            buckets.setdefault(placements[index].bucket, []).extend([index] * count)
    return {size: tuple(members) for size, members in sorted(buckets.items())}


def _captions(dataset: Dataset) -> str:
    """How many images have a caption file, and which have none, in words."""
    learned = [sample for sample in dataset.samples if not sample.is_reg]
    without = [given_name(sample.path) for sample in learned if not sample.has_caption_file]
    beside = f", none for {named(without)}" if 0 < len(without) < len(learned) else ""
    return f"{len(learned) - len(without)} of {len(learned)} from files{beside}"


def _placements(config: TrainConfig, dataset: Dataset) -> list[Placement]:
    """The placement of every sample, trained on or held out."""
    placements, problems = [], []
    placed = {size: placement_of(size, config) for size in {sample.size for sample in dataset.samples}}
    for sample in dataset.samples:
        placement = placed[sample.size]
        placements.append(placement)
        if min(placement.bucket) < 64:
            problems.append(
                f"Image {given_name(sample.path)!r} is {sample.size}, too small or too narrow for training; replace or remove it."
            )
    if problems:
        raise DatasetError(problems)
    return placements


def _held_out(config: TrainConfig, dataset: Dataset) -> tuple[int, ...]:
    """Indices of the samples that are held out; regularisation images never are."""
    by_folder: dict[Path, list[int]] = {}
    for index, sample in enumerate(dataset.samples):
        if not sample.is_reg:
            by_folder.setdefault(sample.path.parent, []).append(index)
    folders = list(by_folder.values())
    seed = config.data.validation_seed or config.run.seed
    chosen = held_out([len(folder) for folder in folders], config.data.validation_split, seed)
    return tuple(sorted(folders[folder][image] for folder, image in chosen))


def _shown(dataset: Dataset, heldout: Set[int]) -> list[int]:
    """How often each sample is shown in an epoch."""
    samples = dataset.samples
    shown = [0 if sample.is_reg or index in heldout else sample.repeats for index, sample in enumerate(samples)]
    regularising = [index for index, sample in enumerate(samples) if sample.is_reg]
    if regularising:
        matched = matched_repeats([samples[index].repeats for index in regularising], sum(shown))
        for index, count in zip(regularising, matched):
            shown[index] = count
    return shown


def placement_of(size: Size, config: TrainConfig) -> Placement:
    """The placement of an image of this size: in its bucket, or without buckets in the one size."""
    if config.data.enable_bucket:
        return place(size, bucket_rule(config))
    return place_fixed(size, Size(config.data.height, config.data.resolution))


def bucket_rule(config: TrainConfig) -> BucketRule:
    """The bucket rule from the bucket options."""
    data = config.data
    return BucketRule(Size(data.height, data.resolution), *data.bucket_range, data.bucket_reso_steps, data.bucket_no_upscale)


def _counted(dataset: Dataset, shown: Sequence[int], heldout: Set[int]) -> str:
    """The images of an epoch, in words."""
    learned: list[int] = []
    regularising: list[int] = []
    for index, (sample, count) in enumerate(zip(dataset.samples, shown)):
        if index not in heldout:
            (regularising if sample.is_reg else learned).append(count)
    text = f"{len(learned)} images, {sum(learned)} per epoch with repeats"
    if heldout:
        text += f"; {len(heldout)} more for validation"
    if regularising:
        used = sum(count > 0 for count in regularising)
        of = f" of {len(regularising)}" if used < len(regularising) else ""
        text += f"; plus {used}{of} regularisation images, {sum(regularising)} per epoch"
    return text


def _formula(config: TrainConfig, text: str, buckets: int, batches: int, per_epoch: int, steps: int) -> str:
    """How the number of steps is computed, in one line."""
    size, accumulation = config.data.batch_size, config.optimizer.gradient_accumulation_steps
    rounded = f", rounded up in each of {buckets} buckets" if buckets > 1 and size > 1 else ""
    together = f": {batches} batches; {accumulation} per step" if accumulation > 1 else ""
    text += f"; in batches of {size}{rounded}{together}: {per_epoch} steps per epoch"
    if config.run.steps:
        return f"{text}; stopped at {steps} steps ({steps / per_epoch:.2f} epochs)"
    return f"{text}; × {config.run.epochs} epochs = {steps} steps"
