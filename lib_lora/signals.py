"""What ends a program from outside, and a run on the command line that saves where it is before it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from lib_lora.run_control import RunControl

# Ctrl+C, a service or container that is stopped, a terminal that is closed; Windows lacks the last
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def leaving(control: RunControl, say: Callable[[str], object]) -> Iterator[list[int]]:
    """While it lasts, the first of SIGNALS asks the run to leave; the next one does what it would have done without us.

    Yields:
        The signal that came, or nothing yet. A signal that the program was started to ignore (nohup) stays ignored.
    """
    came: list[int] = []
    before: dict[int, Any] = {}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        give_back()
        control.request_leave()
        say("Saving the state of the run. Press again to end at once.")

    if threading.current_thread() is threading.main_thread():  # Python sets handlers there alone
        found = {number: signal.getsignal(number) for number in SIGNALS}
        before.update({number: handler for number, handler in found.items() if handler not in (None, signal.SIG_IGN)})
        for number in before:
            signal.signal(number, handle)
    try:
        yield came
    finally:
        give_back()
