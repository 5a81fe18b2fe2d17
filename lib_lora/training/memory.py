"""Measures the memory in use, and frees it."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys

import torch


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
