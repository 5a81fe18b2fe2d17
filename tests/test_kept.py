"""What jobs keep on disk: counted once, below a limit, and never removed automatically if a run can resume from it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.data.hidden_names import hidden_name
from lib_lora.families.sd1 import SD1
from lib_lora.files.state_file import VALUES
from lib_lora.jobs.keeper import GB, LIMIT, LIMIT_GB, parse_limit
from lib_lora.jobs.kept import remove
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_listing import listing
from lib_lora.jobs.queue_store import QueueError, Store
from lib_lora.training.latent_cache import FOLDER, LatentCache
from lib_lora.training.vae import Posterior
from tests.conftest import write_picture
from tests.house import assert_one_sentence
from tests.test_queue import Script, add, by_name, new_queue, script, states, wait_for  # noqa: F401

KB = 1000


def write(path: Path, size: int, when: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (when, when))
    return path


def a_state(folder: Path, size: int, when: float) -> Path:
    write(folder / "state.tensors", size, when)
    write(folder / VALUES, 0, when)
    os.utime(folder, (when, when))
    return folder


def a_job(root: Path, name: str, state: Any, when: float, **more: Any) -> Entry:
    """A job with one dropped picture of 1 kB, and in its run's folder a sample of 2 kB."""
    drop = root / ".jobs" / name / "drop-1"
    entry = Entry(name, {"name": name, "data": [str(drop)]}, when, state, ended=when, **more)
    Store(root / ".jobs").add(entry)
    write(drop / hidden_name("a.png"), KB, when)
    os.utime(drop, (when, when))
    write(root / ".work" / name / "samples" / hidden_name("s.png"), 2 * KB, when)
    return entry


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """Four ended jobs, the oldest first, and a waiting one."""
    runs = tmp_path / ".work"
    for name in ("done", "kept", "cut"):
        for number in (1, 2):
            a_state(runs / name / f"{name}-{number}-state", 4 * KB, 100.0 * number)
    a_state(runs / "waits" / "waits-state", 4 * KB, 1.0)
    a_job(tmp_path, "done", "finished", 10.0, state_folder=str(runs / "done" / "done-2-state"))
    a_job(tmp_path, "plain", "finished", 20.0)
    a_job(tmp_path, "cut", "interrupted", 30.0, state_folder=str(runs / "cut" / "cut-2-state"))
    a_job(tmp_path, "gone", "failed", 40.0)
    a_job(tmp_path, "waits", "waiting", 50.0, goes_on_from=str(runs / "waits" / "waits-state"))
    return new_queue(tmp_path)


def left(root: Path) -> set[str]:
    """What is there, in words."""
    found = {f"{path.parent.parent.name}'s sample" for path in (root / ".work").rglob("*.pn_")}
    found |= {f"{path.parent.parent.name}'s picture" for path in (root / ".jobs").rglob("*.pn_")}
    return found | {path.parent.name for path in (root / ".work").rglob(VALUES)}


def test_the_sum_and_what_of_it_may_go(queue: Queue) -> None:
    queue.look()
    shown = listing(queue)["kept"]
    assert queue.keeper.kept.size == (5 * 1 + 5 * 2 + 7 * 4) * KB
    assert queue.keeper.kept.free == (4 * 2 + 1 + 4) * KB, "samples of four, the picture of `plain`, the older state of `done`"
    assert queue.keeper.kept.asked == queue.keeper.kept.size - queue.keeper.kept.free - (1 + 2 + 4) * KB, "but what waits"
    assert queue.keeper.kept.names == ("cut", "done", "gone", "kept")
    assert (shown["limit"], shown["over"], shown["can_free"], shown["can_ask"]) == (LIMIT_GB, False, True, True)


