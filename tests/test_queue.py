"""The queue: order, persistence, sudden ends, and jobs that fail."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lib_lora.jobs.queue as queue_room
import lib_lora.jobs.runner as runner_room
from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.errors import ConfigError, ModelError
from lib_lora.events import Encoded, Event, Finished, Phase, Planned, Saved, StateSaved, StepDone
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.jobs.history import can_resume, settings_to_repeat, settings_to_run
from lib_lora.jobs.queue import Placed, Queue
from lib_lora.jobs.queue_entry import CURVE_POINTS, Entry, read_entry, smoothed, thinned
from lib_lora.jobs.queue_listing import details, job_json, listing
from lib_lora.jobs.queue_store import JOB, ORDER, QueueError, Store
from lib_lora.jobs.runner import Runner
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config, write_picture
from tests.folder_host import FolderHost
from tests.house import assert_one_sentence


class Host(FolderHost):
    """A host with folders of its own for LoRAs and for work."""

    def lora_folder(self) -> Path:
        return self.folder / "loras"

    def work_folder(self) -> Path:
        return self.folder / ".work"


class Script:
    """A pretended training: each name runs until it is let go, and ends as it was told to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.gates, self.ran = folder, {}, []
        self.fails: dict[str, Exception] = {}
        self.configs: dict[str, TrainConfig] = {}

    def gate(self, name: str) -> threading.Event:
        return self.gates.setdefault(name, threading.Event())

    def __call__(self, config: TrainConfig, _host: object, control: RunControl) -> Iterator[Event]:
        name = config.run.name
        self.ran.append(name)
        self.configs[name] = config
        if isinstance(self.fails.get(name), ConfigError):
            raise self.fails[name]
        yield Planned(Plan())  # type: ignore[arg-type]
        yield Phase("waiting for the model")
        yield Encoded(1, 1)
        yield StepDone(1, 4, 1, 0.5, (1e-4,))
        state = self.folder / f"{name}-state"
        state.mkdir(parents=True, exist_ok=True)
        yield StateSaved(state, 1)
        while not self.gate(name).wait(0.01):
            if control.stop_requested:
                yield Finished(None, 1)
                return
        if name in self.fails:
            raise self.fails[name]
        yield StepDone(4, 4, 1, 0.25, (1e-4,))
        yield Saved(Path(f"{name}.safetensors"), 4)
        yield Finished(Path(f"{name}.safetensors"), 4)


class Plan:
    """What a job takes of a plan."""

    formula, steps = "4 images", 4


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Script]:
    made = Script(tmp_path / "states")
    monkeypatch.setattr(runner_room, "train", made)
    monkeypatch.setattr(runner_room, "give_memory_back", lambda device: None)
    monkeypatch.setattr(queue_room, "check", lambda config, host: None)
    yield made
    for gate in made.gates.values():
        gate.set()


def new_queue(tmp_path: Path, checkpoints: Any = None) -> Queue:
    """As the program has it after its start."""
    return Queue(Runner(Host(tmp_path)), Store(tmp_path / ".jobs", tmp_path / ".uploads"), checkpoints)


def add(queue: Queue, name: str, **settings: Any) -> Placed:
    return queue.submit(build_config({"name": name, **settings}))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def states(queue: Queue) -> dict[str, str]:
    return {entry.name: entry.state for entry in queue.entries}


def order(queue: Queue) -> list[str]:
    return [entry.name for entry in queue.entries if entry.state == "waiting"]


def by_name(queue: Queue, name: str) -> Entry:
    return next(entry for entry in queue.entries if entry.name == name)


