"""How much memory is in use, for people to look at."""

from __future__ import annotations

import torch


def memory_gb() -> float | None:
    """GiB reserved on the GPU, or, without one, resident in this process; None where neither can be told."""
    if torch.cuda.is_available():
        return torch.cuda.memory_reserved() / 2**30
    try:
        import psutil
    except ImportError:
        return None
    return float(psutil.Process().memory_info().rss) / 2**30
