"""Our place in the webui's queue: jobs of the webui take turns by one lock, first come, first served (`fifo_lock.FIFOLock`)."""

from __future__ import annotations

import time
from contextlib import ExitStack

from modules import call_queue

LOOK_S = 0.001
GRACE_S = 0.25  # for somebody who was woken to take the lock; nearly always a thousandth of it is enough
UNSEEN_GRACE_S = 0.02


class Place:
    """Takes the lock and gives it back, so that everybody who waited has had a turn before we take it again.

    The lock wakes who waited longest and then is free for anyone, us included. Who was woken and found it taken waits on, seen by
    nobody. So we wait until the lock was taken before we ask for it again, and after each time that somebody waited we offer it
    once more.
    """

    def __init__(self) -> None:
        self._woke = self._owes = False

    @property
    def wanted(self) -> bool:
        """Whether somebody waits, or may wait unseen."""
        return self._owes or bool(call_queue.queue_lock._pending_threads)

    def take(self, stack: ExitStack) -> None:
        """Hold the lock as soon as it is our turn, until `stack` unwinds."""
        call_queue.queue_lock.acquire()
        self._owes = False
        stack.callback(self._give)

    def take_again(self, stack: ExitStack) -> None:
        """The same, behind everybody who waited when it was given back."""
        _until_taken(GRACE_S if self._woke else UNSEEN_GRACE_S)
        at_once = call_queue.queue_lock.acquire(False)
        if not at_once:
            call_queue.queue_lock.acquire()
        self._owes = self._woke or not at_once
        stack.callback(self._give)

    def _give(self) -> None:
        self._woke = bool(call_queue.queue_lock._pending_threads)
        call_queue.queue_lock.release()


def _until_taken(seconds: float) -> None:
    """Returns when somebody holds the lock, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not call_queue.queue_lock._lock.locked() and time.monotonic() < deadline:
        time.sleep(LOOK_S)
