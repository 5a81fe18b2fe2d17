"""Ctrl+C, SIGTERM and a closed terminal end the webui at once; a training that is running saves where it is first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from lib_lora.jobs.queue import Queue
from lib_lora.signals import SIGNALS

LEAVE_S = 9.0  # who stops a container or a service waits for ten


# survive "Reload UI", which calls `save_before_the_end` again
_wrapped: set[str] = set()  # handlers that ours was put in front of
_asked: set[int] = set()  # processes that were told to end; a forked one is another


def save_before_the_end(queue: Queue) -> None:
    """Have `queue` leave before the handlers that are there now do what they do. To be called by the main thread.

    A handler that somebody hangs in front of ours, at each reload anew perhaps, gets ours in front once.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # Python sets handlers there alone
    for number in SIGNALS:
        before = signal.getsignal(number)
        known = f"{number} {getattr(before, '__module__', '')} {getattr(before, '__qualname__', before)}"
        if before not in (None, signal.SIG_IGN) and not isinstance(before, _Leaving) and known not in _wrapped:
            _wrapped.add(known)
            signal.signal(number, _Leaving(queue, before))


class _Leaving:
    """A handler. The same signal once more, from a person or when all is saved, is for the handler that was there before."""

    def __init__(self, queue: Queue, before: Any) -> None:
        self._queue, self._before = queue, before
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        job = self._queue.runner.job
        forked = os.getpid() != self._process
        asked = self._process in _asked
        if forked or asked or job is None or not job.running or not job.progress.step:  # nothing was learned
            _pass_on(self._before, number, frame)
            return
        _asked.add(self._process)
        # in a thread of its own: the main thread may hold a lock that is needed
        threading.Thread(target=self._leave, args=(number, job.config.run.name), name="train-lora-leaving", daemon=True).start()

    def _leave(self, number: int, name: str) -> None:
        _say(f"saving the state of {name!r}. Press again to end the webui at once.")
        try:
            lost = self._queue.leave(LEAVE_S)
            if lost:
                _say(lost)
        finally:
            os.kill(os.getpid(), number)


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # whatever the console is, or is no more
        print(f"Train LoRA: {text}".encode("ascii", "backslashreplace").decode(), flush=True)


def _pass_on(before: Callable[[int, FrameType | None], Any] | int, number: int, frame: FrameType | None) -> None:
    if callable(before):
        before(number, frame)
    else:  # the system's own
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
