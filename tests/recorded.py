"""Runs of sd-scripts 48d368fa on the miniature checkpoint (its constants of widths and depths set to the miniature's).

Each at 128×128 on six captioned photographs, three steps, fp32 on a CPU, in the format of the other recordings:

| recording | what it covers |
|---|---|
| `snr` | batch 2, clip skip 2, min-SNR, noise offset with adaptive scale, cosine with warm-up |
| `smooth` | smooth-l1 with SNR schedule, input perturbation, 150 tokens, debiased estimation |
| `velocity` | v-prediction scaled like noise, zero terminal SNR, huber exponential, multires noise, timesteps 200 to 800, warm-up-stable-decay, arguments of AdamW |
| `norms` | gradient accumulation, max norm, weighted captions, linear, clipping at 0.5 |
| `convolutions` | LoCon, except in blocks of 32 channels: with one channel per group, GroupNorm removes the time embedding |
| `blocks` | ranks, alphas and rate factors per block, LoRA+, weighted captions of 225 tokens, gradient checkpointing |
| `text` | text encoder only, SGDNesterov, polynomial, l1, v-like loss |
| `adafactor` | U-Net only, AdaFactor, cosine with minimum rate, huber constant with scale, no clipping |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

RECORDED = sorted((Path(__file__).parent / "data" / "recorded").glob("*.safetensors"))


def assert_equal_to_sd_scripts(report: dict[str, Any], steps: int = 3) -> None:
    """The bounds of every replay; `steps`: how many it has at least."""
    assert max(report["loss_rel_err"]) < 1e-5 and len(report["loss_rel_err"]) >= steps
    assert report["delta_cosine"] > 0.9999 and report["delta_cosine_min"] > 0.999
    assert report["keys_missing"] == report["keys_unexpected"] == 0