@pytest.mark.case(39)
def test_two_at_once_one_runs_the_other_is_told_its_place(script: Script, tmp_path: Path) -> None:
    queue, barrier, answers = new_queue(tmp_path), threading.Barrier(8), []

    def press(number: int) -> None:
        barrier.wait()
        answers.append(add(queue, f"job{number}"))

    threads = [threading.Thread(target=press, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.place for answer in answers) == list(range(8))
    assert [answer.job is not None for answer in sorted(answers, key=lambda answer: answer.place)] == [True] + [False] * 7
    for number in range(8):
        script.gate(f"job{number}").set()
    wait_for(lambda: set(states(queue).values()) == {"finished"})
    assert len(script.ran) == 8 and sorted(script.ran) == sorted(states(queue))


def test_one_failed_job_does_not_stop_the_next(script: Script, tmp_path: Path) -> None:
    queue = new_queue(tmp_path)
    script.fails = {
        "bug": ZeroDivisionError("oops"),
        "sentence": ModelError("Gone."),
        "refused": ConfigError(["Name (name): taken."]),
    }
    for name in ("bug", "sentence", "refused", "good"):
        add(queue, name)
    for name in ("bug", "sentence", "refused", "good"):
        script.gate(name).set()
    wait_for(lambda: states(queue).get("good") == "finished")
    assert script.ran == ["bug", "sentence", "refused", "good"]
    assert [by_name(queue, name).state for name in script.ran[:3]] == ["failed"] * 3
    assert "ZeroDivisionError: oops" in by_name(queue, "bug").problems[0]
    assert by_name(queue, "refused").problems == ("Name (name): taken.",) and by_name(queue, "good").saved == "good"
    again = new_queue(tmp_path)
    assert states(again) == states(queue) and by_name(again, "bug").problems == by_name(queue, "bug").problems


def test_order_and_removal(script: Script, tmp_path: Path) -> None:
    queue = new_queue(tmp_path)
    for name in "abcd":
        add(queue, name)
    ids = {entry.name: entry.id for entry in queue.entries}
    queue.move(ids["d"], -1)
    queue.move(ids["b"], -1)  # it is the first already
    queue.move(ids["b"], 1)
    assert order(queue) == ["d", "b", "c"]
    assert [job["place"] for job in listing(queue)["jobs"]] == [None, 1, 2, 3]
    with pytest.raises(QueueError, match="'a' is not waiting"):
        queue.move(ids["a"], 1)
    with pytest.raises(QueueError, match="'a' is running; stop it first"):
        queue.remove(ids["a"])
    queue.remove(ids["b"])
    with pytest.raises(QueueError, match="not exist any more"):
        queue.remove(ids["b"])
    assert order(new_queue(tmp_path)) == ["d", "c"], "and so after a restart"
    for name in "acd":
        script.gate(name).set()
    wait_for(lambda: set(states(queue).values()) == {"finished"})
    assert script.ran == ["a", "d", "c"]


def test_after_a_restart_waiting_jobs_wait_for_a_word_and_the_running_one_was_interrupted(script: Script, tmp_path: Path) -> None:
    first = new_queue(tmp_path)
    add(first, "a", save_state=True)
    add(first, "b")
    wait_for(lambda: by_name(first, "a").state_folder)
    files = {path: path.read_bytes() for path in (tmp_path / ".jobs").rglob("*.json")}
    queue = new_queue(tmp_path)
    assert states(queue) == {"a": "interrupted", "b": "waiting"} and queue.held
    assert {path: path.read_bytes() for path in (tmp_path / ".jobs").rglob("*.json")} == files, "looking changes nothing"
    row = details(by_name(queue, "a"))
    assert (row["step"], row["total"], row["loss"], row["can_resume"]) == (1, 4, 0.5, True)
    assert row["problems"] == ["The program ended while this job was running."]
    assert add(queue, "c").job is not None, "a new one may begin"
    script.gate("c").set()
    wait_for(lambda: states(queue)["c"] == "finished")
    time.sleep(0.05)
    assert states(queue)["b"] == "waiting", "the others are held"
    queue.release()
    script.gate("b").set()
    wait_for(lambda: states(queue)["b"] == "finished")


def test_go_on_takes_the_newest_state_and_the_jobs_own_place(script: Script, tmp_path: Path) -> None:
    queue = new_queue(tmp_path)
    first = add(queue, "a", save_state=True).job
    assert first is not None
    wait_for(lambda: by_name(queue, "a").state_folder)
    queue.runner.stop(keep=False)
    wait_for(lambda: states(queue)["a"] == "stopped")
    queue = new_queue(tmp_path)
    entry = by_name(queue, "a")
    assert can_resume(entry)
    again = queue.resume(entry.id).job
    assert again is not None and again is not first and again.id == first.id == entry.id
    shown, before = job_json(again), job_json(first)
    assert shown["id"] == before["id"] == listing(queue)["jobs"][0]["id"]
    assert shown["started"] > before["started"], "the page begins a new curve"
    script.gate("a").set()
    wait_for(lambda: states(queue)["a"] == "finished")
    assert script.configs["a"].run.resume == entry.state_folder == str(tmp_path / "states" / "a-state")
    assert by_name(queue, "a").settings == entry.settings, "what is repeated is what was given"
    with pytest.raises(QueueError, match="no saved state to resume from"):
        queue.resume(entry.id)
    assert len(queue.entries) == 1 and states(new_queue(tmp_path)) == {"a": "finished"}


def test_without_its_state_nothing_goes_on(script: Script, tmp_path: Path) -> None:
    queue = new_queue(tmp_path)
    add(queue, "a")
    wait_for(lambda: by_name(queue, "a").state_folder)
    (tmp_path / "states" / "a-state").rmdir()
    queue.runner.stop(keep=False)
    wait_for(lambda: states(queue)["a"] == "stopped")
    assert not listing(queue)["jobs"][0]["can_resume"]
    with pytest.raises(QueueError, match="repeat it instead"):
        queue.resume(by_name(queue, "a").id)


def test_a_resumed_job_stands_at_the_end_also_after_a_restart(script: Script, tmp_path: Path) -> None:
    queue = new_queue(tmp_path)
    for name in "xab":
        add(queue, name)
    for by in (-1, 1):
        queue.move(by_name(queue, "b").id, by)  # the order of a and b is written down
    script.gate("x").set()
    wait_for(lambda: by_name(queue, "a").state_folder)
    queue = new_queue(tmp_path)  # a was interrupted
    add(queue, "d")
    assert queue.resume(by_name(queue, "a").id).place == 2
    assert order(queue) == order(new_queue(tmp_path)) == ["b", "a"]


def test_a_name_that_runs_or_waits_is_refused(script: Script, tmp_path: Path) -> None:
    queue = new_queue(tmp_path)
    add(queue, "cat")
    with pytest.raises(ConfigError, match="'cat' is the name of a job that runs or waits; use 'cat-2'"):
        add(queue, "Cat".lower())
    add(queue, "cat-2")
    with pytest.raises(ConfigError, match="use 'cat-3'"):
        add(queue, "cat")
    assert add(queue, "cat", overwrite=True).place == 2


@pytest.mark.case(65)
def test_a_queue_has_an_end(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_room, "MAX_WAITING", 2)
    queue = new_queue(tmp_path)
    for name in "abc":
        add(queue, name)
    with pytest.raises(ConfigError, match="The queue is full: 2 jobs are waiting"):
        add(queue, "d")


def test_a_job_that_would_wait_is_checked_when_it_comes(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(runner_room, "train", script)
    queue = new_queue(tmp_path)
    add(queue, "a")
    with pytest.raises(ConfigError, match="Image folder"):
        add(queue, "b")
    assert states(queue) == {"a": "running"}


def test_one_that_ends_during_the_check_does_not_leave_the_next_waiting(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tmp_path)
    add(queue, "a")

    def slow(_config: object, _host: object) -> None:
        script.gate("a").set()
        wait_for(lambda: states(queue)["a"] == "finished")

    monkeypatch.setattr(queue_room, "check", slow)
    assert add(queue, "b").job is not None
    script.gate("b").set()
    wait_for(lambda: states(queue)["b"] == "finished")


def test_refused_settings_are_no_history(script: Script, tmp_path: Path) -> None:
    queue = new_queue(tmp_path)
    script.fails = {"a": ConfigError(["Rank."])}
    assert add(queue, "a").job is not None
    wait_for(lambda: not queue.entries)
    assert list((tmp_path / ".jobs").glob("*/job.json")) == []


class Checkpoints:
    """What the webui would say."""

    now = "one [1]"

    def chosen(self) -> str:
        return self.now

    def lent(self) -> str:
        return self.now


def test_another_checkpoint_than_meant_fails_and_the_next_goes_on(script: Script, tmp_path: Path) -> None:
    checkpoints = Checkpoints()
    queue = new_queue(tmp_path, checkpoints)
    add(queue, "a")
    add(queue, "b")
    wait_for(lambda: by_name(queue, "a").step == 1)
    checkpoints.now = "two [2]"
    add(queue, "c")
    for name in "abc":
        script.gate(name).set()
    wait_for(lambda: states(queue)["c"] == "finished")
    assert states(queue) == {"a": "finished", "b": "failed", "c": "finished"}
    failed = by_name(queue, "b")
    assert "for the checkpoint 'one [1]', but 'two [2]' is loaded" in failed.problems[0] and failed.step == 0


def test_dropped_images_belong_to_the_job(script: Script, tmp_path: Path) -> None:
    drop, own = tmp_path / ".uploads" / "drop-1", tmp_path / "mine"
    write_picture(drop / "a.png")
    write_picture(own / "b.png")
    queue = new_queue(tmp_path)
    add(queue, "a", data=[str(own), str(drop), f"{drop}|3"])
    entry = by_name(queue, "a")
    folder = tmp_path / ".jobs" / entry.id
    kept = [str(own), str(folder / "drop-1"), str(folder / "drop-1_") + "|3"]
    assert entry.settings["data"] == kept and script.configs["a"].data.data == tuple(kept)
    (drop / "a.png").unlink()
    assert (folder / "drop-1" / "a.png").is_file()
    add(queue, "b", data=[str(folder / "drop-1")])  # repeated with changes
    script.gate("a").set()
    wait_for(lambda: states(queue)["a"] == "finished")
    queue.remove(entry.id)
    assert not folder.exists() and (own / "b.png").is_file()
    (mine,) = by_name(queue, "b").settings["data"]
    assert mine == str(tmp_path / ".jobs" / by_name(queue, "b").id / "drop-1") and (Path(mine) / "a.png").is_file()


def test_settings_come_back_as_they_were() -> None:
    odd = {"data": ["a b", "c|3"], "unet_lr": 5e-5, "optimizer_args": "a=1 b=(2, 3)", "overwrite": True, "sample_prompts": "a\nb"}
    config = build_config({**odd, "name": "é x"})
    entry = Entry("id", json.loads(json.dumps(config.to_flat())), 5.0)
    again = read_entry("id", entry.to_json())
    assert again == entry and build_config(again.settings) == config
    assert set(again.settings) == {opt.name for opt in all_options()}


def test_repeat_offers_a_free_name_and_a_state(tmp_path: Path) -> None:
    (tmp_path / "cat.safetensors").touch()
    (tmp_path / "state").mkdir()
    entry = Entry("id", {"name": "cat", "rank": 4}, 1.0, "finished", state_folder=str(tmp_path / "state"))
    assert settings_to_repeat(entry, tmp_path) == {"name": "cat-2", "rank": 4}
    assert settings_to_repeat(entry, tmp_path, from_state=True)["resume"] == "state"
    over = Entry("id", {"name": "cat", "overwrite": True}, 1.0, "finished")
    assert settings_to_repeat(over, tmp_path)["name"] == "cat"
    with pytest.raises(QueueError, match="no saved state"):
        settings_to_repeat(over, tmp_path, from_state=True)


def test_one_that_goes_on_may_replace_its_own_files_and_no_other_lora(tmp_path: Path) -> None:
    """Killed between a file and the state of the same step, it finds a file that is newer than its state."""
    fresh = Entry("id", {"name": "cat"}, 1.0)
    again = Entry("id", {"name": "cat"}, 1.0, goes_on_from="state")
    assert settings_to_run(fresh, tmp_path) == {"name": "cat"}
    assert settings_to_run(again, tmp_path) == {"name": "cat", "resume": "state", "overwrite": True}
    (tmp_path / "cat.safetensors").touch()
    assert not settings_to_run(again, tmp_path)["overwrite"]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "[" * 100000, '{"format": 2}', '{"format": 1, "settings": {}, "queued": 1, "state": "waiting", "more": 1}',
        '{"format": 1, "settings": {}, "queued": 1, "state": "asleep"}', '{"format": 1, "settings": [], "queued": 1, "state": "waiting"}',
        '{"format": 1, "settings": {}, "queued": 1, "state": "waiting", "curve": ["x"]}', "\x00", " " * (5 * 2**20),
    ],
)  # fmt: skip
@pytest.mark.case(59)
def test_what_cannot_be_read_is_shown_as_broken_and_harms_nothing(script: Script, tmp_path: Path, text: str) -> None:
    """A job edited by hand is shown as broken, with the reason, and its file stays; an order edited so is kept as order.json.bad."""
    queue = new_queue(tmp_path)
    add(queue, "a")
    add(queue, "b")
    victim = tmp_path / ".jobs" / by_name(queue, "b").id / JOB
    victim.write_text(text)
    (tmp_path / ".jobs" / ORDER).write_text(text)
    queue = new_queue(tmp_path)
    aside = tmp_path / ".jobs" / f"{ORDER}.bad"
    if text != "[]":
        assert aside.read_text() == text and queue.trouble.endswith("and the file is kept as 'order.json.bad'.")
        assert_one_sentence(queue.trouble)
    assert new_queue(tmp_path).trouble == ""
    assert sorted(states(queue).values()) == ["broken", "interrupted"] and not queue.held
    damaged = next(entry for entry in queue.entries if entry.state == "broken")
    assert "cannot be read" in damaged.problems[0] and victim.read_text() == text
    with pytest.raises(QueueError, match="cannot be read"):
        settings_to_repeat(damaged, tmp_path)
    add(queue, "c")
    script.gate("c").set()
    wait_for(lambda: states(queue)["c"] == "finished")
    queue.remove(damaged.id)
    assert sorted(states(new_queue(tmp_path)).values()) == ["finished", "interrupted"]


