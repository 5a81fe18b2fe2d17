"""What prompts with embeddings mean to the webui, and to the trainer."""

from __future__ import annotations

from typing import Any

import networks
import torch
from modules import call_queue, devices, sd_hijack, shared

from lib_lora.config.text import TextConfig
from lib_lora.data.chunking import batch_tokens
from lib_lora.hosts.webui_host import WebuiHost
from lib_lora.model.adapter import attached, adapters_from_state
from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import TextInputs, encode
from lib_lora.model.targets import adaptable
from lib_lora.model.embeddings import bundled, embeddings_attached, without_bundle
from lib_lora.files.lora_file import read

TEXT = TextConfig(token_rule="webui", max_token_length="225", weighted_captions=True)


def compare(name: str, prompts: list[str]) -> list[dict[str, float]]:
    """For each prompt with the LoRA on: how far we are off, and what its embeddings and the webui's own do, all relative."""
    state, _ = read(WebuiHost().lora_folder() / f"{name}.safetensors")
    with call_queue.queue_lock, devices.autocast():
        theirs = [_by_webui(name, prompt) for prompt in prompts]
        networks.load_networks([])
    with WebuiHost().borrow_model() as base, devices.autocast():
        with attached(adapters_from_state(adaptable(base), without_bundle(state), base.device)):
            plain = [_by_us(base, prompt) for prompt in prompts]
            with embeddings_attached(base, (*base.embeddings, *bundled(state))):
                ours = [_by_us(base, prompt) for prompt in prompts]
    return [{"error": _distance(a, b), "effect": _distance(c, b)} for a, b, c in zip(ours, theirs, plain)]


@torch.no_grad()
def _by_webui(name: str, prompt: str) -> torch.Tensor:
    sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings()  # in the order of `process_images`
    networks.load_networks([name], dyn_dims=[None])
    emphasis, shared.opts.data["emphasis"] = shared.opts.emphasis, "No norm"
    try:
        model = shared.sd_model
        wrappers = list(model.conditioner.embedders)[:2] if model.is_sdxl else [model.cond_stage_model]
        found: list[Any] = [wrapper([prompt]) for wrapper in wrappers]
    finally:
        shared.opts.data["emphasis"] = emphasis
    hidden = torch.cat([one[0] if isinstance(one, tuple) else one for one in found], dim=-1)[0]
    pooled = [one[1] for one in found if isinstance(one, tuple)]
    return torch.cat([hidden.flatten(), *(each.flatten() for each in pooled)])


@torch.no_grad()
def _by_us(base: BaseModel, prompt: str) -> torch.Tensor:
    found = [batch_tokens(base.tokenizer, [prompt], TEXT, encoder.pad_id) for encoder in base.text_encoders]
    ids = tuple(torch.tensor(tokens.ids, device=base.device) for tokens in found)
    read_as = encode(base.text_encoders, TextInputs(ids, torch.tensor(found[0].weights, device=base.device), True), 1)
    return torch.cat([read_as.context.flatten(), *([] if read_as.pooled is None else [read_as.pooled.flatten()])])


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of another number of chunks is far off: embeddings may fill one more."""
    return float((a - b).norm() / b.norm()) if len(a) == len(b) else 1.0
