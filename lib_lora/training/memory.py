"""Measures the memory in use, frees it, and explains torch's out-of-memory errors."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from lib_lora.config.groups import TrainConfig, options_by_name
from lib_lora.errors import TrainLoraError
from lib_lora.model.base import BaseModel

STEP = ("batch_size", "resolution", "rank")  # options that lower the memory of a step
ENCODING = ("vae_batch_size", "resolution")


def memory_gb(device: torch.device) -> float | None:
    """GiB reserved on this thread's GPU, or, on a CPU, resident in this process; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved() / 2**30
    try:
        import psutil
    except ImportError:
        return None
    return float(psutil.Process().memory_info().rss) / 2**30


def give_memory_back(device: torch.device) -> None:
    """Free what a run left: reference cycles and caches."""
    gc.collect()
    give_caches_back(device)


def give_caches_back(device: torch.device) -> None:
    """Free the caches of torch and glibc."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # glibc keeps freed blocks of up to 32 MB


class OutOfMemoryError(TrainLoraError):
    """The GPU does not have enough memory for these settings."""


@contextmanager
def explained(base: BaseModel, config: TrainConfig, what: str, lower: Sequence[str] = STEP) -> Iterator[None]:
    """Run the block; `what` names its work, `lower` the options that reduce its memory.

    Raises:
        OutOfMemoryError: instead of torch's.
        HostChanged: instead of torch's RuntimeError, if the model was moved or replaced meanwhile.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        flat, options = config.to_flat(), options_by_name()
        values = [f"{options[name].title} is {flat[name]}" for name in lower]
        raise OutOfMemoryError(
            f"The GPU ran out of memory at {what}: {', '.join(values[:-1])} and {values[-1]}; lower one of them, or close other "
            "programs that use the GPU. The checkpoint is unchanged."
        ) from error
    except RuntimeError:
        base.verify()
        raise
