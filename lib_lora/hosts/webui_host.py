"""The webui as host: lends its model in place under its queue lock, and restores it bit for bit."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from modules import devices, paths, processing, sd_hijack, sd_models, sd_unet, shared

from lib_lora.errors import ModelAway, ModelError
from lib_lora.families.family import DetectedModel
from lib_lora.families.known import TRAINABLE
from lib_lora.hosts import webui_networks
from lib_lora.hosts.ldm_model import LdmModel, detected_model, family_of
from lib_lora.hosts.restoring import given_back
from lib_lora.hosts.webui_model import WebuiModel, model_info
from lib_lora.hosts.webui_queue import Place
from lib_lora.model.trainable import made_trainable

NO_CHECKPOINT = "No checkpoint is loaded: put a Stable Diffusion model into models/Stable-diffusion and select it."


class WebuiHost:
    """A `Host` inside stable-diffusion-webui v1.10."""

    def __init__(self) -> None:
        self._place = Place()

    def problems(self) -> list[str]:
        found = [_device_problem(), _memory_mode_problem(), _replaced_unet_problem()]
        if not sd_models.checkpoints_list:
            found.append(NO_CHECKPOINT)
        elif sd_models.model_data.sd_model is not None:
            found.append(model_problem(sd_models.model_data.sd_model))
        return [problem for problem in found if problem]

    def detected_model(self) -> DetectedModel | None:
        latent_diffusion = sd_models.model_data.sd_model
        if latent_diffusion is None:
            return None
        family = family_of(latent_diffusion)
        return None if isinstance(family, str) else detected_model(latent_diffusion, family)

    def device(self) -> torch.device:
        return devices.device

    def lora_folder(self) -> Path:
        return Path(getattr(shared.cmd_opts, "lora_dir", Path(paths.models_path) / "Lora"))

    def work_folder(self) -> Path:
        return self.private_folder() / "runs"  # the LoRA panel would list folders below the LoRA folder

    def private_folder(self) -> Path:
        """See `PageHost`."""
        return Path(paths.data_path) / ".train-lora"

    def chosen(self) -> str:
        """See `Checkpoints`. With the webui's short hash, so that a replaced file is another checkpoint."""
        return _checkpoint_text(sd_models.select_checkpoint()) if sd_models.checkpoints_list else ""

    def lent(self) -> str:
        """See `Checkpoints`."""
        model = sd_models.model_data.sd_model
        return "" if model is None else _checkpoint_text(model.sd_checkpoint_info)

    def keeps(self, folder: Path) -> bool:
        return self.private_folder().resolve() in folder.resolve().parents

    def hides_pictures(self) -> bool:
        return True  # see `lib_lora.data.hidden_names`

    @contextmanager
    def borrow_model(self) -> Iterator[WebuiModel]:
        """See `Host`. Waits for the queue lock and holds it until the exit."""
        with given_back() as stack:
            self._place.take(stack)
            _begin(stack)
            latent_diffusion = _current_model()
            _make_clean(latent_diffusion, stack)
            model = WebuiModel(latent_diffusion)
            stack.enter_context(made_trainable(model, model.whole))
            yield model

    def look(self) -> LdmModel | None:
        held = sd_models.model_data.sd_model
        if held is None or model_problem(held):
            return None
        return LdmModel(held, devices.device, model_info(held))

    def someone_waits(self) -> bool:
        return self._place.wanted

    @contextmanager
    def borrow_again(self, base: WebuiModel, *, needs_vae: bool, insist: bool) -> Iterator[None]:
        """See `Host`. Without `insist`, raises `ModelAway` if the webui's settings name another checkpoint."""
        with given_back() as stack:
            self._place.take_again(stack)
            try:
                if not insist:
                    base.require_selected()
                _begin(stack)
                latent_diffusion = _current_model(base.checkpoint)
                if insist:
                    stack.callback(sd_models.reload_model_weights)  # load what the settings name, as the last callback
                _make_clean(latent_diffusion, stack)
            except ModelAway:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the webui meets while it loads a file or reads its list anew
                raise ModelAway(f"The checkpoint {base.checkpoint.name!r} cannot be reloaded ({error}).") from error
            base.hold_again(latent_diffusion, needs_vae=needs_vae)
            stack.enter_context(made_trainable(base, base.whole))
            yield

    def check_lora(self, path: Path) -> None:
        webui_networks.check(path)

    def announce(self, path: Path) -> None:
        webui_networks.announce(path)
        _forget_conditioning()

    def software(self) -> dict[str, Any]:
        return {"webui": "stable-diffusion-webui", "python": platform.python_version(), "torch": torch.__version__}


def _checkpoint_text(info: Any) -> str:
    return f"{info.name} [{info.hash}]"


