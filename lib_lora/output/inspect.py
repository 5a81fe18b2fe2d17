"""What a LoRA file holds, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lib_lora.errors import LoraFileError
from lib_lora.output.lora_file import State, read


def describe(path: Path) -> dict[str, Any]:
    """Type, ranks, alphas, modules, norms and metadata of the file.

    Raises:
        LoraFileError: it cannot be read or holds no LoRA pairs.
    """
    state, metadata = read(path)
    names = sorted({key.partition(".")[0] for key in state})
    pairs = [name for name in names if f"{name}.lora_down.weight" in state and f"{name}.lora_up.weight" in state]
    if not pairs:
        raise LoraFileError(f"{str(path)!r} holds no lora_down/lora_up pairs.")
    downs = [state[f"{name}.lora_down.weight"] for name in pairs]
    alphas = [float(state.get(f"{name}.alpha", torch.tensor(float(down.shape[0])))) for name, down in zip(pairs, downs)]
    norms = {name: _delta_norm(state, name, alpha) for name, alpha in zip(pairs, alphas)}
    return {
        "file": str(path),
        "type": "LoRA",
        "dtype": str(downs[0].dtype).removeprefix("torch."),
        "modules": len(pairs),
        "modules_text_encoder": sum(name.startswith("lora_te") for name in pairs),
        "modules_unet": sum(name.startswith("lora_unet") for name in pairs),
        "ranks": sorted({down.shape[0] for down in downs}),
        "alphas": sorted(set(alphas)),
        "incomplete": [name for name in names if name not in pairs],
        "norm_mean": sum(norms.values()) / len(norms),
        "norm_max": max(norms.values()),
        "strongest": sorted(norms, key=lambda name: -norms[name])[:5],
        "metadata": metadata,
    }


def _delta_norm(state: State, name: str, alpha: float) -> float:
    """Frobenius norm of alpha / rank · up · down, without forming the product: √tr((UᵀU)(DDᵀ))."""
    down, up = (state[f"{name}.lora_{half}.weight"].float().flatten(1) for half in ("down", "up"))
    square = float(((up.T @ up) * (down @ down.T)).sum())
    return float(alpha / down.shape[0] * max(square, 0.0) ** 0.5)
