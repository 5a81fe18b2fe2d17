"""Two real processes on one data folder: a job has one owner, shown by a lock that ends with its process."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lib_lora.files.locks as locks
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.files.locks import HeldElsewhereError, held_elsewhere, hold, sole_writer
from lib_lora.jobs.queue_listing import listing
from lib_lora.jobs.queue_store import ORDER, QueueError
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config
from tests.house import assert_one_sentence
from tests.models import shared_host
from tests.test_queue import Script, add, by_name, new_queue, order, script, states, wait_for  # noqa: F401

ROOT = Path(__file__).parent.parent
OTHER = """
    import sys
    from pathlib import Path
    import lib_lora.jobs.queue as queue_room
    import lib_lora.jobs.runner as runner_room
    from tests.test_queue import Script, add, by_name, new_queue, states, wait_for

    folder = Path(sys.argv[1])
    pretended = runner_room.train = Script(folder / "states")
    queue_room.check = lambda config, host: None
    queue = new_queue(folder)
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print(repr(eval(line)), flush=True)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
"""


class Program:
    """Another process with a queue of its own on the same folder; it does what it is told, and says what came of it."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(OTHER), str(folder)], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def do(self, expression: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        self.process.wait()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


def test_a_job_of_another_program_is_shown_and_left_alone(script: Script, other: Program, tmp_path: Path) -> None:  # noqa: F811
    """It runs and waits there; here nothing removes, moves, starts or goes on with it, in one sentence each."""
    other.do("(add(queue, 'theirs'), add(queue, 'behind'))")
    other.do("wait_for(lambda: by_name(queue, 'theirs').state_folder)")
    queue = new_queue(tmp_path)
    assert states(queue) == {"theirs": "running", "behind": "waiting"}
    rows = {row["name"]: row for row in listing(queue)["jobs"]}
    assert [(rows[name]["elsewhere"], rows[name]["place"]) for name in ("theirs", "behind")] == [(True, None)] * 2
    running, waiting = by_name(queue, "theirs").id, by_name(queue, "behind").id
    actions: list[Any] = [lambda: queue.remove(running), lambda: queue.resume(running), lambda: queue.remove(waiting)]
    actions += [lambda: queue.move(waiting, -1), lambda: queue.move(running, 1), queue.release]
    for action in actions:
        with pytest.raises(QueueError, match=r"in another webui that uses this data folder; change it there\.") as error:
            action()
        assert_one_sentence(error.value.problems[0])
    with pytest.raises(ConfigError, match="'theirs' is the name of a job that runs or waits; use 'theirs-2'"):
        add(queue, "theirs")
    assert add(queue, "mine").job is not None, "a training of its own may run at the same time"
    assert script.ran == ["mine"] and other.do("pretended.ran") == "['theirs']"
    other.do("(pretended.gate('theirs').set(), pretended.gate('behind').set())")
    assert other.do("wait_for(lambda: states(queue).get('behind') == 'finished')") == "None"
    queue.look()
    assert states(queue) == {"mine": "running", "theirs": "finished", "behind": "finished"}
    queue.remove(running)
    assert "theirs" not in other.do("(queue.look(), states(queue))[1]")