def test_the_oldest_goes_first_and_only_so_much(queue: Queue, tmp_path: Path) -> None:
    queue.look()
    before = left(tmp_path)
    queue.keeper.set_limit(str((queue.keeper.kept.size - 3 * KB) / GB))
    assert before - left(tmp_path) == {"done's sample", "plain's picture"} or before - left(tmp_path) == {
        "done's sample", "plain's sample"
    }  # fmt: skip
    assert queue.keeper.kept.size <= queue.keeper.limit_gb * GB


def test_nothing_that_somebody_can_resume_from_goes_by_itself(queue: Queue, tmp_path: Path) -> None:
    """Not for any limit; what waits or runs keeps all that it has."""
    queue.keeper.set_limit("0")
    stays = {"done-2-state", "cut-1-state", "cut-2-state", "kept-1-state", "kept-2-state", "waits-state"}
    stays |= {"done's picture", "cut's picture", "gone's picture", "waits's picture", "waits's sample"}
    assert left(tmp_path) == stays and listing(queue)["kept"]["over"]
    assert by_name(queue, "cut").id and listing(queue)["jobs"][2]["has_state"] is not None
    said = queue.keeper.remove(states=True)
    assert left(tmp_path) == {"waits-state", "waits's picture", "waits's sample"} and said == "0.0 MB were removed."
    assert states(queue)["cut"] == "interrupted"
    with pytest.raises(QueueError, match="no saved state to resume from"):
        queue.resume("cut")


def test_it_is_kept_below_the_limit_when_a_job_ends(script: Script, tmp_path: Path) -> None:  # noqa: F811
    queue = new_queue(tmp_path)
    queue.keeper.set_limit("0")
    old = write(tmp_path / ".work" / "old" / "samples" / "s.pn_", KB, 1.0)
    script.gate("a").set()
    add(queue, "a")
    wait_for(lambda: states(queue).get("a") == "finished")
    wait_for(lambda: not old.exists())
    wait_for(lambda: not listing(queue)["kept"]["over"])  # the sum follows once all that may go is gone
    assert states(queue) == {"a": "finished"}


def test_a_resumed_state_and_dropped_files_of_today_stay(script: Script, tmp_path: Path) -> None:  # noqa: F811
    """Another name's state that a waiting job goes on from; a page that is open may still ask for what was dropped on it."""
    a_state(tmp_path / ".work" / "a" / "a-1-state", KB, 1.0)
    a_state(tmp_path / ".work" / "a" / "a-2-state", KB, 2.0)
    a_job(tmp_path, "a", "finished", 10.0, state_folder=str(tmp_path / ".work" / "a" / "a-2-state"))
    fresh, old = tmp_path / ".uploads" / "drop-1" / "x.pn_", tmp_path / ".uploads" / "taken" / "abc"
    write_picture(fresh.with_suffix(".png")).rename(fresh)
    write(old / "y.pn_", KB, 1.0)
    os.utime(old, (1.0, 1.0))
    queue = new_queue(tmp_path)
    add(queue, "first")
    add(queue, "b", resume="a-1-state")
    queue.keeper.set_limit("0")
    assert (tmp_path / ".work" / "a" / "a-1-state").is_dir() and fresh.is_file() and not old.exists()


def test_latents_go_by_the_limit_and_only_ours(tmp_path: Path) -> None:
    """Beside pictures that were named: what another program keeps there, or a person, stays."""
    photos = tmp_path / "photos"
    picture = write_picture(photos / "10_cat" / "a.png", 64, 64)
    cache, pixels = LatentCache(torch.nn.Linear(1, 1), SD1), torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()
    cache.keep(picture, pixels, Posterior(torch.zeros(4, 8, 8), torch.zeros(4, 8, 8)))
    (ours,) = (photos / "10_cat" / FOLDER).iterdir()
    others = [photos / "10_cat" / FOLDER / name for name in ("notes.txt", "0" * 32 + ".safetensors", "mine.safetensors")]
    others += [photos / "10_cat" / "mine.safetensors"]
    for path in others:
        write(path, KB, 1.0)
    Store(tmp_path / ".jobs").add(Entry("a", {"name": "a", "data": [f"{photos}|3"]}, 1.0, "finished", ended=1.0))
    queue = new_queue(tmp_path)
    queue.look()
    assert queue.keeper.kept.free == ours.stat().st_size + KB
    queue.keeper.set_limit("0")
    assert not ours.exists() and all(path.is_file() for path in others) and picture.is_file()
    assert cache.load(picture, pixels) is None


