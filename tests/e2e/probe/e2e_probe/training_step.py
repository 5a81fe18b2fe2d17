"""One prepared training step on any `BaseModel`; runs inside the webui and in the tests' own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lib_lora.config.objective import ObjectiveConfig
from lib_lora.model.adapter import attached, adapters_from_state
from lib_lora.model.conditioning import TextInputs
from lib_lora.training.step import StepInputs, compute_loss


def loss_and_gradients(base: Any, inputs: Path, out: Path) -> float:
    """The loss; the gradients of all LoRA tensors, under the names of the file's keys, go to `out`.

    Args:
        base: a borrowed model.
        inputs: safetensors file of `noisy_latents`, `target`, `timesteps`, `input_ids` (of each text encoder: `input_ids/0` …), perhaps
            `sizes`, and a LoRA under `lora/`.
        out: safetensors file to write.
    """
    prepared = load_file(inputs, device=str(base.device))
    state = {key.removeprefix("lora/"): value for key, value in prepared.items() if key.startswith("lora/")}
    pairs = adapters_from_state(base.targets(), state, base.device)
    ids = tuple(prepared[f"input_ids/{place}"] for place in range(len(base.text_encoders)))
    step = StepInputs(prepared["noisy_latents"], prepared["target"], prepared["timesteps"], TextInputs(ids), prepared.get("sizes"))
    with torch.enable_grad(), attached(pairs):
        loss = compute_loss(base, step, ObjectiveConfig(), 1)
        loss.backward()
    halves = {f"{pair.target.name}.lora_{half}.weight": getattr(pair, half).grad for pair in pairs for half in ("down", "up")}
    save_file({key: gradient for key, gradient in halves.items() if gradient is not None}, out)
    return float(loss.detach())
