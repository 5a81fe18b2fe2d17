"""The list of jobs with anything in its folder: unreadable jobs are shown as broken, with a reason, and can be removed."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from lib_lora.config.groups import build_config
from lib_lora.errors import TrainLoraError
from lib_lora.jobs.history import can_resume, settings_to_repeat, settings_to_run
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_entry import Entry, read_entry
from lib_lora.jobs.queue_listing import details, listing
from lib_lora.jobs.queue_store import JOB, ORDER, QueueError, Store
from tests.test_queue import new_queue, states

DEEP = "[" * 2000 + "]" * 2000
BIG = "9" * 4000
VALUES = [
    "null", "true", "0", "-1", "1.5", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", BIG, "-" + BIG, "9" * 5000, "1e15", str(2**53), '""',
    '"\\u0000"', '"\\ud800"', '"../../etc"', json.dumps("x" * 300), json.dumps("x/" * 3000), json.dumps("a" * 100000), '"|999999"', '"waiting"',
    '"broken"', "[]", "[[]]", "[1]", '["x"]', '["' + "y" * 5000 + '|3"]', "[NaN]", "[true]", "{}", '{"name": {}}', '{"name": ["x"]}', '{"name": NaN}',
    '{"data": "x"}', '{"data": [1, null]}', '{"rank": ' + BIG + "}", '{"name": "\\ud800"}', '{"no such option": 1}', '{"resume": "a\\u0000b"}',
    '{"name": ' + DEEP + "}", DEEP,
]  # fmt: skip


def whole() -> dict[str, str]:
    """Every field of a job's file, as JSON."""
    entry = Entry("a", json.loads(json.dumps(build_config({"name": "cat"}).to_flat())), 1.0, "stopped", started=1.0, ended=2.0, loss=0.5,
                  seen=2.0, curve=(0.5,), problems=("No.",), notes=("Yes.",), between=("cat-1",), saved="cat", state_folder="/no/such", goes_on_from="x")  # fmt: skip
    return {name: json.dumps(value) for name, value in json.loads(entry.to_json()).items()}


