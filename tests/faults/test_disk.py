"""Cases 25 to 27, 31 to 33: disks that are full or fail, and what is left on them."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lib_lora.files.atomic as atomic
from lib_lora.events import Finished, Note, Planned, SavedBetween, SaveFailed, StateSaved, StepDone
from lib_lora.files.lora_file import read
from lib_lora.files.state_file import TENSORS, VALUES
from lib_lora.jobs.job import Job
from lib_lora.jobs.queue_listing import job_json
from lib_lora.training.latent_cache import FOLDER as CACHE_FOLDER
from tests.conftest import write_picture
from tests.house import House

SMALL_DISK = 1 << 20


@pytest.fixture
def small_disk(host: Any) -> Iterator[Path]:
    """The LoRA folder on a disk of 1 MiB."""
    folder = host.lora_folder()
    folder.mkdir(parents=True)
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file that leaves `leave` bytes of the disk."""
    path = folder / "filler"
    free = os.statvfs(folder)
    path.write_bytes(b"x" * (free.f_bavail * free.f_bsize - leave))
    return path


def no_space(monkeypatch: pytest.MonkeyPatch, where: str, error: int = errno.ENOSPC) -> list[str]:
    """Writes of files whose path has `where` in it break off in the middle; as long as the list that is returned is empty."""
    real, room = os.fdopen, []

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, content: bytes) -> int:
            self.file.write(content[: len(content) // 2])
            raise OSError(error, os.strerror(error))

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

    def opened(handle: int, *args: Any, **kwargs: Any) -> Any:
        file = real(handle, *args, **kwargs)
        path = str(Path(f"/proc/self/fd/{handle}").readlink())
        return Full(file) if where in path and not room else file

    monkeypatch.setattr(atomic.os, "fdopen", opened)
    return room


def patient(make_room: Any) -> Any:
    """Makes room a moment after the run began to stand, and lets it go on."""

    def at(event: object, job: Job) -> None:
        if isinstance(event, SaveFailed):

            def later() -> None:
                while not job.control.paused:
                    threading.Event().wait(0.01)
                assert job_json(job)["state"] == "paused" and "press Unpause" in job_json(job)["phase"]
                make_room()
                job.unpause()

            threading.Thread(target=later, daemon=True).start()

    return at


@pytest.mark.case(25)
def test_a_disk_that_is_full(house: House, quick: Any, small_disk: Path) -> None:
    """A LoRA folder of 1 MiB that fills up: the old file is there byte for byte, the run stands with a sentence, and ends well once there is room."""
    old = house.run(quick()).of(Finished)[0].path.read_bytes()
    filler = fill(small_disk, 20_000)
    seen: list[bytes] = []

    def make_room() -> None:
        seen.append((small_disk / "blob.safetensors").read_bytes())
        filler.unlink()

    run = house.run(quick(overwrite=True, seed=9), patient(make_room))
    failed = run.of(SaveFailed)
    assert len(failed) == 1 and "No space left on device" in failed[0].text and seen == [old]
    assert run.of(Finished)[0].path.read_bytes() != old


@pytest.mark.case(25)
@pytest.mark.parametrize("when", ["at the end", "in between"])
def test_room_is_made(when: str, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that breaks off for want of room, at the end or in between: the old file stays, the run stands, then saves and goes on."""
    old = house.run(quick(name="blob")).of(Finished)[0].path
    before = old.read_bytes()
    with monkeypatch.context() as patch:
        room = no_space(patch, "/.blob-step" if when == "in between" else "/.blob-")
        flat = {"save_every_n_steps": 1} if when == "in between" else {}
        run = house.run(quick(overwrite=True, seed=9, **flat), patient(lambda: room.append(old.read_bytes() == before)))
    assert room == [True] and len(run.of(SaveFailed)) == 1 and run.job["state"] == "done" and old.read_bytes() != before
    assert len(run.of(SavedBetween)) == (2 if flat else 0) and len(run.of(StepDone)) == 2


@pytest.mark.case(25)
def test_nobody_makes_room(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while it stands: the run ends with the sentence, the old file is there byte for byte, the model is given back."""
    old = house.run(quick()).of(Finished)[0].path
    before = old.read_bytes()

    def at(event: object, job: Job) -> None:
        if isinstance(event, SaveFailed):
            threading.Timer(0.1, lambda: (job.control.request_stop(keep=True), job.unpause())).start()

    with monkeypatch.context() as patch:
        no_space(patch, "/.blob-")
        run = house.run(quick(overwrite=True, seed=9), at)
    assert run.job["state"] == "failed" and "No space left on device" in run.told[0] and "free space" in run.told[0]
    assert old.read_bytes() == before


@pytest.mark.case(26)
@pytest.mark.parametrize(("where", "kept"), [("-state-", "states"), ("/samples/", "samples"), ("/.blob-", "card")])
def test_no_room_for_states_samples_and_cards(
    where: str, kept: str, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state, a sample or a card that cannot be written: told, the training goes on to its end, the newest whole state is gone on with."""
    flat = {
        "steps": 3,
        "save_every_n_steps": 1,
        "save_state": True,
        "overwrite": True,
        "sample_every_n_steps": 1,
        "sample_prompts": "a --s 1",
    }
    whole = house.run(quick(name="whole", **flat))
    if kept == "card":
        from lib_lora.output import card

        monkeypatch.setattr(
            card, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
        )
        run = house.run(quick(**flat))
    else:
        room = no_space(monkeypatch, where)

        def at(event: object, job: Job) -> None:
            if isinstance(event, StepDone) and kept == "states":
                room[:] = [] if event.step == 2 else ["the first and third state have room"]

        run = house.run(quick(**flat), at)
    assert run.of(Note) and all("No space left on device" in note.text for note in run.of(Note)) and not run.of(SaveFailed)
    assert len(run.of(StepDone)) == 3 and _equal(run, whole)
    if kept == "states":
        assert [event.step for event in run.of(StateSaved)] == [1, 3, 3]
        more = house.run(quick(**{**flat, "steps": 4}, resume="blob"))
        assert [event.step for event in more.of(StepDone)] == [4] and more.of(Finished)[0].path


def _equal(first: Any, second: Any) -> bool:
    one, two = (read(run.of(Finished)[0].path)[0] for run in (first, second))
    return one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.case(27)
@pytest.mark.parametrize("error", [errno.EIO, errno.EXDEV])
@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_fsync_and_rename_fail(broken: str, error: int, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO and EXDEV from fsync or rename: the old file stays, the run stands, and saves when it is let go on."""
    old = house.run(quick()).of(Finished)[0].path
    before, room = old.read_bytes(), []
    owner = os if broken == "fsync" else Path
    real = getattr(owner, broken)

    def fails(*args: Any) -> Any:
        if not room:
            raise OSError(error, os.strerror(error))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, broken, fails)
        run = house.run(quick(overwrite=True, seed=9), patient(lambda: room.append(old.read_bytes() == before)))
    assert room == [True] and run.job["state"] == "done" and old.read_bytes() != before


@pytest.mark.case(27, 67)
def test_a_file_that_another_program_holds(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that is not permitted (as Windows answers while the file is mapped): saved under the next free name, and told."""
    old = house.run(quick()).of(Finished)[0].path
    before, real = old.read_bytes(), Path.replace

    def held(self: Path, target: Any) -> Path:
        if Path(target) == old:
            raise PermissionError(errno.EACCES, "The process cannot access the file because it is being used by another process")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", held)
        run = house.run(quick(overwrite=True, seed=9))
    new = run.of(Finished)[0].path
    assert new.name == "blob-2.safetensors" and old.read_bytes() == before
    assert read(new)[1]["ss_output_name"] == "blob-2" and "'blob-2'" in run.told[0]


@pytest.mark.case(67)
def test_tensors_that_are_mapped_keep_their_values(house: House, quick: Any) -> None:
    """A LoRA overwritten while its tensors are mapped into memory: they keep their values."""
    from safetensors.torch import load_file

    old = house.run(quick()).of(Finished)[0].path
    mapped, copied = load_file(old), read(old)[0]
    house.run(quick(overwrite=True, seed=9))
    assert all(torch.equal(mapped[key], copied[key]) for key in copied)
    assert any(not torch.equal(read(old)[0][key], copied[key]) for key in copied)


STATES = {"steps": 4, "save_every_n_steps": 1, "save_state": True, "overwrite": True}


def newest(house: House) -> Path:
    return house.host.work_folder() / "blob" / "blob-step00000002-state"


def begun(house: House, quick: Any) -> None:
    """A run of 4 steps that ended after its second, with two states."""

    def at(event: object, job: Job) -> None:
        if isinstance(event, StateSaved) and event.step == 2:
            raise RuntimeError("power")

    assert house.run(quick(**STATES), at).job["state"] == "failed"


@pytest.mark.case(33)
@pytest.mark.parametrize("damage", ["flipped", "cut off", "missing", "of the future"])
@pytest.mark.parametrize("file", [VALUES, TENSORS])
def test_a_damaged_state(file: str, damage: str, house: House, quick: Any) -> None:
    """Each file of the newest state flipped by a byte, cut off, missing, of a future format: refused by its hash, told, the older one is gone on with."""
    whole = house.run(quick(**{**STATES, "name": "whole", "save_state": False}))
    begun(house, quick)
    path = newest(house) / file
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut off":
        path.write_bytes(content[:-1])
    elif damage == "missing":
        path.unlink()
    elif file == VALUES:
        path.write_bytes(bytes(content).replace(b'"format": 1', b'"format": 9', 1))
    else:
        path.write_bytes(bytes(content) + b"\0")
    named = house.run(quick(**STATES, resume=str(newest(house))))
    assert named.job["state"] == "failed" and len(named.told) == 1
    run = house.run(quick(**STATES, resume="blob"))
    assert [event.step for event in run.of(StepDone)] == [2, 3, 4] and _equal(run, whole)
    if (file, damage) != (VALUES, "missing"):  # then it is no state at all
        assert any(
            "'blob-step00000002-state' is damaged; the run resumes from 'blob-step00000001-state'" in text for text in run.told
        )


@pytest.mark.case(32)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": 2}, r"Rank (rank) was 1, is 2"),
        ({"unet_lr": 2e-3}, "was 0.001, is 0.002"),
        ("caption", "other images or captions"),
    ],
)
def test_going_on_with_something_else(changes: Any, said: str, house: House, quick: Any, photos: Path) -> None:
    """Other settings or captions: refused with what differs, before a model is touched."""
    begun(house, quick)
    if changes == "caption":
        (photos / "3_blob" / "0.txt").write_text("another")
    run = house.run(quick(**{**STATES, **(changes if isinstance(changes, dict) else {})}, resume="blob"))
    assert not run.events and len(run.told) == 1 and said in run.told[0]


@pytest.mark.case(32)
def test_going_on_with_another_torch(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of torch: the run goes on, and a note says so."""
    begun(house, quick)
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    run = house.run(quick(**STATES, resume="blob"))
    assert run.of(Finished)[0].path and any(
        "this run uses 9.9.9; results may differ in the last digits" in text for text in run.told
    )


@pytest.mark.case(31)
def test_going_on_again_and_again(house: House, quick: Any, photos: Path) -> None:
    """Broken off after every single step, within epochs, buckets and accumulated steps: losses, steps and LoRA equal the whole run's."""
    write_picture(photos / "3_blob" / "4.png", 128, 64, seed=4)
    flat = {**STATES, "steps": 7, "gradient_accumulation_steps": 2, "batch_size": 2, "ema_decay": 0.9, "lr_scheduler": "cosine",
            "caption_dropout_rate": 0.3}  # fmt: skip
    whole = house.run(quick(**{**flat, "name": "whole", "save_state": False}))
    losses, steps = [], []

    def at(event: object, job: Job) -> None:
        if isinstance(event, StateSaved) and job.running:
            job.control.request_stop(keep=True)

    for number in range(7):
        run = house.run(quick(**flat, resume="blob" if number else ""), at)
        losses += run.job["losses"]
        steps += [event.step for event in run.of(StepDone)]
    assert steps == [1, 2, 3, 4, 5, 6, 7] and losses == whole.job["losses"] and _equal(run, whole)


@pytest.mark.case(50)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_link_in_place_of_the_latents(when: str, house: House, quick: Any, photos: Path, tmp_path: Path) -> None:
    """A link where latents are kept beside the images: refused by name, before the run or within it; nothing is written behind it."""
    elsewhere, link = tmp_path / "elsewhere", photos / "3_blob" / CACHE_FOLDER
    elsewhere.mkdir()

    def at(event: object, _: Job) -> None:
        if isinstance(event, Planned) and when == "meanwhile":
            link.symlink_to(elsewhere)

    if when == "before":
        link.symlink_to(elsewhere)
    run = house.run(quick(cache_latents_to_disk=True), at)
    assert len(run.told) == 1 and "is a link" in run.told[0] and not run.of(StepDone), run.told
    assert list(elsewhere.iterdir()) == []


@pytest.mark.case(50)
@pytest.mark.parametrize("link", ["blob", "blob/samples"])
def test_a_link_in_place_of_the_run_s_folder(link: str, house: House, quick: Any, tmp_path: Path) -> None:
    """What a run's folder, or its samples' folder, leads to stays as it is: one sentence, before a model is touched."""
    target, place = tmp_path / "precious", house.host.work_folder() / link
    target.mkdir()
    (target / "blob-step00000001-state").mkdir()
    (target / "0001.png").write_bytes(b"mine")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target, target_is_directory=True)
    flat = {"save_state": True, "save_every_n_steps": 1, "sample_every_n_steps": 1, "sample_prompts": "a --s 1"}
    run = house.run(quick(**flat))
    assert (
        not run.events and len(run.told) == 1 and f"{str(place)!r} for states and samples of this name is a link" in run.told[0]
    )
    assert sorted(path.name for path in target.rglob("*")) == ["0001.png", "blob-step00000001-state"]
    place.unlink()
    assert house.run(quick(**flat)).of(Finished)[0].path