@pytest.mark.case(59)
def test_files_of_another_user_are_shown_as_broken(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job and an order that may not be read, in a folder that may not be changed: shown with the reason; the list works."""
    queue = new_queue(tmp_path)
    add(queue, "a")
    add(queue, "b")
    real = Path.read_text

    def locked(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == ORDER or self == tmp_path / ".jobs" / by_name(queue, "b").id / JOB:
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", locked)
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
        (tmp_path / ".jobs" / ORDER).touch()
        seen = new_queue(tmp_path)
    assert sorted(states(seen).values()) == ["broken", "interrupted"]
    assert "the file cannot be renamed (Operation not permitted)." in seen.trouble
    assert "Permission denied" in next(entry for entry in seen.entries if entry.state == "broken").problems[0]
    assert sorted(states(new_queue(tmp_path)).values()) == ["interrupted", "waiting"]


def broken_at(monkeypatch: pytest.MonkeyPatch, call: int) -> list[int]:
    """The program dies at the `call`-th thing that it does to the disk from now on: nothing behind it happens, no cleaning up."""
    counted = [0]

    def counting(real: Any) -> Any:
        def made(*args: Any, **kwargs: Any) -> Any:
            counted[0] += 1
            if counted[0] >= call:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return made

    for name in ("replace", "rename", "mkdir", "link", "unlink", "rmdir", "fsync"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    for name in ("replace", "mkdir", "unlink"):  # Python 3.10's paths keep functions of their own
        monkeypatch.setattr(Path, name, counting(getattr(Path, name)))
    monkeypatch.setattr(shutil, "copyfile", counting(shutil.copyfile))
    return counted


@pytest.mark.parametrize("change", ["add", "move", "remove", "write"])
def test_an_end_at_any_moment_leaves_the_jobs_of_before_or_of_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    write_picture(tmp_path / ".uploads" / "drop" / "a.png")
    entries = [
        Entry(name, {"name": name, "data": [str(tmp_path / ".uploads" / "drop")]}, float(number))
        for number, name in enumerate("abc")
    ]

    def store(root: Path) -> Store:
        return Store(root / ".jobs", tmp_path / ".uploads")

    done: dict[str, Callable[[Store], object]] = {
        "add": lambda jobs: jobs.add(entries[2]),
        "move": lambda jobs: jobs.write_order(["b", "a"]),
        "remove": lambda jobs: jobs.remove("a"),
        "write": lambda jobs: jobs.write(Entry("a", {"name": "a", "data": []}, 0.0, "finished")),
    }
    expected = {
        "add": {"abwaiting", "abcwaiting"},
        "move": {"abwaiting", "bawaiting"},
        "remove": {"abwaiting", "bwaiting"},
        "write": {"abwaiting", "abfinished"},
    }[change]
    reached, call, counted = set(), 0, [1]
    while counted[0] >= call:
        call += 1
        root = tmp_path / str(call)
        for entry in entries[:2]:
            store(root).add(entry)
        with monkeypatch.context() as patch:
            counted = broken_at(patch, call)
            with contextlib.suppress(KeyboardInterrupt):
                done[change](store(root))
        found = store(root).load()
        reached.add("".join(entry.id for entry in found) + found[0].state)
        assert reached <= expected and all(entry.state != "broken" for entry in found)
        assert not [path for path in (root / ".jobs").iterdir() if path.suffix in {".tmp", ".gone"} and path.is_dir()]
    assert call > 2 and reached == expected


def test_a_full_disk_refuses_a_job_and_leaves_no_part_of_it(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tmp_path)
    add(queue, "a")
    wait_for(lambda: by_name(queue, "a").state_folder)
    before = sorted((tmp_path / ".jobs").rglob("*"))

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(QueueError, match=r"No space left on device.*free space"):
            add(queue, "b")
        assert sorted((tmp_path / ".jobs").rglob("*")) == before
        script.gate("a").set()
        wait_for(lambda: states(queue)["a"] == "finished")
        assert "No space left" in listing(queue)["trouble"]
        assert any("The run continues." in note for note in by_name(queue, "a").notes)


def test_what_cannot_be_written_down_does_not_begin(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = new_queue(tmp_path)
    add(queue, "a")
    add(queue, "b")
    wait_for(lambda: by_name(queue, "a").state_folder)
    monkeypatch.setattr(Store, "write", lambda *_: (_ for _ in ()).throw(QueueError("Full.")))
    script.gate("a").set()
    wait_for(lambda: queue.held)
    assert states(queue) == {"a": "finished", "b": "waiting"} and queue.trouble == "Full." and script.ran == ["a"]


def test_old_jobs_are_forgotten(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_room, "KEPT_ENDED", 2)
    queue = new_queue(tmp_path)
    for name in "abc":
        script.gate(name).set()
        add(queue, name)
        wait_for(lambda name=name: states(queue).get(name) == "finished")
    wait_for(lambda: list(states(queue)) == ["c", "b"])
    assert list(states(new_queue(tmp_path))) == ["c", "b"]


def test_hold_lets_the_running_one_end_and_begins_no_other(script: Script, tmp_path: Path) -> None:
    queue = new_queue(tmp_path)
    add(queue, "a")
    add(queue, "b")
    revision = queue.revision
    queue.hold()
    assert queue.revision != revision
    script.gate("a").set()
    wait_for(lambda: states(queue)["a"] == "finished")
    time.sleep(0.05)
    assert script.ran == ["a"]
    queue.release()
    assert script.gate("b").set() is None
    wait_for(lambda: states(queue)["b"] == "finished")


def test_curves() -> None:
    assert smoothed([]) is None and smoothed([float("nan")]) is None
    assert smoothed([2.0]) == pytest.approx(2.0) and smoothed([1.0, 3.0]) == pytest.approx((0.95 + 3) / 1.95)
    assert thinned([1.0, 3.0, 5.0], 2) == (2.0, 5.0) and thinned([]) == ()
    assert len(thinned([1.0] * 12345)) <= CURVE_POINTS and thinned([1.0, float("inf")], 2) == (1.0,)


def test_details_tell_what_was_changed() -> None:
    entry = Entry("id", build_config({"name": "x", "rank": 4, "data": ["/home/me/a|3", "b"]}).to_flat(), 1.0, "finished")
    assert details(entry)["settings"] == [["Image folder", "data", "a|3, b"], ["Rank", "rank", "4"], ["Name", "name", "x"]]
    json.dumps(details(entry))


def is_subsequence(part: list[type], whole: list[type]) -> bool:
    rest = iter(whole)
    return all(kind in rest for kind in part)


def real_run(photos: Path, checkpoint: Path, folder: Path, *, stopped: bool) -> list[Event]:
    """What a tiny run tells that saves a LoRA and a state at every step, and is stopped after the first or comes to its end."""
    config = small_config(photos, folder, steps=2, save_every_n_steps=1, save_state=True)
    control, events = RunControl(), []
    for event in train(config, StandaloneHost(checkpoint, folder), control):
        events.append(event)
        if stopped and isinstance(event, StepDone):
            control.request_stop(keep=False)
    return events


@pytest.mark.parametrize("stopped", [False, True])
def test_the_pretended_run_tells_what_a_real_one_tells(
    stopped: bool, photos: Path, shallow_checkpoint: Path, tmp_path: Path
) -> None:
    """The contract of `Script`: its events are told by a real run too, in this order, and a real plan has what is read of its own."""
    pytest.importorskip("diffusers")
    script, control = Script(tmp_path), RunControl()
    if stopped:
        control.request_stop(keep=False)
    else:
        script.gate("a").set()
    real, told = (
        real_run(photos, shallow_checkpoint, tmp_path / "out", stopped=stopped),
        list(script(build_config({"name": "a"}), None, control)),
    )
    kinds = [type(event) for event in told]
    assert is_subsequence(kinds, [type(event) for event in real]), f"{kinds} are no part of {real}"
    for events in (told, real):
        assert isinstance(events[-1], Finished) and (events[-1].path is None) == stopped
    plan = next(event.plan for event in real if isinstance(event, Planned))
    assert (type(Plan.formula), type(Plan.steps)) == (type(plan.formula), type(plan.steps))


def test_a_part_in_another_order_is_none() -> None:
    assert is_subsequence([Planned, Finished], [Planned, Phase, Finished])
    assert not is_subsequence([Finished, Planned], [Planned, Phase, Finished])
    assert not is_subsequence([Planned, Planned], [Planned, Finished])
