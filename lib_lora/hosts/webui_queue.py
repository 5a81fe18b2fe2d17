"""Fair use of the webui's queue lock, by which its jobs take turns, first come, first served (`fifo_lock.FIFOLock`)."""

from __future__ import annotations

import time
from contextlib import ExitStack

from modules import call_queue

LOOK_S = 0.001
GRACE_S = 0.25  # for a woken thread to take the lock; a thousandth is nearly always enough
UNSEEN_GRACE_S = 0.02


class Place:
    """Takes the lock and gives it back so that everybody who waited has a turn before this run takes it again.

    On release the lock wakes the thread that waited longest, but any thread may take it, this one included. A woken thread that
    finds the lock taken keeps waiting without being listed. So `take_again` first waits until another thread has taken the lock,
    and after each time that somebody waited the lock is offered once more.
    """

    def __init__(self) -> None:
        self._woke = self._owes = False

    @property
    def wanted(self) -> bool:
        """Whether another thread waits, or may wait unlisted."""
        return self._owes or bool(call_queue.queue_lock._pending_threads)

    def take(self, stack: ExitStack) -> None:
        """Acquire the lock at our turn; it is released when `stack` unwinds."""
        call_queue.queue_lock.acquire()
        self._owes = True  # a woken thread may just have been overtaken
        stack.callback(self._give)

    def take_again(self, stack: ExitStack) -> None:
        """As `take`, after everybody who waited when the lock was released."""
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
    """Wait until the lock is held, or for `seconds`."""
    deadline = time.monotonic() + seconds
    while not call_queue.queue_lock._lock.locked() and time.monotonic() < deadline:
        time.sleep(LOOK_S)