def test_links_and_what_is_no_job_are_left_alone(tmp_path: Path) -> None:
    precious = write(tmp_path / "precious" / "samples" / "a.pn_", KB, 1.0)
    runs = tmp_path / ".work"
    (runs / "b").mkdir(parents=True)
    (runs / "b" / "samples").symlink_to(precious.parent)
    (runs / "c").symlink_to(tmp_path / "precious")
    write(runs / "d" / "note.txt", KB, 1.0)
    queue = new_queue(tmp_path)
    queue.keeper.set_limit("0")
    queue.keeper.remove(states=True)
    assert (runs / "d" / "note.txt").is_file() and precious.is_file()


def test_files_with_several_names_count_once(tmp_path: Path) -> None:
    a_job(tmp_path, "a", "failed", 1.0)
    (tmp_path / ".uploads" / "drop-1").mkdir(parents=True)
    os.link(tmp_path / ".jobs" / "a" / "drop-1" / "a.pn_", tmp_path / ".uploads" / "drop-1" / "a.pn_")
    queue = new_queue(tmp_path)
    queue.look()
    assert queue.keeper.kept.size == 3 * KB


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "1e9", "9" * 5000, "1 2", "\0", "١٢x", "true"])
def test_a_limit_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(QueueError, match="must be a number of GB from 0 to 1e") as error:
        new_queue(tmp_path).keeper.set_limit(text)
    assert_one_sentence(error.value.problems[0])


@pytest.mark.parametrize("text", ["", "[]", '{"gb": "x"}', '{"gb": NaN}', '{"gb": -1}', '{"gb": true}', "[" * 100000, "\udc80"])
def test_a_limit_that_cannot_be_read_is_told_and_the_default_holds(tmp_path: Path, text: str) -> None:
    (tmp_path / ".jobs").mkdir()
    (tmp_path / ".jobs" / LIMIT).write_bytes(text.encode(errors="surrogateescape"))
    queue = new_queue(tmp_path)
    queue.look()
    assert queue.keeper.limit_gb == LIMIT_GB and f"cannot be read from {LIMIT!r}" in listing(queue)["trouble"]
    assert queue.keeper.set_limit("3,5") == "Jobs may keep 3.5 GB." and listing(queue)["trouble"] == ""
    assert new_queue(tmp_path).keeper.limit_gb == parse_limit(" 3.5 ") == 3.5


def test_the_page_asks_for_it(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from lib_lora.ui.guard import Guard
    from lib_lora.ui.tab_queue import QueueSection

    a_job(tmp_path, "a", "failed", 1.0)
    queue = new_queue(tmp_path)
    guard = Guard()
    section = QueueSection(queue, guard, hides_folders=False)

    def kept(wish: str) -> str:
        return asyncio.run(section.guarded(section.changes["kept"])(guard.key, wish))

    assert "Jobs may keep 7 GB." in kept("7") and queue.keeper.limit_gb == 7
    assert "must be a number of GB" in kept("much")
    assert "were removed." in kept("free") and left(tmp_path) == {"a's picture"}
    assert "were removed." in kept("states") and left(tmp_path) == set()
    json.dumps(listing(queue))


def test_what_cannot_be_removed_stays_and_is_counted(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    queue.look()
    size = queue.keeper.kept.size
    for name in ("unlink", "rmdir", "replace"):
        monkeypatch.setattr(Path, name, refused)
    monkeypatch.setattr("shutil.rmtree", refused)
    assert not any(remove(piece) for piece in queue.keeper._pieces()) and queue.keeper.renew() is False
    assert queue.keeper.kept.size == size