def text_of(fields: dict[str, str]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"


def put(root: Path, name: str, content: str | bytes) -> Path:
    path = root / ".jobs" / name / JOB
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
    return path


def assert_shown(queue: Queue, root: Path) -> None:
    """The list and every job of it can be sent to a page; every button answers, or says in a sentence why not."""
    for answer in (listing(queue), *(details(entry) for entry in queue.entries)):
        json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
    for row, entry in zip(listing(queue)["jobs"], queue.entries):
        assert queue.entry(row["id"]) is entry and -8.64e12 <= row["when"] <= 8.64e12
        assert entry.state != "broken" or (len(entry.problems) == 1 and "cannot be read" in entry.problems[0])
        actions: list[Any] = [lambda e=entry: settings_to_repeat(e, root), lambda e=entry: build_config(settings_to_run(e, root))]
        actions += [
            lambda e=entry: settings_to_repeat(e, root, from_state=True),
            lambda e=entry: queue.move(e.id, 1),
            lambda e=entry: can_resume(e),
        ]
        if not can_resume(entry):
            actions.append(lambda e=entry: queue.resume(e.id))
        for action in actions:
            try:
                action()
            except TrainLoraError as error:
                assert error.problems and all(error.problems)


def test_one_odd_value_anywhere(tmp_path: Path) -> None:
    """Each field with each value: the job is shown, as it is or as broken, and the others with it."""
    fields = whole()
    expected = 0
    for number, name in enumerate(fields):
        for place, value in enumerate(VALUES):
            put(tmp_path, f"{number}-{place}", text_of({**fields, name: value}))
            expected += 1
    put(tmp_path, "whole", text_of(fields))
    queue = new_queue(tmp_path)
    assert len(queue.entries) == expected + 1 and queue.entry("whole").state == "stopped"
    assert_shown(queue, tmp_path)
    assert {entry.state for entry in queue.entries} >= {"broken", "stopped", "waiting"}
    broken = [entry for entry in queue.entries if entry.state == "broken"]
    assert len(broken) > expected / 2
    queue.keeper.renew()
    for entry in broken[:5]:
        queue.remove(entry.id)
    assert len(new_queue(tmp_path).entries) == expected - 4


@pytest.mark.parametrize("seed", range(5))
def test_bytes_of_any_kind(tmp_path: Path, seed: int) -> None:
    """A job's file cut, turned over and filled up at random."""
    rng, good = random.Random(seed), text_of(whole()).encode()
    for number in range(60):
        content = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(content) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                del content[at : at + rng.randrange(50)]
            elif kind == 1:
                content[at:at] = rng.randbytes(rng.randrange(20))
            elif kind == 2:
                content[at:at] = rng.choice(VALUES).encode(errors="surrogatepass")[:5000]
            else:
                content[at:at] = rng.choice([b"{", b"[", b'"', b",", b":", b"\\", b"\xff"]) * rng.randrange(1, 2000)
        put(tmp_path, f"job{number}", bytes(content))
    put(tmp_path, "whole", good)
    (tmp_path / ".jobs" / ORDER).write_bytes(rng.randbytes(100))
    queue = new_queue(tmp_path)
    assert len(queue.entries) == 61 and queue.entry("whole").state == "stopped" and ORDER in queue.trouble
    assert_shown(queue, tmp_path)


@pytest.mark.parametrize(
    "text", ["null", "3", '"x"', "{}", "[1]", "[null]", '["a", "a", "b"]', json.dumps(["x" * 10000]), DEEP, '["\\ud800"]']
)
def test_orders_of_any_kind(tmp_path: Path, text: str) -> None:
    put(tmp_path, "a", text_of(whole()))
    (tmp_path / ".jobs" / ORDER).write_text(text)
    queue = new_queue(tmp_path)
    assert states(queue) == {"cat": "stopped"}
    assert_shown(queue, tmp_path)


def test_folders_of_any_kind(tmp_path: Path) -> None:
    """No file, a folder or a pipe in its place, links, names of other bytes, names as long as a disk takes, and what is no folder."""
    jobs = tmp_path / ".jobs"
    put(tmp_path, "good", text_of(whole()))
    (jobs / "empty").mkdir()
    (jobs / "folder" / JOB).mkdir(parents=True)
    (jobs / "loop").mkdir()
    (jobs / "loop" / JOB).symlink_to(JOB)
    (jobs / "round").symlink_to("round")
    (jobs / "nowhere").symlink_to(tmp_path / "nothing")
    (jobs / "file").touch()
    put(tmp_path, "x" * 255, text_of(whole()))
    put(tmp_path, "a b#?%&<i>'\"", text_of(whole()))
    put(tmp_path, "lock", text_of(whole()))
    (jobs / "locked" / "lock").mkdir(parents=True)
    names = {"good", "empty", "folder", "loop", "x" * 255, "a b#?%&<i>'\"", "lock", "locked"}
    if os.name != "nt":
        (jobs / "pipe").mkdir()
        os.mkfifo(jobs / "pipe" / JOB)
        (jobs / os.fsdecode(b"caf\xe9")).mkdir()
        names |= {"pipe", "bytes-" + b"caf\xe9".hex()}
    (jobs / ORDER).mkdir()
    queue = new_queue(tmp_path)
    assert {entry.id for entry in queue.entries} == names
    assert_shown(queue, tmp_path)
    queue.look()
    for name in names:
        queue.remove(name)
    assert queue.entries == new_queue(tmp_path).entries == () and (jobs / "file").is_file()


@pytest.mark.parametrize("state", ["x" * 300, "/" + "y" * 5000, "a\0b", "\udc80", "", ".", "~nobody/x", "CON"])
def test_a_state_folder_of_any_name_is_no_obstacle(tmp_path: Path, state: str) -> None:
    """One that the disk finds too long had killed the whole list."""
    entry = read_entry(
        "a",
        text_of({**whole(), "state_folder": json.dumps(state), "settings": json.dumps({"name": "cat", "data": [state + "|3"]})}),
    )
    assert entry.state_folder == state
    Store(tmp_path / ".jobs").add(entry)
    queue = new_queue(tmp_path)
    assert_shown(queue, tmp_path)
    if state != ".":
        assert not listing(queue)["jobs"][0]["can_resume"]
        with pytest.raises(QueueError, match="repeat it instead"):
            queue.resume("a")
    assert not queue.owns(state) and queue.entry("a").settings["data"] == [state + "|3"]
    queue.keeper.renew()


def test_a_job_that_goes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a", text_of(whole()))
    put(tmp_path, "b", text_of(whole()))
    real = Path.stat

    def vanishing(self: Path, **more: Any) -> Any:
        if self.name == "b":
            raise FileNotFoundError(2, "No such file or directory")
        return real(self, **more)

    monkeypatch.setattr(Path, "stat", vanishing)
    assert [entry.id for entry in new_queue(tmp_path).entries] == ["a"]
