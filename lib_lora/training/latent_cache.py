"""Disk cache of posteriors, in a hidden folder beside the images, so that the next run need not encode them.

A file's name is a hash of the final pixels and the encoder's weights, so it never matches another image, size, crop, mirror image
or VAE. The file contains mean and logvar, which do not depend on the seed.
"""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from lib_lora.data.images import Pixels
from lib_lora.errors import TrainLoraError
from lib_lora.families.family import Family
from lib_lora.files.atomic import write_atomically
from lib_lora.training.vae import Posterior, pixels_hash

FOLDER = ".train-lora-latents"
_DECODING = ("decoder.", "post_quant_conv.")


class LatentCacheError(TrainLoraError):
    """Latents cannot be cached on disk."""


class LatentCache:
    """Loads and stores posteriors of one VAE."""

    def __init__(self, vae: nn.Module, family: Family) -> None:
        self._family = family
        self._vae = encoder_fingerprint(vae)

    def load(self, image: Path, pixels: Pixels) -> Posterior | None:
        """The cached posterior of these pixels; None if there is none, or the file is damaged or not ours."""
        key = self._key(pixels)
        path = _path(image, key)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                posterior = Posterior(file.get_tensor("mean"), file.get_tensor("logvar"))
        except (OSError, SafetensorError, AttributeError):  # AttributeError: a dtype that this torch lacks
            return None
        wanted = self._family.latent_shape(*pixels.shape[:2])
        fits = all(part.dtype == torch.float32 and tuple(part.shape) == wanted for part in (posterior.mean, posterior.logvar))
        return posterior if fits and metadata == _metadata(key, posterior) else None

    def keep(self, image: Path, pixels: Pixels, posterior: Posterior) -> None:
        """Cache `posterior` for these pixels of `image`.

        Raises:
            LatentCacheError: the file cannot be written.
        """
        key = self._key(pixels)
        tensors = {"mean": posterior.mean.contiguous(), "logvar": posterior.logvar.contiguous()}
        try:
            if (image.parent / FOLDER).is_symlink():  # created since the check
                raise OSError(errno.ELOOP, "it is a link")
            write_atomically(_path(image, key), save(tensors, _metadata(key, posterior)))
        except OSError as error:
            raise LatentCacheError(
                f"Cache latents to disk (cache_latents_to_disk): {str(image.parent / FOLDER)!r} cannot be written to "
                f"({error.strerror}); free space or check permissions, or turn it off."
            ) from error

    def _key(self, pixels: Pixels) -> str:
        return hashlib.sha256(f"{self._vae}/{pixels.shape}/{pixels_hash(pixels)}".encode()).hexdigest()


def encoder_fingerprint(vae: nn.Module) -> str:
    """SHA-256 of the encoder's weights; VAEs that differ only in the decoder have the same fingerprint."""
    digest = hashlib.sha256()
    for name, weight in vae.named_parameters():
        if not name.startswith(_DECODING):
            digest.update(f"{name}/{tuple(weight.shape)}/".encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def is_ours(path: Path) -> bool:
    """Whether a file was written by `LatentCache.keep`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return False
    return metadata.keys() == {"made_from", "sha256"} and path.stem == metadata["made_from"][:32]


def _path(image: Path, key: str) -> Path:
    return image.parent / FOLDER / f"{key[:32]}.safetensors"


def _metadata(key: str, posterior: Posterior) -> dict[str, str]:
    """Metadata that identify an undamaged file of ours."""
    content = hashlib.sha256(posterior.mean.numpy().tobytes() + posterior.logvar.numpy().tobytes())
    return {"made_from": key, "sha256": content.hexdigest()}
