"""Signals that end a program, and saving the state of a command line run before they do."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from lib_lora.run_control import RunControl

# Ctrl+C, a stopped service or container, a closed terminal; Windows lacks the last
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def leaving(control: RunControl, say: Callable[[str], object]) -> Iterator[list[int]]:
    """Until the exit, the first of SIGNALS has the run save its state and end; the next one goes to the former handler.

    Yields:
        A list that receives the signal. Signals that the program was started to ignore (nohup) stay ignored.
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

    if threading.current_thread() is threading.main_thread():  # Python sets handlers only there
        found = {number: signal.getsignal(number) for number in SIGNALS}
        before.update({number: handler for number, handler in found.items() if handler not in (None, signal.SIG_IGN)})
        for number in before:
            signal.signal(number, handle)
    try:
        yield came
    finally:
        give_back()
