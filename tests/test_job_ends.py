"""However a run ends: the trainer is free, a sentence says why, the next job begins, and the ended one can be removed."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lib_lora.jobs.queue as queue_room
import lib_lora.jobs.runner as runner_room
import lib_lora.training.cadence as cadence
from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.errors import ConfigError
from lib_lora.events import Encoded, Event, Finished, HeldOut, Phase, Planned, Saved, StateSaved, StepDone
from lib_lora.jobs.job import Job
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_entry import Entry, smoothed, thinned
from lib_lora.jobs.queue_listing import details, job_json, listing
from lib_lora.jobs.queue_store import JOB, Store
from lib_lora.jobs.runner import Runner
from lib_lora.run_control import RunControl
from tests.test_queue import PLAN, Host, add, by_name, new_queue, states, wait_for


class UnshowableError(Exception):
    """An error whose text is one."""

    def __str__(self) -> str:
        raise ValueError("no text")


class OfNobody(BaseException):
    """No Exception."""


ERRORS: list[Callable[[], BaseException]] = [
    lambda: TypeError("unsupported operand"), lambda: SystemExit(), lambda: SystemExit(3), lambda: KeyboardInterrupt(),
    lambda: MemoryError(), lambda: GeneratorExit(), lambda: RecursionError("deep"), lambda: OSError(28, "No space left on device"),
    lambda: StopIteration(), lambda: UnicodeEncodeError("utf-8", "\udc80", 0, 1, "surrogates"), lambda: UnshowableError(), lambda: OfNobody("odd"),
]  # fmt: skip
BEFORE = ["at once", "planning", "waiting", "encoding", "step", "saving"]


class Ending:
    """A pretended training: `broken` meets an error at a place, all others come to their ends."""

    def __init__(self, place: str, error: Callable[[], BaseException]) -> None:
        self.place, self.error = place, error
        self.ran: list[str] = []
        self.go = threading.Event()  # the next one is queued by now

    def __call__(self, config: TrainConfig, _host: object, _control: RunControl) -> Iterator[Event]:
        name = config.run.name
        self.ran.append(name)
        if name == "broken":
            self.go.wait(30)
        self._meet(name, "at once")
        yield Planned(PLAN)
        self._meet(name, "planning")
        yield Phase("waiting for the model")
        self._meet(name, "waiting")
        yield Encoded(1, 1)
        self._meet(name, "encoding")
        yield StepDone(1, 2, 1, math.nan if self.place == "NaN" and name == "broken" else 0.5, (1e-4,))
        self._meet(name, "step")
        yield StateSaved(Path("nowhere"), 1)
        yield StepDone(2, 2, 1, 0.25, (1e-4,))
        self._meet(name, "saving")
        yield Saved(Path(f"{name}.safetensors"), 2)
        if self.place == "no end" and name == "broken":
            return
        yield Finished(Path(f"{name}.safetensors"), 2)

    def _meet(self, name: str, place: str) -> None:
        if name == "broken" and place == self.place:
            raise self.error()


def pretend(monkeypatch: pytest.MonkeyPatch, place: str, error: Callable[[], BaseException]) -> Ending:
    made = Ending(place, error)
    monkeypatch.setattr(runner_room, "train", made)
    monkeypatch.setattr(runner_room, "give_memory_back", lambda device: None)
    monkeypatch.setattr(queue_room, "check", lambda config, host: None)
    monkeypatch.setattr(cadence, "RECORD_EVERY_S", 0.0)  # every step is written down
    return made


def both(queue: Queue, ending: Ending) -> tuple[Entry, Entry]:
    """What became of a job that meets its error, and of the one behind it, which has to begin and to end."""
    job = add(queue, "broken").job
    assert job is not None
    add(queue, "next")
    ending.go.set()
    wait_for(lambda: states(queue).get("next") not in {None, "waiting", "running"})
    assert ending.ran == ["broken", "next"] and not job.running
    assert not queue.runner.job or not queue.runner.job.running
    json.dumps(listing(queue), allow_nan=False)
    return by_name(queue, "broken"), by_name(queue, "next")


@pytest.mark.parametrize("place", BEFORE)
@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_an_error_of_any_kind_anywhere_in_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, number: int
) -> None:
    ending = pretend(monkeypatch, place, ERRORS[number])
    queue = new_queue(tmp_path)
    broken, following = both(queue, ending)
    kind = type(ERRORS[number]()).__name__
    kind = "RuntimeError" if kind == "StopIteration" else kind  # as Python has it inside a generator
    assert broken.state == "failed" and kind in broken.problems[0] and following.state == "finished"
    queue.remove(broken.id)
    assert states(queue) == states(new_queue(tmp_path)) == {"next": "finished"}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loss: float) -> None:
    """It is left out of what is kept, and ends nothing by itself."""
    ending = pretend(monkeypatch, "NaN", OfNobody)
    monkeypatch.setattr(math, "nan", loss)
    queue = new_queue(tmp_path)
    broken, following = both(queue, ending)
    assert broken.state == following.state == "finished" and broken.curve == (0.25,) and broken.loss == pytest.approx(0.25)
    assert states(new_queue(tmp_path)) == {"broken": "finished", "next": "finished"}


def test_means_leave_out_what_is_no_number() -> None:
    assert smoothed([math.nan, 2.0, math.inf]) == pytest.approx(2.0) and smoothed([math.nan]) is None
    assert thinned([math.nan, 1.0, 3.0, math.inf], 2) == (1.0, 3.0) and thinned([math.nan, math.nan]) == ()
    assert smoothed([1e308] * 400) == pytest.approx(1e308) and thinned([1e308] * 400, 2) == ()


def test_a_run_without_an_end_has_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    queue = new_queue(tmp_path)
    broken, following = both(queue, pretend(monkeypatch, "no end", OfNobody))
    assert broken.state == "failed" and "ended without a result" in broken.problems[0] and following.state == "finished"


@pytest.mark.parametrize("number", range(len(ERRORS)))
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Queue, "_replace"), (Store, "write"), (queue_room, "with_progress"), (Job, "progress"),
        (runner_room, "give_memory_back"), (Queue, "_check_lent"), (Job, "fail"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)  # fmt: skip
def test_an_error_of_any_kind_in_the_bookkeeping(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, owner: Any, name: str, number: int
) -> None:
    """While the first job runs and ends, one thing that is done for the list meets the error, each time that it is done."""
    ending = pretend(monkeypatch, "step" if name == "fail" else "none", lambda: ZeroDivisionError())
    queue = new_queue(tmp_path)
    found = getattr(owner, name)
    real = found.fget if isinstance(found, property) else found

    def meeting(*values: Any, **more: Any) -> Any:
        if ending.ran == ["broken"] and threading.current_thread() is queue.runner._thread:
            raise ERRORS[number]()
        return real(*values, **more)

    monkeypatch.setattr(owner, name, property(meeting) if isinstance(found, property) else meeting)
    if name in {"write", "_replace", "fail"}:  # of the second job, too: it cannot be written down that it runs
        add(queue, "broken")
        ending.go.set()
        wait_for(lambda: queue._current is None and (name != "fail" or not queue.runner._thread.is_alive()))  # type: ignore[union-attr]
        ending.ran.append("over")
        queue.look()
        assert add(queue, "next").job is not None
        wait_for(lambda: states(queue)["next"] == "finished")
        assert all(state != "running" for state in states(queue).values())
        queue.remove(by_name(queue, "broken").id)
        assert states(queue) == {"next": "finished"}
        return
    broken, following = both(queue, ending)
    assert broken.over and following.state == "finished"
    queue.remove(broken.id)


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_a_thread_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    if not isinstance(ERRORS[number](), Exception):
        pytest.skip("what ends a program ends the request that asked for the run")
    ending = pretend(monkeypatch, "none", OfNobody)
    queue = new_queue(tmp_path)

    def refusing(self: threading.Thread) -> None:
        raise ERRORS[number]()

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refusing)
        with pytest.raises(ConfigError, match="The run cannot start"):
            add(queue, "broken")
    assert states(queue) == {} and queue.runner.job is None
    ending.go.set()
    assert add(queue, "broken").job is not None
    wait_for(lambda: states(queue)["broken"] == "finished")


@pytest.mark.parametrize("what", ["thread", "settings", "folder"])
def test_one_that_cannot_begin_at_its_turn_has_failed_and_the_next_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    ending = pretend(monkeypatch, "none", OfNobody)
    queue = new_queue(tmp_path)
    add(queue, "broken")  # holds the place
    add(queue, "victim")
    add(queue, "next")
    real: dict[str, Any] = {"thread": threading.Thread.start, "settings": queue_room.settings_to_run, "folder": Host.lora_folder}
    met: list[str] = []

    def once(*values: Any, **more: Any) -> Any:
        if ending.go.is_set() and not met and (what != "thread" or values[0].name.startswith("train-lora-")):
            met.append(what)
            raise SystemExit("odd") if what == "settings" else RuntimeError("can't start new thread")
        return real[what](*values, **more)

    owner: Any = {"thread": threading.Thread, "settings": queue_room, "folder": Host}[what]
    monkeypatch.setattr(owner, {"thread": "start", "settings": "settings_to_run", "folder": "lora_folder"}[what], once)
    ending.go.set()
    wait_for(lambda: states(queue).get("next") == "finished")
    assert states(queue) == {"next": "finished", "broken": "finished", "victim": "failed"} and ending.ran == ["broken", "next"]
    assert by_name(queue, "victim").problems


def test_a_thread_that_died_without_a_word_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Something ends the thread outside of all that is looked after; the next look, or the next job, frees the trainer."""
    ending = pretend(monkeypatch, "none", OfNobody)
    queue = new_queue(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "_run", lambda self, job: None)
        add(queue, "broken")
        wait_for(lambda: not queue.runner._thread.is_alive())  # type: ignore[union-attr]
    add(queue, "next")
    queue.look()
    wait_for(lambda: states(queue)["next"] == "finished")
    assert by_name(queue, "broken").state == "failed" and "ended unexpectedly" in by_name(queue, "broken").problems[0]
    assert ending.ran == ["next"]


