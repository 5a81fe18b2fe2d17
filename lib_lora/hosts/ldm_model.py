"""A `BaseModel` on the modules that the webui holds, ldm's and sgm's: nothing is loaded, copied or cast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lib_lora.data.merges import with_quick_merges
from lib_lora.data.tokens import Tokenizer, load_tokenizer
from lib_lora.errors import HostChanged
from lib_lora.hosts.ldm_family import embedder, kind_of
from lib_lora.model.attention import fused_attention_forwards
from lib_lora.model.base import ModelInfo, Target, Word, networks
from lib_lora.model.conditioning import Conditioning, TextEncoder, size_vector
from lib_lora.model.family import SDXL
from lib_lora.model.inpainting import Surroundings
from lib_lora.model.lean import lean_forwards
from lib_lora.model.lean_vae import lean_encoder_forwards
from lib_lora.model.open_clip import OpenClipEncoder, open_clip_encoder
from lib_lora.model.surgery import forwards_replaced, frozen, others_aside
from lib_lora.model.targets import ldm_unet_targets, sdxl_unet_targets, text_encoder_targets
from lib_lora.model.text_encoders import ClipEncoder, PenultimateClipEncoder


class LdmModel:
    """The networks inside an ldm `LatentDiffusion` or an sgm `DiffusionEngine`.

    The U-Net is called directly: the host's `apply_model` casts inputs, and its buffers other than ᾱ may be half precision.
    So are the text encoders, since the host's conditioner turns gradients off and reads prompts its own way.
    """

    def __init__(
        self,
        latent_diffusion: Any,
        device: torch.device,
        info: ModelInfo,
        still_held: Callable[[], bool] = lambda: True,
        words: tuple[Word, ...] = (),
    ) -> None:
        self.device = device
        self._info = info
        self.words = words
        self._surroundings = Surroundings(self)
        self.hold(latent_diffusion, still_held)

    def hold(self, latent_diffusion: Any, still_held: Callable[[], bool]) -> None:
        """Stand on these modules from now on: those of the same checkpoint, which the host may have built anew meanwhile."""
        device, info = self.device, self._info
        self.family = replace(info.family, latent_scale=float(latent_diffusion.scale_factor))
        self.kind = kind_of(latent_diffusion, info.family)
        self.unet: nn.Module = latent_diffusion.model.diffusion_model
        self.text_encoders = _readers(latent_diffusion, is_sdxl=info.family.card == SDXL.card)
        self.tokenizer: Tokenizer = _tokenizer(latent_diffusion)
        self.vae: Any = latent_diffusion.first_stage_model
        self.whole = [latent_diffusion.model, latent_diffusion.cond_stage_model, latent_diffusion.first_stage_model]
        original = getattr(latent_diffusion, "alphas_cumprod_original", latent_diffusion.alphas_cumprod)
        self.alphas_cumprod: torch.Tensor = original.detach().float().to(device)
        self._still_held = still_held
        self._sentinels = [next(module.parameters()) for module in networks(self)]

    def verify(self) -> None:
        if not self._still_held():
            raise HostChanged("Another checkpoint was loaded during the training; the LoRA was not saved. Start it again.")
        if any(weight.device.type != self.device.type for weight in self._sentinels):
            raise HostChanged("The checkpoint was unloaded during the training; the LoRA was not saved. Load it and start again.")

    def info(self) -> ModelInfo:
        return self._info

    def targets(self) -> list[Target]:
        found = []
        for encoder, prefix in zip(self.text_encoders, self.family.text_prefixes):
            own = (
                encoder.targets(prefix) if isinstance(encoder, OpenClipEncoder) else text_encoder_targets(encoder.module, prefix)
            )
            found += own
        return found + (sdxl_unet_targets(self.unet) if self.family.card == SDXL.card else ldm_unet_targets(self.unet))

    def predict(self, noisy_latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        vector = size_vector(conditioning)
        told = {} if vector is None else {"y": vector}
        seen = self._surroundings.beside(noisy_latents)
        predicted: torch.Tensor = self.unet(seen, timesteps=timesteps, context=conditioning.context, **told)
        return predicted

    @torch.no_grad()
    def encode_image(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moments = self.vae.quant_conv(self.vae.encoder(pixels.float()))  # sgm's own `encode` gives a sample alone
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = self.vae.decode(latents.float())
        return pixels


@contextmanager
def made_trainable(model: LdmModel) -> Iterator[None]:
    """Frozen, the VAE in fp32, attention, frozen layers and the encoder on kernels made for it; others' patches have no part.

    The exit brings everything back.
    """
    with ExitStack() as stack:
        stack.enter_context(frozen(model.whole))
        stack.enter_context(others_aside([*networks(model), model.vae]))
        stack.enter_context(_in_fp32(model.vae))
        stack.enter_context(forwards_replaced(fused_attention_forwards(model.unet)))
        for encoder in model.text_encoders:
            if isinstance(encoder, OpenClipEncoder):
                stack.enter_context(forwards_replaced(encoder.forwards()))
        stack.enter_context(forwards_replaced(lean_forwards(networks(model), model.device)))
        stack.enter_context(forwards_replaced(lean_encoder_forwards(model.vae, model.device)))
        yield


def _readers(latent_diffusion: Any, *, is_sdxl: bool) -> tuple[TextEncoder, ...]:
    """The text encoders as their family reads them."""
    if is_sdxl:
        first, second = (embedder(wrapper) for wrapper in list(latent_diffusion.conditioner.embedders)[:2])
        return (PenultimateClipEncoder(first.transformer), open_clip_encoder(second.model, pools=True))
    only = embedder(latent_diffusion.cond_stage_model)
    return (ClipEncoder(only.transformer) if hasattr(only, "transformer") else open_clip_encoder(only.model, pools=False),)


def _tokenizer(latent_diffusion: Any) -> Tokenizer:
    """The host's own; open_clip's is of another kind, with the same vocabulary as the one that the extension carries."""
    only = embedder(latent_diffusion.cond_stage_model)
    return with_quick_merges(getattr(only, "tokenizer", None)) or load_tokenizer()


@contextmanager
def _in_fp32(vae: nn.Module) -> Iterator[None]:
    """The VAE computes in fp32 (half precision overflows in some); fp16 and bf16 survive the way there and back exactly."""
    before = next(vae.parameters()).dtype
    try:
        vae.to(torch.float32)  # it may fail half-way
        yield
    finally:
        vae.to(before)
