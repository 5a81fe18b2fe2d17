"""The decoder processes that all datasets share: a few for the whole program, and none while nothing is looked at."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lib_lora.data.dataset import DECODERS
from lib_lora.data.decoder_process import Reader


class Decoders:
    """Lends readers, each to one thread at a time. Their processes start when needed, and end with the last user.

    Args:
        make: a new reader.
        most: how many there are; by default DECODERS, but no more than processor cores.
    """

    def __init__(self, make: Callable[[], Reader] = Reader, most: int | None = None) -> None:
        self.most = most or max(1, min(DECODERS, os.cpu_count() or 1))
        self._all = [make() for _ in range(self.most)]
        self._idle: queue.LifoQueue[Reader] = queue.LifoQueue()  # the last one used has a process already
        for reader in self._all:
            self._idle.put(reader)
        self._lock = threading.Lock()
        self._users = 0

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep the processes for the time of the block."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    for reader in self._all:
                        reader.close()

    @contextmanager
    def one(self) -> Iterator[Reader]:
        """A reader, as soon as one is free; only inside `used`."""
        reader = self._idle.get()
        try:
            yield reader
        finally:
            self._idle.put(reader)


SHARED = Decoders()