def test_what_is_no_text_is_written_down_and_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file name of other bytes in a sentence: the job is kept, read again, and shown by a route that writes UTF-8."""
    pretend(monkeypatch, "at once", lambda: RuntimeError("caf\udce9.png"))
    monkeypatch.setattr(runner_room.log, "disabled", True)  # what pytest sends between its processes is UTF-8, too
    queue = new_queue(tmp_path)
    add(queue, "broken").job  # noqa: B018
    add(queue, "next")
    runner_room.train.go.set()  # type: ignore[attr-defined]
    wait_for(lambda: states(queue).get("next") == "finished")
    again = new_queue(tmp_path)
    assert again.entries == queue.entries and "caf?.png" in by_name(again, "broken").problems[0]
    json.dumps(listing(again), ensure_ascii=False).encode()
    json.dumps(details(by_name(again, "broken")), ensure_ascii=False).encode()


def test_a_job_that_ended_while_the_disk_was_full_is_over_for_everybody_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ending = pretend(monkeypatch, "none", OfNobody)
    queue = new_queue(tmp_path)
    add(queue, "broken")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        ending.go.set()
        wait_for(lambda: states(queue)["broken"] == "finished")
    queue.look()
    assert states(queue) == {"broken": "finished"} and "could not be written" in queue.trouble
    time.sleep(0.01)
    queue.remove(by_name(queue, "broken").id)
    assert list((tmp_path / ".jobs").glob(f"*/{JOB}")) == [] and queue.entries == ()


def test_a_held_out_loss_that_is_no_number_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def train(*_: object) -> Iterator[Event]:
        yield Planned(PLAN)
        yield StepDone(1, 1, 1, 0.5, (1e-4,))
        yield HeldOut(1, math.nan)
        yield Finished(Path("a.safetensors"), 1)

    pretend(monkeypatch, "none", OfNobody)
    monkeypatch.setattr(runner_room, "train", train)
    queue = new_queue(tmp_path)
    job = queue.submit(build_config({"name": "a"})).job
    wait_for(lambda: states(queue)["a"] == "finished")
    assert job is not None and job_json(job)["state"] == "done"