def model_problem(latent_diffusion: Any) -> str | None:
    """Why the loaded model cannot be trained, or None."""
    family = family_of(latent_diffusion)
    if not isinstance(family, str):
        return None
    title = latent_diffusion.sd_checkpoint_info.name
    return f"The loaded checkpoint {title!r} is {family}; only {TRAINABLE}. Select another checkpoint."


def _device_problem() -> str | None:
    kind = devices.device.type
    if kind in {"cuda", "cpu"}:
        return None
    return f"The webui runs on {kind!r}, which is not supported for training; only CUDA, ROCm and CPU are."


def _memory_mode_problem() -> str | None:
    for name in ("lowvram", "medvram"):
        if getattr(shared.cmd_opts, name, False):
            return _moved_problem(name)
    moved = getattr(sd_models.model_data.sd_model, "lowvram", False)  # without those two flags: --medvram-sdxl
    return _moved_problem("medvram-sdxl") if moved else None


def _moved_problem(flag: str) -> str:
    return f"The webui runs with --{flag}, which moves the model during use; start it without --{flag} to train."


def _replaced_unet_problem() -> str | None:
    """The problem if another extension replaces the U-Net by one that ignores LoRAs (TensorRT), or None."""
    if sd_models.model_data.sd_model is None:  # get_unet_option would load it
        return None
    option = sd_unet.get_unet_option()
    if option is None:
        return None
    return (
        f"The U-Net is replaced by {option.label!r}, on which a LoRA has no effect; set SD Unet to None in the settings to train."
    )


def _begin(stack: ExitStack) -> None:
    """Begin a job in the webui's state, and end it at the exit."""
    stack.callback(_forget_presses)
    stack.callback(shared.state.end)  # registered first, since `begin` may fail half-way
    shared.state.begin(job="train-lora")
    if devices.device.type == "cuda" and devices.device.index is not None:  # without --device-id there is no index
        torch.cuda.set_device(devices.device)  # a new thread starts on device 0 whatever --device-id says


def _forget_presses() -> None:
    """Reset Interrupt and Skip if pressed meanwhile, as `modules.call_queue.wrap_gradio_call` does."""
    shared.state.skipped = shared.state.interrupted = shared.state.stopping_generation = False


def _current_model(checkpoint: Any = None) -> Any:
    """The model of `checkpoint` (default: the one that the webui's settings name), loaded and on its device.

    Raises:
        ModelError: there is none, or it cannot be trained.
    """
    if not sd_models.checkpoints_list:
        raise ModelError(NO_CHECKPOINT)
    if sd_models.model_data.sd_model is not None:
        with sd_models.SkipWritingToConfig():  # the selection stays
            sd_models.reload_model_weights(info=checkpoint)
    latent_diffusion = shared.sd_model
    if latent_diffusion is None:
        raise ModelError("The webui could not load its checkpoint; select another one and try again.")
    problem = model_problem(latent_diffusion)
    if problem:
        raise ModelError(problem)
    if getattr(latent_diffusion, "lowvram", False):
        raise ModelError(_moved_problem("medvram-sdxl"))
    if next(latent_diffusion.model.parameters()).device.type != devices.device.type:
        sd_models.send_model_to_device(latent_diffusion)
    return latent_diffusion


def _make_clean(latent_diffusion: Any, stack: ExitStack) -> None:
    """Remove all patches of prompts and settings from the model; those that no prompt reapplies are restored at the exit."""
    stack.callback(sd_unet.apply_unet)
    sd_unet.apply_unet("None")
    sd_hijack.model_hijack.apply_circular(False)
    sd_hijack.model_hijack.fixes = None
    webui_networks.take_off([latent_diffusion.model, latent_diffusion.cond_stage_model])
    stack.callback(shared.loaded_hypernetworks.extend, list(shared.loaded_hypernetworks))
    shared.loaded_hypernetworks.clear()
    _leave_upcasting(stack)


def _leave_upcasting(stack: ExitStack) -> None:
    """Disable the patches of --upcast-sampling on ldm's classes (modules.sd_hijack_unet) until the exit.

    They cast weights of norms and feed-forwards to fp32 in place, and activations to fp16, whose gradients underflow without a
    loss scaler. Autocast makes them unnecessary.
    """
    if devices.unet_needs_upcast:
        stack.callback(setattr, devices, "unet_needs_upcast", True)
        devices.unet_needs_upcast = False


def _forget_conditioning() -> None:
    """Clear the webui's cached prompt encodings, whose keys do not depend on a LoRA's content."""
    text2img = processing.StableDiffusionProcessingTxt2Img
    for owner, name in (
        (processing.StableDiffusionProcessing, "cached_c"),
        (processing.StableDiffusionProcessing, "cached_uc"),
        (text2img, "cached_hr_c"),
        (text2img, "cached_hr_uc"),
    ):
        setattr(owner, name, [None, None])
