"""Which family a model is that the webui holds, from the webui's own flags and its classes' attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_lora.families.family import DetectedModel, Family
from lib_lora.families.known import FAMILIES
from lib_lora.hosts.architecture import V_MARK
from lib_lora.hosts.checkpoint import MARKED, read_shapes


def family_of(latent_diffusion: Any) -> Family | str:
    """The family; in words where it is none that can be trained."""
    refused = _refused(latent_diffusion)
    if refused:
        return refused
    family = next((found for found in FAMILIES if getattr(latent_diffusion, f"is_{found.id}", False)), None)
    if family is None:
        return "of an unknown type"
    channels = latent_diffusion.model.diffusion_model.input_blocks[0][0].weight.shape[1]
    return family.with_channels(channels) or f"{family.name} for editing or depth, with {channels} channels"


def detected_model(latent_diffusion: Any, family: Family) -> DetectedModel:
    """What the model is; `family` as `family_of` says."""
    return DetectedModel(family, "the loaded model", _says_v(latent_diffusion))


def _says_v(latent_diffusion: Any) -> str:
    """What says that the model predicts v: the webui's configuration, or the mark of some SDXL files, which it does not read."""
    if latent_diffusion.parameterization == "v":
        return "set in its configuration"
    if not getattr(latent_diffusion, "is_sdxl", False):
        return ""
    file = Path(str(latent_diffusion.sd_checkpoint_info.filename))
    marked = file.suffix == ".safetensors" and V_MARK in read_shapes(file)
    return f"{MARKED}; the webui itself needs {file.stem}.yaml for that" if marked else ""


def embedder(wrapper: Any) -> Any:
    """The text encoder inside what the webui wraps around it."""
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