def test_of_a_killed_program_the_running_job_was_interrupted_and_the_waiting_one_is_free(
    script: Script, other: Program, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    other.do("(add(queue, 'theirs', save_state=True), add(queue, 'behind'))")
    other.do("wait_for(lambda: by_name(queue, 'theirs').state_folder)")
    queue = new_queue(tmp_path)
    other.kill()
    queue.look()
    assert states(queue) == {"theirs": "interrupted", "behind": "waiting"}
    script.gate("theirs").set()
    assert queue.resume(by_name(queue, "theirs").id).job is not None
    wait_for(lambda: states(queue)["theirs"] == "finished")
    assert states(queue)["behind"] == "waiting", "what waited for another program begins when somebody says so"
    script.gate("behind").set()
    queue.release()
    wait_for(lambda: states(queue)["behind"] == "finished")


def test_what_one_goes_on_with_the_other_does_not(script: Script, tmp_path: Path) -> None:  # noqa: F811
    """Both see an interrupted job; the first who goes on has it."""
    first = Program(tmp_path)
    first.do("add(queue, 'a', save_state=True)")
    first.do("wait_for(lambda: by_name(queue, 'a').state_folder)")
    first.kill()
    queue, second = new_queue(tmp_path), Program(tmp_path)
    assert states(queue) == {"a": "interrupted"} and "interrupted" in second.do("states(queue)")
    assert queue.resume(by_name(queue, "a").id).job is not None
    said = second.do("queue.resume(by_name(queue, 'a').id)")
    assert said == "QueueError: 'a' is running in another webui that uses this data folder; change it there."
    assert second.do("queue.remove(by_name(queue, 'a').id)") == said and second.do("pretended.ran") == "[]"
    script.gate("a").set()
    wait_for(lambda: states(queue)["a"] == "finished")
    second.kill()


def test_an_order_that_two_change_loses_nothing(script: Script, other: Program, tmp_path: Path) -> None:  # noqa: F811
    """Each has jobs that wait and moves them while the other does: all are there, each in the order of its own."""
    queue = new_queue(tmp_path)
    add(queue, "mine")
    other.do("add(queue, 'theirs')")
    for number in range(4):
        add(queue, f"m{number}")
        other.do(f"add(queue, 't{number}')")
    other.process.stdin.write("[queue.move(by_name(queue, 't3').id, by) for _ in range(15) for by in (-1, -1, 1)]\n")  # type: ignore[union-attr]
    other.process.stdin.flush()  # type: ignore[union-attr]
    for _ in range(15):
        for by in (-1, -1, 1):
            queue.move(by_name(queue, "m3").id, by)
    assert other.process.stdout.readline().startswith("[None")  # type: ignore[union-attr]
    queue.look()
    other.do("queue.look()")
    assert len(json.loads((tmp_path / ".jobs" / ORDER).read_text())) == 8
    assert sorted(order(queue)) == sorted(["m0", "m1", "m2", "m3", "t0", "t1", "t2", "t3"])
    assert [name for name in order(queue) if name[0] == "m"] == ["m0", "m3", "m1", "m2"]
    assert [name for name in order(queue) if name[0] == "t"] == ["t0", "t3", "t1", "t2"]


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
def test_one_name_is_trained_by_one_program_alone(mini_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """Whatever folders for work they have: the lock is where the LoRA goes. A program that was killed leaves no obstacle."""
    out = tmp_path / "out"
    code = (
        "import sys\nfrom pathlib import Path\nfrom lib_lora.files.locks import sole_writer\n"
        "with sole_writer(Path(sys.argv[1]), 'Blob') as told:\n    print(told, flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == "[]\n"
    run = train(small_config(photos, tmp_path, steps=1), shared_host(mini_checkpoint, out), RunControl())
    with pytest.raises(ConfigError, match="'blob' is being trained into this folder by another program") as error:
        list(run)
    assert_one_sentence(error.value.problems[0])
    process.kill()
    process.wait()
    assert len(list(out.glob(".train-lora-*.lock"))) == 1
    with sole_writer(out, "another"):
        assert len(list(out.glob(".train-lora-*.lock"))) == 1, "what a killed one left is swept away"
    list(train(small_config(photos, tmp_path, steps=1), shared_host(mini_checkpoint, out), RunControl()))
    assert not list(out.glob(".train-lora-*")) and (out / "blob.safetensors").is_file()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_told_and_trained_on(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int  # noqa: F811
) -> None:  # fmt: skip
    def none(*_: object, **__: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks, "_locked", none)
    queue = new_queue(tmp_path)
    script.gate("a").set()
    add(queue, "a")
    wait_for(lambda: states(queue)["a"] == "finished")
    told = listing(queue)["trouble"]
    assert_one_sentence(told)
    assert "does not support locks" in told and "use the folder with one webui only" in told
    with sole_writer(tmp_path / "loras", "cat") as notes:
        assert len(notes) == 1 and "does not support locks" in notes[0]
        assert_one_sentence(notes[0])


def test_a_lock_that_cannot_be_removed_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder became read-only while the run was on; what is said of the save is what the user needs."""
    seen: list[Path] = []

    def refused(path: Path, missing_ok: bool = False) -> None:
        seen.append(path)
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    with pytest.raises(LoraFileError, match="could not be written"), sole_writer(tmp_path, "blob") as told:
        assert told == []
        monkeypatch.setattr(Path, "unlink", refused)
        raise LoraFileError("The LoRA could not be written.")
    monkeypatch.undo()
    (lock,) = tmp_path.glob(".train-lora-*.lock")
    assert seen == [lock] and not held_elsewhere(lock)
    with sole_writer(tmp_path, "blob"):  # and the next one begins, and clears up
        assert lock.exists()
    assert not lock.exists()


def test_locks(tmp_path: Path) -> None:
    """One process shares its locks; another sees them, waits a moment, and has them when their owner let go."""
    path = tmp_path / "lock"
    one, two = hold(path), hold(path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom lib_lora.files import locks\npath = Path(sys.argv[1])\n"
        "for line in sys.stdin:\n    print(locks.held_elsewhere(path), flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def seen() -> str:
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return process.stdout.readline().strip()  # type: ignore[union-attr]

    assert not held_elsewhere(path) and seen() == "True"
    one.release()
    one.release()
    assert seen() == "True"
    two.release(remove=True)
    assert not path.exists() and seen() == "False"
    process.stdin.close()  # type: ignore[union-attr]
    process.wait()
    holder = subprocess.Popen(
        [sys.executable, "-c", code.split("for line")[0] + "lock = locks.hold(path)\nprint(1, flush=True)\nsys.stdin.read()", str(path)],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "1\n" and held_elsewhere(path)
    with pytest.raises(HeldElsewhereError):
        hold(path, 0.05)
    holder.kill()
    holder.wait()
    hold(path).release()
