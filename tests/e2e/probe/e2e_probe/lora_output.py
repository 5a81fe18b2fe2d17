"""The same LoRA through the webui's own extension and through our adapters, on the same inputs."""

from __future__ import annotations

from typing import Any

import networks
import torch
from modules import call_queue, sd_hijack, shared

from lib_lora.hosts.webui_host import WebuiHost
from lib_lora.model.adapter import attached, pairs_from_state
from lib_lora.model.conditioning import encode_ids
from lib_lora.model.conv_targets import adaptable
from lib_lora.output.lora_file import read

Outputs = dict[str, torch.Tensor]


def compare(name: str) -> dict[str, Any]:
    """Errors and effects, relative, per part.

    Returns:
        numbers: `{part: {"error": x, "effect": x}}`, and whether the model without LoRA answers as before.
    """
    with call_queue.queue_lock:
        before = _by_webui([])
        theirs = _by_webui([name])
    ours = _by_us(name)
    with call_queue.queue_lock:
        after = _by_webui([])
    numbers: dict[str, Any] = {
        part: {"error": _distance(ours[part], theirs[part]), "effect": _distance(theirs[part], before[part])} for part in theirs
    }
    return {**numbers, "unchanged": all(torch.equal(before[part], after[part]) for part in before)}


@torch.no_grad()
def _by_webui(names: list[str]) -> Outputs:
    networks.load_networks(names, dyn_dims=[None] * len(names))  # as the prompt's own code does; the default breaks
    if len(networks.loaded_networks) != len(names):
        raise LookupError(f"the webui does not find {names}")
    sd_hijack.model_hijack.fixes = None  # no textual inversion in these ids
    model = shared.sd_model
    ids, latents, timesteps, context = _inputs()
    return {
        "text_encoder": model.cond_stage_model.wrapped.transformer(ids).last_hidden_state.clone(),
        "unet": model.model.diffusion_model(latents, timesteps=timesteps, context=context).clone(),
    }


@torch.no_grad()
def _by_us(name: str) -> Outputs:
    state, _ = read(WebuiHost().lora_folder() / f"{name}.safetensors")
    ids, latents, timesteps, context = _inputs()
    with WebuiHost().borrow_model() as base, attached(pairs_from_state(adaptable(base), state, base.device)):
        return {
            "text_encoder": encode_ids(base.text_encoder, ids[:, None], 1).clone(),
            "unet": base.predict(latents, timesteps, context).clone(),
        }


def _inputs() -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(7)
    width = shared.sd_model.cond_stage_model.wrapped.transformer.config.hidden_size
    words = torch.randint(320, 40000, (2, 75), generator=draw)
    ids = torch.cat([torch.full((2, 1), 49406), words, torch.full((2, 1), 49407)], dim=1)
    latents = torch.randn(2, 4, 16, 24, generator=draw)
    return ids, latents, torch.tensor([981, 41]), torch.randn(2, 77, width, generator=draw)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The larger of ‖a − b‖ / ‖b‖ and max |a − b| / max |b|."""
    difference = a - b
    return max(float(difference.norm() / b.norm()), float(difference.abs().max() / b.abs().max()))
