"""Saving the state of a run before the webui restarts or stops itself ("Apply and restart", its API)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from modules import restart

from lib_lora.hosts.webui_signals import LEAVE_S
from lib_lora.jobs.queue import Queue

log = logging.getLogger(__name__)


def save_before_a_restart(queue: Queue) -> None:
    """Have `queue` leave before the webui's `modules.restart.stop_program` ends the process. Idempotent."""
    if not isinstance(restart.stop_program, _Leaving):
        restart.stop_program = _Leaving(queue, restart.stop_program)


class _Leaving:
    """Replaces `stop_program`; its callers are threads that may block."""

    def __init__(self, queue: Queue, stop_program: Callable[[], None]) -> None:
        self._queue, self._stop_program = queue, stop_program

    def __call__(self) -> None:
        try:
            lost = self._queue.leave(LEAVE_S)
            if lost:
                log.warning("%s", lost)
        finally:
            self._stop_program()
