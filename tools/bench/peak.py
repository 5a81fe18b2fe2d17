"""The peak memory of this process."""

from __future__ import annotations

import threading

import torch

from lib_lora.training.memory import give_memory_back, memory_gb

CPU = torch.device("cpu")


def settled_gb() -> float:
    """GiB resident in this process, after unused memory was released."""
    give_memory_back(CPU)  # else a run would reuse what loading left, and it would not be counted
    return memory_gb(CPU) or 0.0


class MemoryPeak:
    """The largest resident size in GiB while it is open, sampled every 10 ms."""

    def __enter__(self) -> MemoryPeak:
        self.before = self.peak = settled_gb()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def begin_again(self) -> float:
        """Return the peak so far, and start a new one."""
        peak, self.peak = self.peak, memory_gb(CPU) or 0.0
        return peak

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, memory_gb(CPU) or 0.0)
