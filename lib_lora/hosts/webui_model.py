"""The webui's model, and the check that it is the same when it is borrowed again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from modules import devices, sd_hijack, sd_models
from torch import nn

from lib_lora.errors import ModelAway
from lib_lora.families.family import Family
from lib_lora.hosts.ldm_model import LdmModel, family_of
from lib_lora.model.base import Embedding, ModelInfo, networks

SAMPLED = 16  # values of each tensor


class WebuiModel(LdmModel):
    """See `LdmModel`. Create it while no LoRA is applied to the model."""

    def __init__(self, latent_diffusion: Any) -> None:
        self.checkpoint = latent_diffusion.sd_checkpoint_info
        super().__init__(
            latent_diffusion,
            devices.device,
            model_info(latent_diffusion),
            _still_held(latent_diffusion),
            _embeddings(len(model_info(latent_diffusion).family.text_encoders)),
        )
        self._weights, self._vae_weights = mark(networks(self)), mark([self.vae])

    def require_selected(self) -> None:
        """Check that our checkpoint is still selected. The caller must hold the queue lock.

        Raises:
            ModelAway: the webui's settings name another checkpoint, or it was unloaded.
        """
        ours, selected = self.checkpoint, sd_models.select_checkpoint()
        if selected.filename != ours.filename:
            raise ModelAway(
                f"The checkpoint {selected.name!r} was selected; the run continues when {ours.name!r} is selected again. Stop "
                "and keep saves the LoRA as it is."
            )
        held = sd_models.model_data.sd_model
        if held is not None and next(held.model.parameters()).device.type != self.device.type:
            raise ModelAway(f"The checkpoint {ours.name!r} was unloaded; the run continues when it is loaded again.")

    def hold_again(self, latent_diffusion: Any, *, needs_vae: bool) -> None:
        """Use the modules that the webui holds now.

        Raises:
            ModelAway: their weights differ from those that were lent first.
        """
        self.hold(latent_diffusion, _still_held(latent_diffusion))
        name = self.checkpoint.name
        if mark(networks(self)) != self._weights:
            raise ModelAway(
                f"The weights of {name!r} have changed; the run continues when they are as before: if you changed FP8 weight, "
                "change it back, then select another checkpoint and this one again."
            )
        if needs_vae and mark([self.vae]) != self._vae_weights:
            raise ModelAway(
                "Another VAE was selected or its precision has changed while images are still being encoded; the run continues "
                "when the first one is back."
            )


def mark(modules: Sequence[nn.Module]) -> str:
    """A hash of a few values of every parameter; the same in all dtypes that hold them exactly."""
    digest = hashlib.sha256()
    with torch.no_grad():
        taken = [_sampled(parameter) for module in modules for parameter in module.parameters()]
        digest.update(torch.cat(taken).cpu().numpy().tobytes())
    return digest.hexdigest()


def _sampled(parameter: torch.Tensor) -> torch.Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLED)].float()


def _still_held(latent_diffusion: Any) -> Any:
    """A check that the webui still holds the model, of the same file: it may load others into the same modules."""
    file = latent_diffusion.sd_checkpoint_info.filename
    return lambda: sd_models.model_data.sd_model is latent_diffusion and latent_diffusion.sd_checkpoint_info.filename == file


def _embeddings(encoders: int) -> tuple[Embedding, ...]:
    """The embeddings in the webui's folder that fit the model, in the order in which it matches them in prompts."""
    database = sd_hijack.model_hijack.embedding_db
    database.load_textual_inversion_embeddings()  # as before each picture; rereads the folder if it changed
    found = [embedding for entries in database.ids_lookup.values() for _, embedding in entries]
    # others fail in prompts, too
    usable = [embedding for embedding in found if isinstance(embedding.vec, dict) == (encoders > 1)]
    return tuple(Embedding(embedding.name, _vectors(embedding.vec)) for embedding in usable)


def _vectors(vec: Any) -> tuple[torch.Tensor, ...]:
    """The vectors for each text encoder; the webui stores those of SDXL by name."""
    return (vec["clip_l"], vec["clip_g"]) if isinstance(vec, dict) else (vec,)


def model_info(latent_diffusion: Any) -> ModelInfo:
    checkpoint, family = latent_diffusion.sd_checkpoint_info, family_of(latent_diffusion)
    assert isinstance(family, Family)  # others were refused
    return ModelInfo(Path(checkpoint.filename).name, checkpoint.hash, checkpoint.sha256, family)
