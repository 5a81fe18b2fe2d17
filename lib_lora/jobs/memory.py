"""How much memory is in use, for people to look at."""

from __future__ import annotations

import torch


def memory_gb(device: torch.device) -> float | None:
    """GiB reserved on this thread's GPU, or, on a CPU, resident in this process; None where that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved() / 2**30
    try:
        import psutil
    except ImportError:
        return None
    return float(psutil.Process().memory_info().rss) / 2**30
