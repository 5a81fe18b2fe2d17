"""Jobs: a thread of their own, one at a time, always ended with a sentence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import lib_lora.jobs.runner as runner_room
from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.errors import ConfigError, ModelError
from lib_lora.events import Event, Finished, Note, Phase, Saved, StepDone, Stop
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.jobs.job import Job
from lib_lora.jobs.runner import Runner
from tests.conftest import small_config


def wait(job: Job) -> dict[str, object]:
    deadline = time.monotonic() + 300
    while job.running and time.monotonic() < deadline:
        time.sleep(0.01)
    return job.snapshot()


def test_a_real_run(photos: Path, mini_checkpoint: Path, tmp_path: Path) -> None:
    runner = Runner(StandaloneHost(mini_checkpoint, tmp_path / "out"))
    job = runner.start(small_config(photos, tmp_path, steps=4))
    with pytest.raises(ConfigError, match="'blob' is running"):
        runner.start(small_config(photos, tmp_path, name="other"))
    last = wait(job)
    assert (last["state"], last["step"], last["total"], last["saved"]) == ("done", 4, 4, "blob")
    assert len(last["losses"]) == 4 and last["steps_per_s"] > 0 and last["eta_s"] is None
    assert job.snapshot(since=3)["losses"] == last["losses"][3:] and job.snapshot(since=9)["losses"] == []
    assert wait(runner.start(small_config(photos, tmp_path)))["state"] == "failed"


def pretend(events: list[Event | Exception], seen: list[Stop] | None = None) -> object:
    def train(_config: TrainConfig, _host: object, stop: Stop) -> Iterator[Event]:
        if seen is not None:
            seen.append(stop)
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event

    return train


class NoHost:
    def device(self) -> torch.device:
        return torch.device("cpu")


def start(monkeypatch: pytest.MonkeyPatch, events: list[Event | Exception]) -> dict[str, object]:
    monkeypatch.setattr(runner_room, "train", pretend(events))
    return wait(Runner(NoHost()).start(build_config({"name": "x"})))


def test_problems_become_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(monkeypatch, [ConfigError(["One.", "Two."])])["problems"] == ["One.", "Two."]
    assert start(monkeypatch, [Phase("x"), ModelError("Gone.")])["problems"] == ["Gone."]


def test_a_bug_ends_the_job_with_a_sentence(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    last = start(monkeypatch, [StepDone(1, 5, 1, 0.5, (1e-4,)), ZeroDivisionError("oops")])
    assert last["state"] == "failed" and "ZeroDivisionError: oops" in last["problems"][0]
    assert "Traceback" in caplog.text


def test_states(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(monkeypatch, [Finished(None, 3)])["state"] == "stopped"
    done = start(monkeypatch, [Saved(Path("a/cat.safetensors"), 3), Finished(Path("a/cat.safetensors"), 3)])
    assert (done["state"], done["phase"], done["saved"]) == ("done", "saved as cat.safetensors", "cat")


def test_stopping_is_seen_at_once() -> None:
    job = Job(build_config({"name": "x"}), torch.device("cpu"))
    assert job.snapshot()["state"] == "running"
    job.stop.request(keep=True)
    job.stop.request(keep=False)
    assert job.snapshot()["state"] == "stopping" and job.stop.keep


def test_notes_and_a_failure_after_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    last = start(monkeypatch, [Saved(Path("a/cat.safetensors"), 3), Note("No picture."), RuntimeError("late")])
    assert last["notes"] == ["No picture."] and last["phase"] == "cat.safetensors is saved"


def test_a_job_can_be_held_between_steps(photos: Path, mini_checkpoint: Path, tmp_path: Path) -> None:
    runner = Runner(StandaloneHost(mini_checkpoint, tmp_path / "out"))
    job = runner.start(small_config(photos, tmp_path, steps=12))
    while job.snapshot()["step"] < 2:
        time.sleep(0.01)
    runner.pause(10)
    held = job.snapshot()["step"]
    time.sleep(0.5)
    assert job.running and job.snapshot()["step"] == held < 12
    runner.resume()
    assert wait(job)["state"] == "done"
    before = time.monotonic()
    runner.pause(10)
    assert time.monotonic() - before < 1, "nothing runs: nothing to wait for"
