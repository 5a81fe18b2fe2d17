"""Between two steps: what is requested of a paused run is done once, and of one without a step not yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lib_lora.events import Event, Lent, Note, StepDone
from lib_lora.output.standing import stood
from lib_lora.run_control import RunControl

DONE = StepDone(3, 9, 1, 0.5, (1e-4,))


class Parts:
    """A loan, a trainer and a checkpointer that tell what they are asked."""

    def __init__(self, control: RunControl, *, lends: bool) -> None:
        self.control, self.lends, self.renewed = control, lends, 0
        self.learned: list[bool] = []

    def offer(self, *, needs_vae: bool, learned: bool) -> Iterator[Event]:
        del needs_vae
        self.learned.append(learned)
        if self.lends and self.control.paused:
            yield Lent("lent")
            self.control.stand(serves=learned)
            return True
        return False

    def renew(self) -> None:
        self.renewed += 1

    def meanwhile(self, done: StepDone, *, asked: bool, asked_samples: bool) -> Iterator[Event]:
        yield Note(f"{done.step} {asked} {asked_samples} {self.control.asked}")


def run(done: StepDone | None, control: RunControl, *, lends: bool) -> tuple[list[str], threading.Thread, Parts]:
    told: list[str] = []
    parts: Any = Parts(control, lends=lends)

    def follow() -> None:
        for event in stood(done, parts, parts, parts, control, needs_vae=False):
            told.append(event.text if isinstance(event, (Note, Lent)) else "")

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    return told, thread, parts


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


@pytest.mark.parametrize("lends", [False, True])
def test_a_paused_run_does_what_is_requested_and_stands_again(lends: bool) -> None:
    control = RunControl()
    control.pause()
    told, thread, parts = run(DONE, control, lends=lends)
    until(lambda: control._still > 0)
    control.request_save()
    until(lambda: told[int(lends) :] and control._still > 0)
    assert [text for text in told if text != "lent"] == ["3 True False ['save']"]
    control.request_sample()
    until(lambda: len([text for text in told if text != "lent"]) == 2 and control._still > 0)
    assert told[-1 - int(lends)] == "3 False True ['sample']" and control.asked == [] and thread.is_alive()
    assert parts.renewed == (2 if lends else 0), "the model was borrowed anew each time"
    control.unpause()
    thread.join(10)
    assert not thread.is_alive() and control.pauses_itself


def test_before_the_first_step_requests_wait_for_it() -> None:
    control = RunControl()
    control.pause()
    told, thread, parts = run(None, control, lends=False)
    control.request_save()
    time.sleep(0.2)
    assert thread.is_alive() and parts.learned == [False]
    control.unpause()
    thread.join(10)
    assert not thread.is_alive() and told == [] and control.asked == ["save"], "taken after the step"


def test_a_run_that_ends_serves_nothing_more() -> None:
    control = RunControl()
    control.request_save()
    control.request_stop(keep=False)
    told, thread, _ = run(DONE, control, lends=False)
    thread.join(10)
    assert told == [] and not thread.is_alive()
