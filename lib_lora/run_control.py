"""What is asked of a run, from any thread, and where the run stands still for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

_End = Literal["keep", "discard", "leave"]


class RunControl:
    """Requests to one run: to end, to stand still, to save. Every method may be called by any thread, and by signal handlers.

    The run looks at them between two steps. A person pauses it, and the program suspends it while it needs the model's modules
    for itself; neither undoes the other. A stop ends a pause.

    Args:
        on_write_failed: called in the run's thread when the disk refused a LoRA; returns whether to write it again. Default: no.
    """

    def __init__(self, on_write_failed: Callable[[], bool] = lambda: False) -> None:
        self.on_write_failed = on_write_failed
        self._changed = threading.Condition(threading.RLock())  # a signal handler may interrupt the thread that holds it
        self._end: _End | None = None
        self._paused = self._suspended = self._save = False
        self._still = 0  # reasons why the run does not use its model now

    def request_stop(self, *, keep: bool) -> None:
        """Ask for the end after the step; with `keep` the LoRA as it is then is saved. The first request counts."""
        self._request("keep" if keep else "discard")

    def request_leave(self) -> None:
        """The program ends: ask for the end with the state to resume from and no LoRA, also of a run that is suspended."""
        self._request("leave")
        self.unsuspend()

    def _request(self, end: _End) -> None:
        with self._changed:
            self._end = self._end or end
            self._paused = False
            self._changed.notify_all()

    @property
    def stop_requested(self) -> bool:
        """Whether the end was asked for, in any way."""
        return self._end is not None

    @property
    def keeps(self) -> bool:
        """Whether the run ends with its LoRA."""
        return self._end == "keep"

    @property
    def leaves(self) -> bool:
        """Whether the run ends because the program does."""
        return self._end == "leave"

    def request_save(self) -> None:
        """Ask for a LoRA as it is after the next step."""
        self._save = True

    def take_save_request(self) -> bool:
        """Whether a LoRA was asked for since the last call."""
        with self._changed:
            asked, self._save = self._save, False
            return asked

    def pause(self) -> None:
        """A person's: stand still after the step until `unpause`, or until the end is asked for."""
        with self._changed:
            self._paused = not self.stop_requested
            self._changed.notify_all()

    def unpause(self) -> None:
        """Let a paused run go on."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    @property
    def paused(self) -> bool:
        """Whether a person pauses the run."""
        return self._paused

    def suspend(self) -> None:
        """The program's: stand still at the next event, and take a model that was lent only after `unsuspend`."""
        with self._changed:
            self._suspended = True

    def unsuspend(self) -> None:
        """Let a suspended run go on."""
        with self._changed:
            self._suspended = False
            self._changed.notify_all()

    def stand(self, *, paused: bool = True) -> None:
        """The run's: returns when the program does not suspend it and, with `paused`, nobody pauses it."""

        def goes() -> bool:
            return not (self._suspended or (paused and self._paused))

        with self._changed:
            if not goes():
                with self.still():
                    self._changed.wait_for(goes)

    @contextmanager
    def still(self) -> Iterator[None]:
        """The run's: until the exit it stands still, or others have its model."""
        self._count_still(1)
        try:
            yield
        finally:
            self._count_still(-1)

    def finish(self) -> None:
        """The run is over: it stands still for good."""
        self._count_still(1)

    def _count_still(self, by: int) -> None:
        with self._changed:
            self._still += by
            self._changed.notify_all()

    def wait_until_still(self, seconds: float) -> None:
        """Returns when the run stands still, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._still > 0, seconds)

    def wait_for_stop(self, seconds: float) -> None:
        """The run's: returns when the end is asked for, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self.stop_requested, seconds)
