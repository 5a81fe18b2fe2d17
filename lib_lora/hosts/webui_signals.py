"""Saving the state of a run before Ctrl+C, SIGTERM or a closed terminal ends the webui."""

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

LEAVE_S = 9.0  # containers and services are killed after ten


# these survive "Reload UI", which calls `save_before_the_end` again
_wrapped: set[str] = set()  # handlers that ours already precedes
_asked: set[int] = set()  # processes that got a signal; a forked process has another id


def save_before_the_end(queue: Queue) -> None:
    """Have `queue` leave before the present signal handlers run. To be called by the main thread.

    A handler that was installed over ours, perhaps at every reload, is wrapped once.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # Python sets handlers only there
    for number in SIGNALS:
        before = signal.getsignal(number)
        known = f"{number} {getattr(before, '__module__', '')} {getattr(before, '__qualname__', before)}"
        if before not in (None, signal.SIG_IGN) and not isinstance(before, _Leaving) and known not in _wrapped:
            _wrapped.add(known)
            signal.signal(number, _Leaving(queue, before))


class _Leaving:
    """A signal handler. A second signal, from the user or after saving, goes to the handler that was there before."""

    def __init__(self, queue: Queue, before: Any) -> None:
        self._queue, self._before = queue, before
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        job = self._queue.runner.job
        forked = os.getpid() != self._process
        asked = self._process in _asked
        if forked or asked or job is None or not job.running or not job.progress.step:  # nothing to save
            _pass_on(self._before, number, frame)
            return
        _asked.add(self._process)
        # in a new thread, since the main thread may hold a lock that is needed
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
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # the console may be closed or in use
        print(f"Train LoRA: {text}".encode("ascii", "backslashreplace").decode(), flush=True)


def _pass_on(before: Callable[[int, FrameType | None], Any] | int, number: int, frame: FrameType | None) -> None:
    if callable(before):
        before(number, frame)
    else:  # the system's default
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
