"""Whether a run uses gradient checkpointing, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lib_lora.config.precision import Checkpointing
from lib_lora.families.family import Family


@dataclass(frozen=True)
class Choice:
    """`reason` is empty where the user chose."""

    on: bool
    reason: str = ""


def choose_checkpointing(wanted: Checkpointing, device: torch.device, family: Family) -> Choice:
    """What the option means on `device`, for a model of `family`."""
    if wanted != "auto":
        return Choice(wanted == "on")
    if device.type != "cuda":
        return Choice(False, "a machine's own memory is large enough")
    total = torch.cuda.get_device_properties(device).total_memory
    enough = family.enough_bytes
    small = total < enough
    return Choice(small, f"the GPU has {total / 2**30:.0f} GB, {'less' if small else 'not less'} than {enough / 2**30:.0f}")
