"""Calls of code that may hang: each in a thread of its own, which is left behind if it takes too long."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
LOOK_S = 0.05
GRACE_S = 2.0  # for a call that runs when Stop is pressed


class HangsError(Exception):
    """The call takes too long."""


class StoppedError(Exception):
    """The run was stopped during the call."""


class _Answer(Generic[T]):
    """What a call returned or raised."""

    def __init__(self, value: T | None, error: Exception | None) -> None:
        self.value, self.error = value, error


def called(what: Callable[[], T], seconds: float | None, stopped: threading.Event | None = None) -> T:
    """The result of `what()`, called in another thread.

    Args:
        what: the call.
        seconds: time limit; None for none.
        stopped: once it is set, the call has GRACE_S left, or LOOK_S if it has no time limit since it only waits.

    Raises:
        HangsError, StoppedError: it has not returned; its thread goes on.
        Exception: as `what`.
    """
    box: queue.SimpleQueue[_Answer[T]] = queue.SimpleQueue()

    def run() -> None:
        answer: _Answer[T] = _Answer(None, RuntimeError("its thread ended"))
        try:
            answer = _Answer(what(), None)
        except Exception as error:  # noqa: BLE001 - of foreign code; raised below
            answer = _Answer(None, error)
        finally:
            box.put(answer)

    threading.Thread(target=run, name="train-lora-captioner", daemon=True).start()
    deadline = None if seconds is None else time.monotonic() + seconds
    leave: float | None = None
    while True:
        try:
            answer = box.get(timeout=LOOK_S)
        except queue.Empty:
            now = time.monotonic()
            if stopped is not None and stopped.is_set():
                leave = now + (0.0 if seconds is None else GRACE_S) if leave is None else leave
                if now >= leave:
                    raise StoppedError from None
            if deadline is not None and now >= deadline:
                raise HangsError from None
            continue
        if answer.error is not None:
            raise answer.error
        return answer.value  # type: ignore[return-value]  # None only if T is
