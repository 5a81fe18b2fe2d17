"""Requests to a run: which one counts, who undoes whose, and that waiting threads are woken."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from lib_lora.errors import LoraFileError
from lib_lora.events import SaveFailed
from lib_lora.output.lora_writer import write_with_retry
from lib_lora.run_control import RunControl

ENDS: dict[str, Callable[[RunControl], None]] = {
    "keep": lambda control: control.request_stop(keep=True),
    "discard": lambda control: control.request_stop(keep=False),
    "leave": lambda control: control.request_leave(),
}


def in_thread(wait: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def waits(thread: threading.Thread) -> bool:
    thread.join(0.1)
    return thread.is_alive()


def woken(thread: threading.Thread) -> bool:
    thread.join(10)
    return not thread.is_alive()


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_the_first_request_for_the_end_counts(first: str, second: str) -> None:
    control = RunControl()
    assert not (control.stop_requested or control.keeps or control.leaves)
    ENDS[first](control)
    ENDS[second](control)
    assert control.stop_requested and (control.keeps, control.leaves) == (first == "keep", first == "leave")


@pytest.mark.parametrize("end", ENDS)
def test_the_end_ends_a_pause_and_none_begins_behind_it(end: str) -> None:
    control = RunControl()
    control.pause()
    run = in_thread(control.stand)
    assert waits(run)
    ENDS[end](control)
    assert woken(run)
    control.pause()
    assert not control.paused


def test_pause_and_suspension_do_not_undo_each_other() -> None:
    control = RunControl()
    control.pause()
    control.suspend()
    run = in_thread(control.stand)
    control.unpause()
    assert waits(run)
    control.pause()
    control.unsuspend()
    assert waits(run) and control.paused
    control.unpause()
    assert woken(run)


def test_a_run_that_lends_its_model_stands_for_the_program_alone() -> None:
    control = RunControl()
    control.pause()
    control.stand(paused=False)
    control.suspend()
    assert waits(run := in_thread(lambda: control.stand(paused=False)))
    control.request_stop(keep=True)
    assert waits(run), "the program needs the modules, whatever a person asks for"
    control.request_leave()
    assert woken(run)


def test_who_suspends_a_run_waits_until_it_stands() -> None:
    control = RunControl()
    control.suspend()
    program = in_thread(lambda: control.wait_until_still(10))
    assert waits(program)
    run = in_thread(control.stand)
    assert woken(program)
    control.unsuspend()
    assert woken(run)
    before = time.monotonic()
    control.wait_until_still(0.1)
    assert 0.05 < time.monotonic() - before < 5, "it goes on"
    with control.still():
        control.pause()
        run = in_thread(control.stand)  # within what is still already
        assert waits(run)
        control.unpause()
        assert woken(run)
        control.wait_until_still(10)
    program = in_thread(lambda: control.wait_until_still(10))
    assert waits(program)
    control.finish()
    assert woken(program)


def test_waiting_for_the_end_has_an_end() -> None:
    control = RunControl()
    control.wait_for_stop(0.01)
    waiting = in_thread(lambda: control.wait_for_stop(10))
    assert waits(waiting)
    control.request_stop(keep=False)
    assert woken(waiting)


def test_each_request_for_a_file_is_taken_once() -> None:
    control, taken = RunControl(), []
    control.request_save()
    threads = [in_thread(lambda: taken.append(control.take_save_request())) for _ in range(8)]
    assert all(map(woken, threads)) and sorted(taken) == [False] * 7 + [True]


def test_a_request_ends_the_pause_of_a_run_that_can_serve_it() -> None:
    control = RunControl()
    control.pause()
    serving = in_thread(lambda: control.stand(serves=True))
    assert waits(serving)
    control.request_sample()
    assert woken(serving) and control.paused and control.has_requests
    assert control.take_sample_request() and not control.take_sample_request() and not control.has_requests
    again = in_thread(lambda: control.stand(serves=True))
    assert waits(again), "the request was taken"
    control.unpause()
    assert woken(again)


def test_a_request_does_not_end_the_pause_of_a_run_that_cannot_serve_it() -> None:
    control = RunControl()
    control.pause()
    run = in_thread(control.stand)
    control.request_sample()
    assert waits(run) and control.has_requests
    control.unpause()
    assert woken(run)


def test_the_clock_of_a_run_stands_while_the_run_does() -> None:
    control = RunControl()
    before = control.clock_s
    control.pause()
    threading.Timer(0.4, control.unpause).start()
    threading.Timer(0.2, lambda: seen.append(control.clock_s)).start()
    seen: list[float] = []
    control.stand()
    assert control.clock_s - before < 0.2 and 0 <= seen[0] - before < 0.2
    time.sleep(0.1)
    assert 0.1 <= control.clock_s - before < 0.35


def test_a_signal_may_come_while_the_control_is_in_use() -> None:
    """The handler runs in the very thread that waits, or that holds the lock."""
    control = RunControl()
    control.pause()
    before = signal.signal(signal.SIGUSR1, lambda *_: control.request_leave())
    try:
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        control.stand()
        assert control.leaves
        control = RunControl()
        with control._changed:
            signal.raise_signal(signal.SIGUSR1)
        assert control.leaves
    finally:
        signal.signal(signal.SIGUSR1, before)


def full(times: int) -> Callable[[], str]:
    """A write that fails so many times for want of room."""
    left = [LoraFileError("Full.") for _ in range(times)]

    def write() -> str:
        if left:
            raise left.pop() from OSError(28, "No space left on device")
        return "written"

    return write


def test_a_write_that_fails_asks_the_control_each_time() -> None:
    asked: list[str] = []
    control = RunControl(lambda: bool(asked.append("again") or len(asked) < 3))
    writing = write_with_retry(full(2), control)
    assert [next(writing), next(writing)] == [SaveFailed("Full.")] * 2
    assert asked == ["again"], "it is asked when the event was told"
    with pytest.raises(StopIteration) as done:
        next(writing)
    assert done.value.value == "written"
    with pytest.raises(LoraFileError, match="Full"):
        list(write_with_retry(full(1), control))
    with pytest.raises(LoraFileError, match="Full"):
        list(write_with_retry(full(1), RunControl()))
