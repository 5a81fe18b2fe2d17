"""The webui as host: borrows the model it holds, in place, under its queue lock, and gives it back bit for bit."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from modules import call_queue, devices, paths, processing, sd_hijack, sd_models, sd_unet, shared

from lib_lora.errors import ModelError
from lib_lora.hosts import webui_networks
from lib_lora.hosts.ldm_family import family_of
from lib_lora.hosts.ldm_model import LdmModel, made_trainable
from lib_lora.model.base import ModelInfo
from lib_lora.model.family import Family


class WebuiHost:
    """A `Host` inside stable-diffusion-webui v1.10."""

    def problems(self) -> list[str]:
        found = [_device_problem(), _memory_mode_problem()]
        if not sd_models.checkpoints_list:
            found.append("No checkpoint is loaded: put a Stable Diffusion model into models/Stable-diffusion and select it.")
        elif sd_models.model_data.sd_model is not None:
            found.append(model_problem(sd_models.model_data.sd_model))
        return [problem for problem in found if problem]

    def device(self) -> torch.device:
        return devices.device

    def lora_folder(self) -> Path:
        return Path(getattr(shared.cmd_opts, "lora_dir", Path(paths.models_path) / "Lora"))

    def work_folder(self) -> Path:
        return Path(paths.data_path) / ".train-lora" / "runs"  # the LoRA panel would list folders below the LoRA folder

    @contextmanager
    def borrow_model(self) -> Iterator[LdmModel]:
        """See `Host`. Waits for the queue lock; the whole run holds it."""
        with ExitStack() as stack:
            call_queue.queue_lock.acquire()
            stack.callback(call_queue.queue_lock.release)
            shared.state.begin(job="train-lora")
            stack.callback(shared.state.end)
            if devices.device.type == "cuda":
                torch.cuda.set_device(devices.device)  # a new thread starts on device 0 whatever --device-id says
            latent_diffusion = _current_model()
            _make_clean(latent_diffusion, stack)
            model = LdmModel(
                latent_diffusion,
                devices.device,
                _info(latent_diffusion),
                still_held=lambda: sd_models.model_data.sd_model is latent_diffusion,
            )
            stack.enter_context(made_trainable(model))
            yield model

    def look(self) -> LdmModel | None:
        held = sd_models.model_data.sd_model
        if held is None or model_problem(held):
            return None
        return LdmModel(held, devices.device, _info(held))

    def check_lora(self, path: Path) -> None:
        webui_networks.check(path)

    def announce(self, path: Path) -> None:
        webui_networks.announce(path)
        _forget_conditioning()

    def software(self) -> dict[str, Any]:
        return {"webui": "stable-diffusion-webui", "python": platform.python_version(), "torch": torch.__version__}


def model_problem(latent_diffusion: Any) -> str | None:
    """The sentence that says why the loaded model cannot be trained, or None."""
    family = family_of(latent_diffusion)
    if not isinstance(family, str):
        return None
    title = latent_diffusion.sd_checkpoint_info.name
    return (
        f"The loaded checkpoint {title!r} is {family}; only SD 1.x, SD 2.x, SDXL and their inpainting models can be trained. "
        "Select another checkpoint."
    )


def _device_problem() -> str | None:
    kind = devices.device.type
    if kind in {"cuda", "cpu"}:
        return None
    return f"The webui computes on {kind!r}, which is not supported for training; only CUDA, ROCm and CPU are."


def _memory_mode_problem() -> str | None:
    for name in ("lowvram", "medvram"):
        if getattr(shared.cmd_opts, name, False):
            return (
                f"The webui runs with --{name}, which moves the model away while it is used; start it without --{name} to train."
            )
    return None


def _current_model() -> Any:
    """The model that the webui's settings name, loaded and on its device.

    Raises:
        ModelError: there is none, or it cannot be trained.
    """
    if not sd_models.checkpoints_list:
        raise ModelError("No checkpoint is loaded: put a Stable Diffusion model into models/Stable-diffusion and select it.")
    if sd_models.model_data.sd_model is not None:
        sd_models.reload_model_weights()
    latent_diffusion = shared.sd_model
    if latent_diffusion is None:
        raise ModelError("The webui could not load its checkpoint; select another one and try again.")
    problem = model_problem(latent_diffusion)
    if problem:
        raise ModelError(problem)
    if getattr(latent_diffusion, "lowvram", False):
        raise ModelError("The loaded model is moved between devices while it is used (lowvram or medvram); it cannot be trained.")
    if next(latent_diffusion.model.parameters()).device.type != devices.device.type:
        sd_models.send_model_to_device(latent_diffusion)
    return latent_diffusion


def _make_clean(latent_diffusion: Any, stack: ExitStack) -> None:
    """Take off all that prompts and settings hang on the model; what no prompt brings back is put back at the exit."""
    sd_unet.apply_unet("None")
    stack.callback(sd_unet.apply_unet)
    sd_hijack.model_hijack.apply_circular(False)
    sd_hijack.model_hijack.fixes = None
    webui_networks.take_off([latent_diffusion.model, latent_diffusion.cond_stage_model])
    hypernetworks = list(shared.loaded_hypernetworks)
    shared.loaded_hypernetworks.clear()
    stack.callback(shared.loaded_hypernetworks.extend, hypernetworks)


def _info(latent_diffusion: Any) -> ModelInfo:
    checkpoint, family = latent_diffusion.sd_checkpoint_info, family_of(latent_diffusion)
    assert isinstance(family, Family)  # others were refused
    return ModelInfo(Path(checkpoint.filename).name, checkpoint.hash, checkpoint.sha256, family)


def _forget_conditioning() -> None:
    """The webui keeps a prompt's encoding, keyed without the LoRA's content."""
    text2img = processing.StableDiffusionProcessingTxt2Img
    for owner, name in (
        (processing.StableDiffusionProcessing, "cached_c"),
        (processing.StableDiffusionProcessing, "cached_uc"),
        (text2img, "cached_hr_c"),
        (text2img, "cached_hr_uc"),
    ):
        setattr(owner, name, [None, None])
