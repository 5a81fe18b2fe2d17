"""A `BaseModel` on ldm's modules, as the webui holds them: nothing is loaded, copied or cast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from lib_lora.data.tokens import Tokenizer
from lib_lora.errors import HostChanged
from lib_lora.model.attention import fused_attention_forwards
from lib_lora.model.base import ModelInfo, Target
from lib_lora.model.lean import lean_forwards
from lib_lora.model.surgery import forwards_replaced, frozen
from lib_lora.model.targets import ldm_unet_targets, text_encoder_targets


class LdmModel:
    """The networks inside an ldm `LatentDiffusion`.

    The U-Net is called directly: the host's `apply_model` casts inputs, and its buffers other than ᾱ may be half precision.
    """

    def __init__(
        self, latent_diffusion: Any, device: torch.device, info: ModelInfo, still_held: Callable[[], bool] = lambda: True
    ) -> None:
        conditioner = latent_diffusion.cond_stage_model
        wrapped = getattr(conditioner, "wrapped", conditioner)
        self.device = device
        self.unet: nn.Module = latent_diffusion.model.diffusion_model
        self.text_encoder: nn.Module = wrapped.transformer
        self.tokenizer: Tokenizer = wrapped.tokenizer
        self.vae: Any = latent_diffusion.first_stage_model
        original = getattr(latent_diffusion, "alphas_cumprod_original", latent_diffusion.alphas_cumprod)
        self.alphas_cumprod: torch.Tensor = original.detach().float().to(device)
        self.latent_scale = float(latent_diffusion.scale_factor)
        self._info = info
        self._still_held = still_held
        self._sentinels = [next(module.parameters()) for module in (self.unet, self.text_encoder)]

    def verify(self) -> None:
        if not self._still_held():
            raise HostChanged("Another checkpoint was loaded during the training; the LoRA was not saved. Start it again.")
        if any(weight.device.type != self.device.type for weight in self._sentinels):
            raise HostChanged("The checkpoint was unloaded during the training; the LoRA was not saved. Load it and start again.")

    def info(self) -> ModelInfo:
        return self._info

    def targets(self) -> list[Target]:
        return text_encoder_targets(self.text_encoder) + ldm_unet_targets(self.unet)

    def predict(self, noisy_latents: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        predicted: torch.Tensor = self.unet(noisy_latents, timesteps=timesteps, context=context)
        return predicted

    @torch.no_grad()
    def encode_image(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = self.vae.encode(pixels.float())
        return posterior.mean, posterior.logvar

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = self.vae.decode(latents.float())
        return pixels


@contextmanager
def made_trainable(latent_diffusion: Any) -> Iterator[None]:
    """Frozen, the VAE in fp32, attention and frozen layers on kernels made for training; the exit brings everything back."""
    unet, text_encoder = latent_diffusion.model.diffusion_model, latent_diffusion.cond_stage_model
    device = next(unet.parameters()).device
    with ExitStack() as stack:
        stack.enter_context(
            frozen([latent_diffusion.model, latent_diffusion.cond_stage_model, latent_diffusion.first_stage_model])
        )
        stack.enter_context(_in_fp32(latent_diffusion.first_stage_model))
        stack.enter_context(forwards_replaced(fused_attention_forwards(unet)))
        stack.enter_context(forwards_replaced(lean_forwards([unet, text_encoder], device)))
        yield


@contextmanager
def _in_fp32(vae: nn.Module) -> Iterator[None]:
    """The VAE computes in fp32 (half precision overflows in some); fp16 and bf16 survive the way there and back exactly."""
    before = next(vae.parameters()).dtype
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(before)
