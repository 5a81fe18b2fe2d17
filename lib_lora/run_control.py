"""Requests to a run from any thread, and the points at which the run waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

_End = Literal["keep", "discard", "leave"]


class RunControl:
    """Requests to one run: stop, pause, save. Every method may be called by any thread and by signal handlers.

    The run checks them between two steps. The user pauses it, and the program suspends it while it needs the model's modules
    itself; neither undoes the other. A stop ends a pause.

    Args:
        on_write_failed: called in the run's thread after the disk refused a LoRA; returns whether to retry. Default: no.
    """

    def __init__(self, on_write_failed: Callable[[], bool] = lambda: False) -> None:
        self.on_write_failed = on_write_failed
        self._changed = threading.Condition(threading.RLock())  # a signal handler may interrupt the thread that holds it
        self._end: _End | None = None
        self._paused = self._suspended = self._save = self._sample = False
        self._serves: set[str] = set()  # requests that were taken and are not served yet
        self._still = 0  # number of reasons why the run does not use its model now
        self._stands_since: float | None = None
        self._stood_s = 0.0
        self.pauses_itself = False  # the run stands by itself where it can do what is asked meanwhile; set by the run

    def request_stop(self, *, keep: bool) -> None:
        """Request the end after the step; with `keep` the LoRA is saved. The first request wins."""
        self._request("keep" if keep else "discard")

    def request_leave(self) -> None:
        """Request the end with a state and no LoRA, since the program ends; also ends a suspension."""
        self._request("leave")
        self.unsuspend()

    def _request(self, end: _End) -> None:
        with self._changed:
            self._end = self._end or end
            self._paused = False
            self._changed.notify_all()

    @property
    def stop_requested(self) -> bool:
        """Whether the end was requested, in any way."""
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
        """Request a LoRA after the step; a paused run saves it at once."""
        with self._changed:
            self._save = True
            self._changed.notify_all()

    def request_sample(self) -> None:
        """Request samples after the step; a paused run draws them at once."""
        with self._changed:
            self._sample = True
            self._changed.notify_all()

    @property
    def has_requests(self) -> bool:
        """Whether a LoRA or samples are requested that were not taken yet."""
        return self._save or self._sample

    def take_save_request(self) -> bool:
        """Whether a LoRA was requested since the last call."""
        with self._changed:
            asked, self._save = self._save, False
            self._serves |= {"save"} if asked else set()
            return asked

    def take_sample_request(self) -> bool:
        """Whether samples were requested since the last call."""
        with self._changed:
            asked, self._sample = self._sample, False
            self._serves |= {"sample"} if asked else set()
            return asked

    def served(self) -> None:
        """Mark all requests that were taken as served; called by the run."""
        with self._changed:
            self._serves = set()

    @property
    def asked(self) -> list[str]:
        """Which of `save` and `sample` are requested and not served yet."""
        with self._changed:
            return [kind for kind, open_ in (("save", self._save), ("sample", self._sample)) if open_ or kind in self._serves]

    def pause(self) -> None:
        """Pause the run after its step, until `unpause` or a request to end; for the user."""
        with self._changed:
            self._paused = not self.stop_requested
            self._changed.notify_all()

    def unpause(self) -> None:
        """Unpause the run."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    @property
    def paused(self) -> bool:
        """Whether the user has paused the run."""
        return self._paused

    def suspend(self) -> None:
        """Suspend the run at its next event; a model given back is borrowed again only after `unsuspend`. For the program."""
        with self._changed:
            self._suspended = True

    def unsuspend(self) -> None:
        """Undo `suspend`."""
        with self._changed:
            self._suspended = False
            self._changed.notify_all()

    def stand(self, *, paused: bool = True, serves: bool = False) -> None:
        """Block while the run is suspended or, with `paused`, paused; with `serves`, a request ends that. Called by the run."""

        def goes() -> bool:
            return not (self._suspended or (paused and self._paused and not (serves and self.has_requests)))

        with self._changed:
            if not goes():
                with self.still(), self._timed():
                    self._changed.wait_for(goes)

    @property
    def clock_s(self) -> float:
        """Seconds of a clock that stands while the run does."""
        with self._changed:
            return (time.monotonic() if self._stands_since is None else self._stands_since) - self._stood_s

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """In the block, the clock stands."""
        self._stands_since = time.monotonic()
        try:
            yield
        finally:
            self._stood_s += time.monotonic() - self._stands_since
            self._stands_since = None

    @contextmanager
    def still(self) -> Iterator[None]:
        """Mark the run as not using its model until the exit; called by the run."""
        self._count_still(1)
        try:
            yield
        finally:
            self._count_still(-1)

    def finish(self) -> None:
        """Mark the run as over: it does not use its model any more."""
        self._count_still(1)

    def _count_still(self, by: int) -> None:
        with self._changed:
            self._still += by
            self._changed.notify_all()

    def wait_until_still(self, seconds: float) -> None:
        """Block until the run does not use its model, or for `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._still > 0, seconds)

    def wait_for_stop(self, seconds: float) -> None:
        """Block until the end is requested, or for `seconds`; called by the run."""
        with self._changed:
            self._changed.wait_for(lambda: self.stop_requested, seconds)
