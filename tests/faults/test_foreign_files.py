"""Only files that this program made are removed or replaced: a folder of similar foreign files, for every way a run can end."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lib_lora.errors import LoraFileError
from lib_lora.events import BestSaved, Event, Finished, HeldOut, StateSaved, StepDone
from lib_lora.jobs.job import Job
from lib_lora.output.checkpointer import Checkpointer
from lib_lora.output.publish import use_best
from tests.conftest import write_picture
from tests.house import House

LORA_FOLDER = (
    "blob.safetensors.bak", "blob.safetensors.rescued", ".blob-abcdefgh.tmp", ".blob-original.tmp", ".x.tmp", "blob.tmp", ".blob.old",
    "blob.json", "blob.png", "blob.preview.png", "blob.jpg", "blob.txt", "blob.info", "blob.civitai.info", "blob.description.txt",
    "blob.json.bad", "blob-best.json", "blob-best.png", "blob-last.json", "blob-last.png", "blob-step00000001.json", "blob-000001.json",
    "blob-step00000001.png", "blob-step00000002.json", ".blob.safetensors.swp", "deeper/.blob-abcdefgh.tmp",
    ".blob-abcdefgh.train-lora.txt", ".blob-ABCDEFGH.train-lora.tmp",
)  # fmt: skip
WORK_FOLDER = (
    "notes.txt", ".blob-state-abcdefgh.tmp/state.json", ".blob-state-abcdefgh.train-lora.tmp/mine.txt", "blob-state/notes.txt",
    "blob-step00000001-state/notes.txt", "blob-step00000001-state/state.json", ".blob-step00000001-state-1.gone/mine.txt",
    "samples/blob_00000001_00_1.png", "samples/.x.tmp", "blob.safetensors.rescued",
)  # fmt: skip
FLAT: dict[str, Any] = {
    "steps": 3, "save_every_n_steps": 1, "save_last_n_steps": 1, "save_state": True, "save_last_n_steps_state": 1, "preview_steps": 1,
    "sample_every_n_steps": 1, "sample_prompts": "a --s 1 --d 1",
}  # fmt: skip


@pytest.fixture
def foreign(house: House) -> dict[Path, str]:
    """Foreign files from before the run, with the hash of each."""
    loras, work = house.host.lora_folder(), house.host.work_folder() / "blob"
    for path in [*(loras / name for name in LORA_FOLDER), *(work / name for name in WORK_FOLDER)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            write_picture(path, 16, 16)
        else:
            path.write_text(json.dumps({"pretrained_model_name_or_path": path.name}))
        os.utime(path, (0, 0))
    for folder in work.iterdir():
        os.utime(folder, (0, 0))
    return seen(loras, work)


def seen(*folders: Path) -> dict[Path, str]:
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for folder in folders for path in folder.rglob("*") if path.is_file()
    }


def assert_untouched(foreign: dict[Path, str]) -> None:
    for path, content in foreign.items():
        assert path.is_file(), f"{path} is gone"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == content, f"{path} was replaced"
        path.unlink()  # the house's own look at the end is at what runs leave


def stop_after(step: int, *, keep: bool) -> Any:
    def at(event: Event, job: Job) -> None:
        if isinstance(event, StepDone) and event.step == step:
            job.control.request_stop(keep=keep)

    return at


@pytest.mark.parametrize("end", ["finished", "overwritten", "stopped", "kept", "failed at the save", "resumed", "killed before"])
def test_files_of_others_stay(
    end: str, house: House, quick: Any, foreign: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cards, pictures, backups, parts, states and samples that others made: each is there byte for byte, whatever the run does."""
    if end == "killed before":  # what a run of ours leaves goes, and nothing else
        ours = [house.host.lora_folder() / f".blob-a1b2c3d4.train-lora.{kind}" for kind in ("tmp", "bak")]
        for path in ours:
            path.write_bytes(b"part")
            os.utime(path, (0, 0))
    if end == "failed at the save":
        refused = LoraFileError("It does not load.")
        with monkeypatch.context() as patch:
            patch.setattr(type(house.host), "check_lora", lambda *_: (_ for _ in ()).throw(refused))
            run = house.run(quick(**{**FLAT, "save_every_n_steps": 0, "save_last_n_steps": 0, "save_last_n_steps_state": 0}))
        assert "blob-2.safetensors.rescued'" in run.told[-1]
        assert_untouched(foreign)
        return
    run = house.run(quick(**FLAT), stop_after(2, keep=end == "kept") if end in {"stopped", "kept", "resumed"} else None)
    if end == "resumed":
        run = house.run(quick(**FLAT, resume=str(run.of(StateSaved)[-1].folder)))
        assert [event.step for event in run.of(StepDone)] == [3]
    if end == "overwritten":
        assert house.run(quick(**FLAT, overwrite=True, seed=9)).of(Finished)[0].path.name == "blob.safetensors"
    if end != "stopped":
        assert run.of(Finished)[0].path.name == "blob.safetensors"
        assert {"'blob.json' existed before and was not changed.", "'blob.png' existed before and was not changed."} <= set(
            run.told
        )
    if end == "killed before":
        assert not any(path.exists() for path in ours)
    assert_untouched(foreign)


def test_the_best_leaves_files_of_others(
    house: House, quick: Any, foreign: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {1: 0.5, 2: 0.9, 3: 0.8}
    monkeypatch.setattr(Checkpointer, "_measured", lambda _, done: HeldOut(done.step, losses[done.step]))
    run = house.run(quick(steps=3))
    use_best("blob", run.of(BestSaved)[0].path, house.host)
    assert not (house.host.lora_folder() / "blob-best.safetensors").exists()
    assert_untouched(foreign)


def test_an_older_file_that_somebody_put_there_stays(house: House, quick: Any) -> None:
    """An intermediate LoRA that was exchanged, or whose card a person wrote into, is not removed with the older ones."""
    flat = {"steps": 5, "save_every_n_steps": 1, "save_last_n_steps": 1}
    loras = house.host.lora_folder()
    first, second = (loras / f"blob-step0000000{step}.safetensors" for step in (1, 2))

    def at(event: Event, _: Job) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            first.write_bytes((loras / "blob-step00000002.safetensors").read_bytes())  # of ours, under another name than it says
            card = json.loads(second.with_suffix(".json").read_text())
            second.with_suffix(".json").write_text(json.dumps({**card, "description": "the best so far"}))

    run = house.run(quick(**flat), at)
    assert first.is_file() and not second.is_file() and second.with_suffix(".json").is_file()
    assert any(f"{str(first)!r} was not written by a run of this name and was not removed." == text for text in run.told)
    assert any(
        f"{str(second.with_suffix('.json'))!r} contains files that this run did not write and was not removed." == text
        for text in run.told
    )
