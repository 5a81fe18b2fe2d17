"""One augmented image: pixels and mask, scaled, cropped, recoloured and mirrored together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib_lora.config.data import DataConfig
from lib_lora.data.augmentation import Augmentation, with_colours
from lib_lora.data.buckets import Placement
from lib_lora.data.dataset import Sample
from lib_lora.data.hidden_names import given_name
from lib_lora.data.image_files import file_content
from lib_lora.data.images import Pixels, fit, load_alpha, load_pixels
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError


@dataclass(frozen=True)
class Example:
    """Pixels `[H, W, 3]` and mask `[H, W]` (or None) of an image; values 0 to 255, H and W of the bucket."""

    pixels: Pixels
    mask: Pixels | None

    def mirrored(self) -> Example:
        """The example with left and right exchanged."""
        mask = None if self.mask is None else np.ascontiguousarray(self.mask[:, ::-1])
        return Example(np.ascontiguousarray(self.pixels[:, ::-1]), mask)


def load_example(data: DataConfig, sample: Sample, placement: Placement, augmentation: Augmentation) -> Example:
    """The image of `sample` with `augmentation`.

    Raises:
        DatasetError: a file cannot be read, or has changed since it was checked.
    """
    content = file_content(sample.path)
    pixels = _unchanged(data, sample.path, content, sample.sha256, load_pixels(sample.path, content), sample.file_size)
    mask = _mask(data, sample, content)

    def fitted(values: Pixels) -> Pixels:
        part, cut = _part(values, sample), augmentation.cut or sample.cut
        return np.ascontiguousarray(fit(part, placement, data.resize_interpolation, cut))

    shown = Example(with_colours(fitted(pixels), augmentation), None if mask is None else fitted(mask))
    return shown.mirrored() if augmentation.mirrored else shown


def _part(pixels: Pixels, sample: Sample) -> Pixels:
    """The part of an image, `[height, width, …]`, that is used."""
    crop = sample.crop
    return pixels if crop is None else pixels[crop.top : crop.bottom, crop.left : crop.right]


def _mask(data: DataConfig, sample: Sample, content: bytes) -> Pixels | None:
    """The mask of the whole image, `[height, width]`; None without masks. `content`: of the image file."""
    if data.alpha_mask:
        return load_alpha(sample.path, content)
    if not data.masked_loss:
        return None
    if sample.mask is None:
        return np.full(sample.file_size, 255, dtype=np.uint8)
    content = file_content(sample.mask)
    pixels = _unchanged(data, sample.mask, content, sample.mask_sha256, load_pixels(sample.mask, content), sample.file_size)
    return np.ascontiguousarray(pixels[..., 0])  # red, as sd-scripts


def _unchanged(data: DataConfig, path: Path, content: bytes, sha256: str, pixels: Pixels, size: Size) -> Pixels:
    """`pixels`, if the file has not changed since it was checked.

    With cached latents the content must be the same, since a state records its hash; else only the size.
    """
    changed = data.cache_latents and bool(sha256) and hashlib.sha256(content).hexdigest() != sha256
    if changed or pixels.shape[:2] != size:
        raise DatasetError([f"Image {given_name(path)!r} has changed since it was checked; start again."])
    return pixels
