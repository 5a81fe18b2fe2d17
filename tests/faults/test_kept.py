"""A finished run is never lost: whatever fails then, the LoRA and its state are kept, and their place is reported."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.errors import LoraFileError
from lib_lora.events import Event, Finished, Note, SavedBetween, SaveFailed, StateSaved, StepDone
from lib_lora.files.lora_file import read
from lib_lora.jobs.job import Job
from lib_lora.output import lora_writer as result_room
from lib_lora.output import publish as publish_room
from tests.house import House


def kept(run: Any) -> Path:
    """Where the one sentence says that the LoRA lies."""
    assert run.job["state"] == "failed" and len([text for text in run.told if "does not support locks" not in text]) == 1, (
        run.told
    )
    found = re.search(r"It is kept as '([^']+\.rescued)'; to use it, remove \.rescued from its name\.", run.told[0])
    assert found, run.told
    return Path(found[1])


def tensors(path: Path, to: Path) -> dict[str, torch.Tensor]:
    """Read as a person would, with the ending taken off."""
    return read(Path(shutil.copy(path, to / "renamed.safetensors")))[0]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def give_up(event: Event, job: Job) -> None:
    """Somebody stops a run that waits for its disk."""
    if isinstance(event, SaveFailed):
        threading.Timer(0.05, lambda: (job.control.request_stop(keep=True), job.unpause())).start()


def refusing(monkeypatch: pytest.MonkeyPatch, error: int, *folders: Path) -> None:
    """No file can be begun in `folders`."""
    real = tempfile.mkstemp

    def mkstemp(*args: Any, **kwargs: Any) -> Any:
        if any(Path(kwargs["dir"]).is_relative_to(folder) for folder in folders):
            raise OSError(error, os.strerror(error))
        return real(*args, **kwargs)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)


REFUSALS = {
    "a sentence": LoraFileError("The webui's Lora extension cannot load the new file (x)."),
    "a bug of the loader": AttributeError("'NoneType' object has no attribute 'x'"),
    "an assertion": AssertionError("conv shape"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_self_test_that_fails(refusal: str, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The old LoRA is there byte for byte; the new one lies beside it under a name that no webui lists, and can be gone on from."""
    whole = house.run(quick(name="whole", seed=9)).of(Finished)[0].path
    old = house.run(quick()).of(Finished)[0].path
    before = old.read_bytes()

    def fails(*_: Any) -> None:
        raise REFUSALS[refusal]

    with monkeypatch.context() as patch:
        patch.setattr(type(house.host), "check_lora", fails)
        run = house.run(quick(overwrite=True, seed=9))
    path = kept(run)
    assert str(REFUSALS[refusal]).rstrip(".") in run.told[0] and not run.of(SaveFailed)
    assert path == old.with_name("blob.safetensors.rescued") and old.read_bytes() == before
    assert same(tensors(path, tmp_path), read(whole)[0])
    assert sorted(file.suffix for file in old.parent.iterdir() if file.stem.startswith("blob")) == [
        ".json",
        ".rescued",
        ".safetensors",
    ]
    more = house.run(quick(overwrite=True, seed=9, steps=3, resume=str(run.of(StateSaved)[0].folder)))
    assert [event.step for event in more.of(StepDone)] == [3] and path.is_file()


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EIO, errno.ENOSPC, errno.ENOENT, errno.ESTALE])
def test_a_folder_that_refuses_for_good(
    error: int, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The run stands with the reason; given up, LoRA and state lie in the work folder, or where that refuses too in the temporary one."""
    host = house.host
    host.lora_folder().mkdir(parents=True, exist_ok=True)
    with monkeypatch.context() as patch:
        refusing(patch, error, host.lora_folder(), host.work_folder())
        run = house.run(quick(), give_up)
    failed, path = run.of(SaveFailed)[0], kept(run)
    assert os.strerror(error) in failed.text and failed.text in run.told[0]
    assert path.is_relative_to(tempfile.gettempdir()) and tensors(path, tmp_path)
    state = run.of(StateSaved)[0].folder
    assert state.is_relative_to(tempfile.gettempdir()) and str(state) in run.told[0]
    if error == errno.EROFS:
        with monkeypatch.context() as patch:
            patch.setattr(publish_room, "write_atomically", lambda *_: None)
            patch.setattr(publish_room, "write", lambda *_: (_ for _ in ()).throw(_refused(error)))
            patch.setattr(type(host), "lora_folder", lambda _: tmp_path / "file" / "is not a folder")
            (tmp_path / "file").touch()
            patch.setattr("lib_lora.check._folder_problems", lambda _: [])
            run = house.run(quick(), give_up)
        assert kept(run).parent == host.work_folder() / "blob"
    for folder in (path.parent, state.parent):
        shutil.rmtree(folder, ignore_errors=True)


def _refused(error: int) -> LoraFileError:
    found = LoraFileError(f"The LoRA could not be written ({os.strerror(error)}).")
    found.__cause__ = OSError(error, os.strerror(error))
    return found


def test_a_read_only_folder_becomes_writable_again(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that turns read-only before an Overwrite: the run stands, saves when it is let go on, and leaves nothing beside."""
    folder = house.host.lora_folder()
    folder.mkdir(parents=True, exist_ok=True)
    mounted = (
        shutil.which("mount")
        and not subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False).returncode
    )
    if not mounted:
        pytest.skip("this user may not mount a disk")
    monkeypatch.setattr("lib_lora.train.sole_writer", lambda *_: nullcontext([]))  # an open lock keeps mount from its work
    try:
        old = house.run(quick()).of(Finished)[0].path
        before = old.read_bytes()

        def mode(name: str) -> None:
            subprocess.run(["mount", "-o", f"remount,{name}", str(folder)], check=True)

        def at(event: Event, job: Job) -> None:
            if isinstance(event, StepDone) and event.step == 2:
                mode("ro")
            if isinstance(event, SaveFailed):
                assert old.read_bytes() == before and "Read-only file system" in event.text
                threading.Timer(0.05, lambda: (mode("rw"), job.unpause())).start()

        run = house.run(quick(overwrite=True, seed=9), at)
        assert run.of(Finished)[0].path == old and old.read_bytes() != before and len(run.of(SaveFailed)) == 1
        assert {path.name for path in folder.iterdir()} <= {"blob.safetensors", "blob.json", ".train-lora"}
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_what_cannot_be_taken_away_ends_nothing(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backup, older LoRA, older state and what a killed run left cannot be removed: each is told, and the run ends well."""
    flat = {"steps": 3, "save_every_n_steps": 1, "save_last_n_steps": 1, "save_state": True, "overwrite": True}
    house.run(quick(**flat))
    left = house.host.lora_folder() / ".blob-abcdefgh.train-lora.tmp"
    left.touch()
    os.utime(left, (0, 0))

    def refuses(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    real = Path.replace

    def replace(self: Path, target: Any) -> Path:
        if str(target).endswith(".train-lora.gone"):
            refuses(self)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuses)
        patch.setattr(Path, "replace", replace)
        run = house.run(quick(**flat, seed=9))
    assert run.job["state"] == "done" and len(run.of(StepDone)) == 3 and len(run.of(SavedBetween)) == 3
    told = [event.text for event in run.of(Note)]
    for what in (
        ".blob-abcdefgh.train-lora.tmp'",
        ".train-lora.bak'",
        "blob-step00000001.safetensors'",
        "blob-step00000001-state'",
    ):
        assert any(f"{what} could not be removed (Read-only file system); remove it by hand." in text for text in told), what
    assert "blob-step00000001" in run.job["between"], "it is still there"
    for path in house.host.lora_folder().glob(".*.train-lora.*"):
        path.unlink()


def test_metadata_that_fails_does_not_cost_the_lora(
    house: House, quick: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Metadata that cannot be made: the tensors are kept in full precision, without it."""
    whole = house.run(quick(name="whole")).of(Finished)[0].path
    with monkeypatch.context() as patch:
        patch.setattr(result_room, "file_metadata", lambda *_: {}["missing"])
        run = house.run(quick())
    assert same(tensors(kept(run), tmp_path), read(whole)[0]) and run.of(StateSaved)


def test_a_checkpoint_that_cannot_be_read_any_more(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint's file is gone at the save: told; the LoRA is saved without its hash."""

    def gone(_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "model.safetensors")

    with house.host.borrow_model() as base:
        kind = type(base)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "info", gone)
        run = house.run(quick())
    assert "ss_sd_model_hash" not in read(run.of(Finished)[0].path)[1]
    assert ["cannot be read any more" in event.text for event in run.of(Note)] == [True]


@pytest.mark.parametrize("room", ["draw_preview", "announce"])
def test_nothing_beside_the_lora_costs_it(room: str, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the picture or the host's list meets is told; the rest of the card is there."""

    def fails(*_: Any) -> None:
        raise TypeError("unhashable type: 'dict'")

    with monkeypatch.context() as patch:
        patch.setattr(result_room if room == "draw_preview" else type(house.host), room, fails)
        run = house.run(quick(preview_steps=1))
    lora = run.of(Finished)[0].path
    assert "TypeError: unhashable" in run.told[0] and len(run.told) == 1 and lora.with_suffix(".json").is_file()
    assert lora.with_suffix(".png").is_file() == (room == "announce")
