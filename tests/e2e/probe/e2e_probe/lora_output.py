"""The same LoRA through the webui's own extension and through our adapters, on the same inputs."""

from __future__ import annotations

from typing import Any

import networks
import torch
from modules import call_queue, devices, extra_networks, sd_hijack, shared

from lib_lora.hosts.webui_host import WebuiHost
from lib_lora.model.adapter import attached, adapters_from_state
from lib_lora.model.conditioning import Conditioning
from lib_lora.model.targets import adaptable
from lib_lora.model.embeddings import without_bundle
from lib_lora.files.lora_file import read

Outputs = dict[str, torch.Tensor]
_PARTS = ("text_encoder", "text_encoder_2")


def compare(name: str, here: str) -> dict[str, Any]:
    """Errors and effects, relative, per part: of the file `name` in the webui against the file `here` in our adapters.

    Returns:
        numbers: `{part: {"error": x, "effect": x}}`, and whether the model without LoRA answers as before; the number of layers in the
        file, those for which the webui found none (`unmatched`), and those that it could not change (`failed`, it goes on then).
    """
    state, _ = read(WebuiHost().lora_folder() / f"{name}.safetensors")
    layers = {key.partition(".")[0] for key in without_bundle(state)}
    with call_queue.queue_lock, devices.autocast():
        before = _by_webui([])
        extra_networks.extra_network_registry["lora"].errors.clear()
        theirs = _by_webui([name])
        failed = dict(extra_networks.extra_network_registry["lora"].errors)
        matched = {module.network_key.partition(".")[0] for net in networks.loaded_networks for module in net.modules.values()}
    ours = _by_us(here)
    with call_queue.queue_lock, devices.autocast():
        after = _by_webui([])
    numbers: dict[str, Any] = {
        part: {"error": _distance(ours[part], theirs[part]), "effect": _distance(theirs[part], before[part])} for part in theirs
    }
    told = {"layers": len(layers), "unmatched": sorted(layers ^ matched), "failed": failed}
    return {**numbers, **told, "unchanged": all(torch.equal(before[part], after[part]) for part in before)}


@torch.no_grad()
def _by_webui(names: list[str]) -> Outputs:
    networks.load_networks(names, dyn_dims=[None] * len(names))  # as the prompt's own code does; the default breaks
    if len(networks.loaded_networks) != len(names):
        raise LookupError(f"the webui does not find {names}")
    sd_hijack.model_hijack.fixes = None  # no textual inversion in these ids
    model = shared.sd_model
    wrappers = list(model.conditioner.embedders)[:2] if model.is_sdxl else [model.cond_stage_model]
    found: Outputs = {}
    for place, (wrapper, ids) in enumerate(zip(wrappers, _ids())):
        hidden = wrapper.encode_with_transformers(ids)
        found[_PARTS[place]] = hidden.clone()
        if hasattr(hidden, "pooled"):
            found["pooled"] = hidden.pooled.clone()
    latents, timesteps, context, pooled, sizes = _inputs()
    told = {}
    if model.is_sdxl:
        numbers = [embedder(pair) for embedder, pair in zip(list(model.conditioner.embedders)[2:], sizes.split(2, dim=1))]
        told = {"y": torch.cat([pooled, *numbers], dim=1)}
    seen = torch.cat([latents, *_beside(latents)], dim=1)
    found["unet"] = model.model.diffusion_model(seen, timesteps=timesteps, context=context, **told).clone()
    return found


def _beside(latents: torch.Tensor) -> list[torch.Tensor]:
    """Of an inpainting model: everything masked, and grey, as `txt2img_image_conditioning` (but no sample of the posterior)."""
    model = shared.sd_model
    if model.model.diffusion_model.input_blocks[0][0].weight.shape[1] != 9:
        return []
    size, vae = latents.shape[2:], model.first_stage_model
    mean = vae.quant_conv(vae.encoder(latents.new_zeros(1, 3, 8 * size[0], 8 * size[1])))[:, :4] * model.scale_factor
    return [torch.ones_like(latents[:, :1]), mean.expand(len(latents), -1, -1, -1)]


@torch.no_grad()
def _by_us(name: str) -> Outputs:
    state, _ = read(WebuiHost().lora_folder() / f"{name}.safetensors")
    latents, timesteps, context, pooled, sizes = _inputs()
    with WebuiHost().borrow_model() as base, attached(adapters_from_state(adaptable(base), state, base.device)), devices.autocast():
        found: Outputs = {}
        for place, (encoder, ids) in enumerate(zip(base.text_encoders, _ids())):
            reading = encoder.read(ids, 1)
            found[_PARTS[place]] = reading.hidden.clone()
            if reading.pooled is not None:
                found["pooled"] = reading.pooled.clone()
        found["unet"] = base.predict(latents, timesteps, Conditioning(context, pooled, sizes)).clone()
        return found


def _ids() -> tuple[torch.Tensor, torch.Tensor]:
    """Two whole chunks, for each text encoder."""
    draw = torch.Generator().manual_seed(7)
    words = torch.randint(320, 40000, (2, 75), generator=draw)
    ids = torch.cat([torch.full((2, 1), 49406), words, torch.full((2, 1), 49407)], dim=1).to(devices.device)
    return ids, ids


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Latents, timesteps, context, and with SDXL pooled text and sizes."""
    latents, timesteps, context, pooled, sizes = (None if one is None else one.to(devices.device) for one in _drawn())
    assert latents is not None and timesteps is not None and context is not None
    return latents, timesteps, context, pooled, sizes


def _drawn() -> tuple[torch.Tensor | None, ...]:
    draw, unet = torch.Generator().manual_seed(7), shared.sd_model.model.diffusion_model
    latents = torch.randn(2, 4, 16, 24, generator=draw)
    width = next(layer.weight.shape[1] for name, layer in unet.named_modules() if name.endswith("attn2.to_k"))
    context, timesteps = torch.randn(2, 77, width, generator=draw), torch.tensor([981, 41])
    if not shared.sd_model.is_sdxl:
        return latents, timesteps, context, None, None
    pooled = torch.randn(2, unet.label_emb[0][0].weight.shape[1] - 6 * 256, generator=draw)
    return latents, timesteps, context, pooled, torch.tensor([[427, 640, 0, 42, 128, 192], [128, 192, 8, 0, 128, 192]])


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The larger of ‖a − b‖ / ‖b‖ and max |a − b| / max |b|."""
    difference = a - b
    return max(float(difference.norm() / b.norm()), float(difference.abs().max() / b.abs().max()))
