"""Whether a run uses gradient checkpointing, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lib_lora.config.precision import Checkpointing

ENOUGH_BYTES = 12 * 2**30  # of the GPU's memory: above it, the memory is for larger batches, and the time is what counts


@dataclass(frozen=True)
class Choice:
    """`reason` is empty where the user chose."""

    on: bool
    reason: str = ""


def choose_checkpointing(wanted: Checkpointing, device: torch.device) -> Choice:
    """What the option means on `device`."""
    if wanted != "auto":
        return Choice(wanted == "on")
    if device.type != "cuda":
        return Choice(False, "a machine's own memory is large enough")
    total = torch.cuda.get_device_properties(device).total_memory
    small = total < ENOUGH_BYTES
    return Choice(small, f"the GPU has {total / 2**30:.0f} GB, {'less' if small else 'not less'} than {ENOUGH_BYTES / 2**30:.0f}")
