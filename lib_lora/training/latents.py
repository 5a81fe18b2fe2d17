"""Latents and masks of every batch, encoded once before the first step, or at each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lib_lora.config.groups import TrainConfig
from lib_lora.data.augmentation import PLAIN, drawn_augmentation
from lib_lora.data.buckets import told_sizes
from lib_lora.data.example import Example, load_example
from lib_lora.data.hidden_names import given_name
from lib_lora.data.images import Pixels
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError
from lib_lora.model.base import BaseModel
from lib_lora.plan import Batch, Plan
from lib_lora.training.latent_cache import LatentCache
from lib_lora.training.memory import ENCODING, explained
from lib_lora.training.vae import Posterior, pixels_hash, posteriors


@dataclass(frozen=True)
class LatentBatch:
    """Scaled latents, masks, and SDXL's size conditioning, on the CPU.

    Shapes: latents `[B, C, h, w]`, mask `[B, 1, h, w]` or None, sizes `[B, 6]` int64
    """

    latents: torch.Tensor
    mask: torch.Tensor | None
    sizes: torch.Tensor


class LatentSource:
    """Latents of a plan's images. Random draws are functions of (seed, step, place) or (seed, pixels)."""

    def __init__(self, config: TrainConfig, plan: Plan, base: BaseModel) -> None:
        self._config, self._data, self._seed, self._plan, self._base = config, config.data, config.run.seed, plan, base
        self._kept: dict[tuple[int, bool], LatentBatch] = {}
        on_disk = config.data.cache_latents and config.data.cache_latents_to_disk
        self._cache = LatentCache(base.vae, base.family) if on_disk else None
        self._trained = set(plan.trained)

    @property
    def total(self) -> int:
        """Number of images that are encoded before the first step."""
        return len(self._trained) + len(self._plan.heldout) if self._data.cache_latents else 0

    def encode(self) -> Iterator[int]:
        """Encode the images to cache; yields the number of images done, once per image.

        Raises:
            DatasetError: a file changed since it was checked, or its latents are not finite.
        """
        if not self._data.cache_latents:
            return
        done = 0
        for indices in self._groups():
            self._keep(indices)
            for _ in indices:
                done += 1
                yield done

    def batch(self, batch: Batch) -> LatentBatch:
        """Latents and masks of `batch`, augmented as configured.

        Raises:
            DatasetError: as `encode`, if latents are not cached.
        """
        places = range(batch.first, batch.first + len(batch.indices))
        augmentations = [drawn_augmentation(self._data, self._seed, batch.step, place) for place in places]
        if self._data.cache_latents:
            return _joined(
                [self._kept[index, augmentation.mirrored] for index, augmentation in zip(batch.indices, augmentations)]
            )
        samples, placements = self._plan.samples, self._plan.placements
        examples = [
            load_example(self._data, samples[i], placements[i], augmentation)
            for i, augmentation in zip(batch.indices, augmentations)
        ]
        labels: list[tuple[str | int, ...]] = [("step", batch.step, place) for place in places]
        return _joined(self._latents(batch.indices, examples, labels, [augmentation.mirrored for augmentation in augmentations]))

    def without_augmentation(self, indices: Sequence[int]) -> LatentBatch:
        """Latents and masks of samples of one size without augmentation; always the same."""
        missing = [index for index in indices if (index, False) not in self._kept]
        if missing:
            self._keep(missing)
        return _joined([self._kept[index, False] for index in indices])

    def _groups(self) -> Iterator[list[int]]:
        """The samples to cache, in groups of one size that are encoded together."""
        by_size: dict[Size, list[int]] = {}
        for index in sorted({*self._trained, *self._plan.heldout}):
            by_size.setdefault(self._plan.placements[index].bucket, []).append(index)
        at_once = self._data.vae_batch_size
        for members in by_size.values():
            yield from (members[first : first + at_once] for first in range(0, len(members), at_once))

    def _keep(self, indices: Sequence[int]) -> None:
        """Encode and cache samples of one size, mirrored too if they may be shown so."""
        samples, placements = self._plan.samples, self._plan.placements
        plain = {index: load_example(self._data, samples[index], placements[index], PLAIN) for index in indices}
        mirrored = {}
        if self._data.flip_aug and self._data.cache_latents:
            mirrored = {index: example.mirrored() for index, example in plain.items() if index in self._trained}
        for flipped, examples in ((False, plain), (True, mirrored)):
            labels = [(pixels_hash(example.pixels),) for example in examples.values()]
            for index, shown in zip(
                examples, self._latents(list(examples), list(examples.values()), labels, [flipped] * len(examples))
            ):
                self._kept[index, flipped] = shown

    def _latents(
        self,
        indices: Sequence[int],
        examples: Sequence[Example],
        labels: Sequence[tuple[str | int, ...]],
        mirrored: Sequence[bool],
    ) -> list[LatentBatch]:
        """A posterior sample of every example, a function of (seed, labels). All have one size."""
        found = self._posteriors(indices, [example.pixels for example in examples])
        shown = []
        for index, example, posterior, label, flipped in zip(indices, examples, found, labels, mirrored):
            latents = posterior.sample(self._base.family.latent_scale, self._seed, *label)
            if not bool(torch.isfinite(latents).all()):
                name = given_name(self._plan.samples[index].path)
                raise DatasetError([f"Image {name!r} has latents that are not finite; the VAE cannot encode it; remove it."])
            size, bucket = self._plan.samples[index].size, self._plan.placements[index].bucket
            sizes = torch.tensor([told_sizes(size, bucket, mirrored=flipped)])
            mask = None if example.mask is None else latent_mask(example.mask, self._base.family.vae_factor)[None]
            shown.append(LatentBatch(latents[None], mask, sizes))
        return shown

    def _posteriors(self, indices: Sequence[int], pictures: Sequence[Pixels]) -> list[Posterior]:
        """Posteriors from the disk cache; missing ones are encoded, at most `vae_batch_size` at once, and cached."""
        paths = [self._plan.samples[index].path for index in indices]
        found: dict[int, Posterior] = {}
        for place, (path, pixels) in enumerate(zip(paths, pictures)):
            kept = self._cache.load(path, pixels) if self._cache else None
            if kept is not None:
                found[place] = kept
        missing = [place for place in range(len(pictures)) if place not in found]
        at_once = self._data.vae_batch_size
        for first in range(0, len(missing), at_once):
            places = missing[first : first + at_once]
            self._base.verify()
            with explained(self._base, self._config, f"encoding {given_name(paths[places[0]])!r}", ENCODING):
                encoded = posteriors(self._base, [pictures[place] for place in places])
            for place, posterior in zip(places, encoded):
                found[place] = posterior
                if self._cache and bool(torch.isfinite(posterior.mean).all()):
                    self._cache.keep(paths[place], pictures[place], posterior)
        return [found[place] for place in range(len(pictures))]


def latent_mask(mask: Pixels, factor: int) -> torch.Tensor:
    """The mask averaged over the `factor` · `factor` pixels of each latent (sd-scripts `apply_masked_loss`).

    Shapes:
        `[H, W]` 0..255 -> `[1, h, w]` 0..1
    """
    values = torch.from_numpy(mask.copy()).float()[None, None] / 255.0
    return F.interpolate(values, size=(mask.shape[0] // factor, mask.shape[1] // factor), mode="area")[0]


def _joined(parts: Sequence[LatentBatch]) -> LatentBatch:
    masks = [part.mask for part in parts if part.mask is not None]
    latents, sizes = torch.cat([part.latents for part in parts]), torch.cat([part.sizes for part in parts])
    return LatentBatch(latents, torch.cat(masks) if masks else None, sizes)
