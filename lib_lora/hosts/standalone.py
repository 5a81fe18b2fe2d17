"""The standalone host: a checkpoint file loaded through diffusers, without network access."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib_lora.data.tokens import Tokenizer, load_tokenizer
from lib_lora.errors import ModelError
from lib_lora.families.family import DetectedModel
from lib_lora.families.noise_process import NoiseProcess
from lib_lora.hosts.checkpoint import Modules, empty_modules, kind_of_file, legacy_hash, load_modules, sha256
from lib_lora.model.adapter import adapters_from_state
from lib_lora.model.base import Embedding, ModelInfo, Target
from lib_lora.model.conditioning import Conditioning, TextEncoder
from lib_lora.model.embeddings import bundled, check_fits, without_bundle
from lib_lora.model.inpainting import Surroundings
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.lora_layers import read_layers
from lib_lora.model.targets import adaptable, text_encoder_targets, unet_targets
from lib_lora.model.text_encoders import text_encoder
from lib_lora.model.trainable import made_trainable


class DiffusersModel:
    """A `BaseModel` on diffusers' modules."""

    def __init__(self, modules: Modules, device: torch.device, checkpoint: Path | None = None) -> None:
        self.device = device
        self.detected, self.family = modules.detected, modules.detected.family
        self.unet: nn.Module = modules.unet.to(device)
        specs = self.family.text_encoders
        self.text_encoders: tuple[TextEncoder, ...] = tuple(
            text_encoder(module.to(device), spec) for module, spec in zip(modules.text_encoders, specs)
        )
        self.vae: Any = modules.vae.to(device)
        self.tokenizer: Tokenizer = load_tokenizer()
        self.embeddings: tuple[Embedding, ...] = ()
        self.noise_process: NoiseProcess = self.family.noise_process().to(device)
        self._checkpoint = checkpoint
        self._surroundings = Surroundings(self)

    def verify(self) -> None:
        """No-op: nobody else uses the model."""

    def info(self) -> ModelInfo:
        if self._checkpoint is None:
            return ModelInfo("unnamed", None, None, self.family)
        return ModelInfo(self._checkpoint.name, legacy_hash(self._checkpoint), sha256(self._checkpoint), self.family)

    def targets(self) -> list[Target]:
        found = []
        for encoder, prefix in zip(self.text_encoders, self.family.text_prefixes):
            found += text_encoder_targets(encoder.module, prefix)
        return found + unet_targets(self.unet, self.family)

    def predict(self, noisy_latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        added = None
        if conditioning.pooled is not None:
            added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.sizes}
        seen = self._surroundings.beside(noisy_latents)
        predicted: torch.Tensor = self.unet(
            seen, timesteps, encoder_hidden_states=conditioning.context, added_cond_kwargs=added, return_dict=False
        )[0]
        return predicted

    @torch.no_grad()
    def encode_image(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = self.vae.encode(pixels.float()).latent_dist
        return posterior.mean, posterior.logvar

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = self.vae.decode(latents.float()).sample
        return pixels


class StandaloneHost:
    """A `Host` for the command line and the tests."""

    def __init__(self, checkpoint: Path, out: Path, device: torch.device | None = None, *, full_precision: bool = False) -> None:
        self._checkpoint = checkpoint
        self._full_precision = full_precision
        self._out = out
        self._device = device or default_device()
        self._model: DiffusersModel | None = None

    def problems(self) -> list[str]:
        try:
            kind_of_file(self._checkpoint)
        except ModelError as error:
            return error.problems
        return []

    def detected_model(self) -> DetectedModel | None:
        return None if self.problems() else kind_of_file(self._checkpoint)

    def device(self) -> torch.device:
        return self._device

    def lora_folder(self) -> Path:
        return self._out

    def work_folder(self) -> Path:
        return self._out / ".train-lora"

    def keeps(self, folder: Path) -> bool:
        del folder  # the command line has no dropped images
        return False

    def hides_pictures(self) -> bool:
        return False  # users of the command line open them there

    @contextmanager
    def borrow_model(self) -> Iterator[DiffusersModel]:
        if self._model is None:
            self._model = DiffusersModel(load_modules(self._checkpoint, self._dtype()), self._device, self._checkpoint)
        model = self._model
        with made_trainable(model):
            yield model

    def someone_waits(self) -> bool:
        """False: nobody else uses the model."""
        return False

    @contextmanager
    def borrow_again(self, base: DiffusersModel, *, needs_vae: bool, insist: bool) -> Iterator[None]:
        with self.borrow_model():
            yield

    def look(self) -> DiffusersModel:
        """The model that `borrow_model` would lend; on the meta device unless it was loaded before.

        Raises:
            ModelError: the file cannot be read, or the model cannot be trained.
        """
        if self._model is not None:
            return self._model
        modules = empty_modules(self._checkpoint)
        for module in (modules.unet, *modules.text_encoders):
            for parameter in module.parameters():
                parameter.data = parameter.data.to(self._dtype())
        return DiffusersModel(modules, torch.device("meta"), self._checkpoint)

    def _dtype(self) -> torch.dtype:
        return torch.float32 if self._full_precision or self._device.type == "cpu" else torch.float16

    def check_lora(self, path: Path) -> None:
        """Check that every key has a layer and every shape fits."""
        assert self._model is not None
        state = read_layers(path, self._model.family).state
        trained = {key: value for key, value in without_bundle(state).items() if not is_further(key.partition(".")[0])}
        adapters_from_state(adaptable(self._model), trained, torch.device("cpu"))
        for word in bundled(state):
            check_fits(word, self._model)

    def announce(self, path: Path) -> None:
        """No-op: there is no list of LoRAs."""

    def software(self) -> dict[str, Any]:
        import diffusers

        return {"python": platform.python_version(), "torch": torch.__version__, "diffusers": diffusers.__version__}


def default_device() -> torch.device:
    """CUDA (or ROCm) if available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
