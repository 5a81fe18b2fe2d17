"""A `BaseModel` on the webui's modules (ldm's and sgm's), without loading, copying or casting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib_lora.data.merges import with_quick_merges
from lib_lora.data.tokens import Tokenizer, load_tokenizer
from lib_lora.errors import HostChanged
from lib_lora.families.ddpm import Ddpm
from lib_lora.families.family import DetectedModel, Family
from lib_lora.families.known import FAMILIES
from lib_lora.families.noise_process import NoiseProcess
from lib_lora.hosts.architecture import V_MARK
from lib_lora.hosts.checkpoint import MARKED, read_shapes
from lib_lora.model.base import Embedding, ModelInfo, Target, networks
from lib_lora.model.conditioning import Conditioning, TextEncoder, size_vector
from lib_lora.model.inpainting import Surroundings
from lib_lora.model.open_clip import OpenClipEncoder, open_clip_encoder
from lib_lora.model.targets import text_encoder_targets, unet_targets
from lib_lora.model.text_encoders import text_encoder


class LdmModel:
    """The networks inside an ldm `LatentDiffusion` or an sgm `DiffusionEngine`.

    The U-Net is called directly: the host's `apply_model` casts inputs, and its buffers other than ᾱ may be half precision.
    The text encoders are called directly, too: the host's conditioner disables gradients and parses prompts.
    """

    def __init__(
        self,
        latent_diffusion: Any,
        device: torch.device,
        info: ModelInfo,
        still_held: Callable[[], bool] = lambda: True,
        embeddings: tuple[Embedding, ...] = (),
    ) -> None:
        self.device = device
        self._info = info
        self.embeddings = embeddings
        self._surroundings = Surroundings(self)
        self.hold(latent_diffusion, still_held)

    def hold(self, latent_diffusion: Any, still_held: Callable[[], bool]) -> None:
        """Use these modules from now on: those of the same checkpoint, which the host may have rebuilt."""
        device, info = self.device, self._info
        self.family = replace(info.family, latent_scale=float(latent_diffusion.scale_factor))
        self.detected = detected_model(latent_diffusion, info.family)
        self.unet: nn.Module = latent_diffusion.model.diffusion_model
        self.text_encoders = _readers(latent_diffusion, info.family)
        self.tokenizer: Tokenizer = _tokenizer(latent_diffusion)
        self.vae: Any = latent_diffusion.first_stage_model
        self.whole = [latent_diffusion.model, latent_diffusion.cond_stage_model, latent_diffusion.first_stage_model]
        original = getattr(latent_diffusion, "alphas_cumprod_original", latent_diffusion.alphas_cumprod)
        self.noise_process: NoiseProcess = Ddpm(original.detach().float().to(device))
        self._still_held = still_held
        self._sentinels = [next(module.parameters()) for module in networks(self)]

    def verify(self) -> None:
        if not self._still_held():
            raise HostChanged("Another checkpoint was loaded during the run; the LoRA was not saved. Start again.")
        if any(weight.device.type != self.device.type for weight in self._sentinels):
            raise HostChanged("The checkpoint was unloaded during the run; the LoRA was not saved. Load it and start again.")

    def info(self) -> ModelInfo:
        return self._info

    def targets(self) -> list[Target]:
        found = []
        for encoder, prefix in zip(self.text_encoders, self.family.text_prefixes):
            own = (
                encoder.targets(prefix) if isinstance(encoder, OpenClipEncoder) else text_encoder_targets(encoder.module, prefix)
            )
            found += own
        return found + unet_targets(self.unet, self.family)

    def predict(self, noisy_latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        vector = size_vector(conditioning)
        told = {} if vector is None else {"y": vector}
        seen = self._surroundings.beside(noisy_latents)
        predicted: torch.Tensor = self.unet(seen, timesteps=timesteps, context=conditioning.context, **told)
        return predicted

    @torch.no_grad()
    def encode_image(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moments = self.vae.quant_conv(self.vae.encoder(pixels.float()))  # sgm's own `encode` returns only a sample
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = self.vae.decode(latents.float())
        return pixels


def _readers(latent_diffusion: Any, family: Family) -> tuple[TextEncoder, ...]:
    """The text encoders, as their family uses them."""
    several = len(family.text_encoders) > 1
    wrappers = list(latent_diffusion.conditioner.embedders) if several else [latent_diffusion.cond_stage_model]
    return tuple(
        text_encoder(held.transformer, spec) if hasattr(held, "transformer") else open_clip_encoder(held.model, pools=spec.pools)
        for held, spec in zip(map(embedder, wrappers), family.text_encoders)
    )


def _tokenizer(latent_diffusion: Any) -> Tokenizer:
    """The host's tokenizer; for open_clip, which has another type, the bundled one with the same vocabulary."""
    only = embedder(latent_diffusion.cond_stage_model)
    return with_quick_merges(getattr(only, "tokenizer", None)) or load_tokenizer()


def family_of(latent_diffusion: Any) -> Family | str:
    """The family; a description if it cannot be trained."""
    refused = _refused(latent_diffusion)
    if refused:
        return refused
    family = next((found for found in FAMILIES if getattr(latent_diffusion, f"is_{found.id}", False)), None)
    if family is None:
        return "of an unknown type"
    channels = latent_diffusion.model.diffusion_model.input_blocks[0][0].weight.shape[1]
    return family.with_channels(channels) or f"{family.name} for editing or depth, with {channels} channels"


def detected_model(latent_diffusion: Any, family: Family) -> DetectedModel:
    """The detected model; `family` is from `family_of`."""
    return DetectedModel(family, "the loaded model", _says_v(latent_diffusion))


def _says_v(latent_diffusion: Any) -> str:
    """Why the model counts as predicting v: its configuration, or the mark of some SDXL files, which the webui ignores."""
    if latent_diffusion.parameterization == "v":
        return "set in its configuration"
    if not getattr(latent_diffusion, "is_sdxl", False):
        return ""
    file = Path(str(latent_diffusion.sd_checkpoint_info.filename))
    marked = file.suffix == ".safetensors" and V_MARK in read_shapes(file)
    return f"{MARKED}; the webui itself needs {file.stem}.yaml for that" if marked else ""


def embedder(wrapper: Any) -> Any:
    """The text encoder inside the webui's wrapper."""
    return getattr(wrapper, "wrapped", wrapper)


def _refused(latent_diffusion: Any) -> str | None:
    if getattr(latent_diffusion, "is_sd3", False):
        return "SD3"
    if getattr(latent_diffusion, "is_ssd", False):
        return "SSD-1B"
    if getattr(latent_diffusion, "is_sdxl", False):
        return None if hasattr(embedder(latent_diffusion.conditioner.embedders[0]), "transformer") else "an SDXL refiner"
    key = getattr(latent_diffusion.model, "conditioning_key", "crossattn")
    if key == "crossattn-adm":
        return "UnCLIP"
    return None if key in ("crossattn", "hybrid") else f"conditioned by {key!r}"
