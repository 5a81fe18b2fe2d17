"""Jobs: in their own thread, one at a time, always ended with a sentence."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import lib_lora.jobs.runner as runner_room
from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.errors import MOST, ConfigError, LoraFileError, ModelError
from lib_lora.events import (
    BestSaved,
    Chosen,
    Event,
    Finished,
    HeldOut,
    Left,
    Lent,
    Note,
    Phase,
    Sampled,
    Saved,
    SavedBetween,
    StateSaved,
    StepDone,
)
from lib_lora.files.plain_values import StateError
from lib_lora.jobs.curve import Bucket
from lib_lora.jobs.job import Job
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_listing import details, job_json, page_json
from lib_lora.jobs.runner import Runner
from lib_lora.run_control import RunControl
from tests.conftest import small_config
from tests.models import shared_host


def wait(job: Job) -> dict[str, object]:
    deadline = time.monotonic() + 300
    while job.running and time.monotonic() < deadline:
        time.sleep(0.01)
    return job_json(job)


def test_a_real_run(photos: Path, shallow_checkpoint: Path, tmp_path: Path) -> None:
    runner = Runner(shared_host(shallow_checkpoint, tmp_path / "out"))
    job = runner.start(small_config(photos, tmp_path, steps=4))
    with pytest.raises(ConfigError, match="'blob' is active"):
        runner.start(small_config(photos, tmp_path, name="other"))
    last = wait(job)
    assert (last["state"], last["step"], last["total"], last["saved"]) == ("done", 4, 4, "blob")
    assert len(last["losses"]) == 4 and last["steps_per_s"] > 0 and last["eta_s"] is None
    assert job_json(job, since=3)["losses"] == last["losses"][3:] and job_json(job, since=9)["losses"] == []
    assert wait(runner.start(small_config(photos, tmp_path)))["state"] == "failed"


def pretend(events: list[Event | Exception], seen: list[RunControl] | None = None) -> object:
    def train(_config: TrainConfig, _host: object, control: RunControl) -> Iterator[Event]:
        if seen is not None:
            seen.append(control)
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
    assert job_json(job)["state"] == "running"
    job.control.request_stop(keep=True)
    job.control.request_stop(keep=False)
    assert job_json(job)["state"] == "stopping" and job.control.keeps


def test_notes_and_a_failure_after_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    last = start(monkeypatch, [Saved(Path("a/cat.safetensors"), 3), Note("No picture."), RuntimeError("late")])
    assert last["notes"] == ["No picture."] and last["phase"] == "cat.safetensors is saved"


def test_a_job_can_be_held_between_steps(photos: Path, shallow_checkpoint: Path, tmp_path: Path) -> None:
    runner = Runner(shared_host(shallow_checkpoint, tmp_path / "out"))
    job = runner.start(small_config(photos, tmp_path, steps=12))
    while job_json(job)["step"] < 2:
        time.sleep(0.01)
    runner.suspend(10)
    held = job_json(job)["step"]
    time.sleep(0.5)
    assert job.running and job_json(job)["step"] == held < 12
    runner.unsuspend()
    assert wait(job)["state"] == "done"
    before = time.monotonic()
    runner.suspend(10)
    assert time.monotonic() - before < 1, "nothing runs: nothing to wait for"


def wait_for(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_a_person_holds_a_run_and_lets_it_go_on(photos: Path, shallow_checkpoint: Path, tmp_path: Path) -> None:
    runner = Runner(shared_host(shallow_checkpoint, tmp_path / "out"))
    job = runner.start(small_config(photos, tmp_path, steps=12))
    wait_for(lambda: job_json(job)["step"] >= 2)
    runner.pause()
    assert job_json(job)["state"] == "paused"
    runner.suspend(10)  # the program's own pause, while the page is built anew, does not undo it
    held = job_json(job)["step"]
    runner.unsuspend()
    time.sleep(0.5)
    assert job_json(job)["step"] == held < 12 and job_json(job)["state"] == "paused"
    runner.unpause()
    assert wait(job)["state"] == "done" and job_json(job)["step"] == 12
    runner.pause()
    assert job_json(job)["state"] == "done"
    assert wait(runner.start(small_config(photos, tmp_path, name="next", steps=1)))["state"] == "done"


def test_a_held_run_can_be_stopped_and_kept(photos: Path, shallow_checkpoint: Path, tmp_path: Path) -> None:
    runner = Runner(shared_host(shallow_checkpoint, tmp_path / "out"))
    job = runner.start(small_config(photos, tmp_path, steps=500, save_state=True))
    wait_for(lambda: job_json(job)["step"] >= 1)
    runner.pause()
    runner.stop(keep=True)
    last = wait(job)
    assert last["state"] == "done" and last["step"] < 500
    again = wait(runner.start(small_config(photos, tmp_path, steps=last["step"] + 2, resume="blob", overwrite=True)))
    assert (again["first_step"], again["loss_count"], again["state"]) == (last["step"], 2, "done")


def test_a_lent_model_is_seen() -> None:
    """The state says so, the phase why; the speed is not that of the break."""
    job = Job(build_config({"name": "x"}), torch.device("cpu"))
    for step in (1, 2, 3):
        job.apply(StepDone(step, 9, 1, 0.5, (1e-4,)))
    assert job_json(job)["state"] == "running" and job_json(job)["steps_per_s"]
    job.apply(Lent("lent to somebody"))
    seen = job_json(job)
    assert (seen["state"], seen["phase"], seen["steps_per_s"]) == ("lent", "lent to somebody", None)
    job.pause()
    assert job_json(job)["state"] == "paused"
    job.unpause()
    job.apply(Phase("training"))
    assert (job_json(job)["state"], job_json(job)["phase"]) == ("running", "training")


def test_the_program_does_not_wait_for_a_run_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page may be built anew while the model is lent out; the run takes it back afterwards."""
    taken_back = threading.Event()

    def train(_config: TrainConfig, _host: object, control: RunControl) -> Iterator[Event]:
        with control.still():
            yield Lent("lent")
            taken_back.wait(30)
        yield Phase("training")
        yield Finished(None, 1)

    monkeypatch.setattr(runner_room, "train", train)
    runner = Runner(NoHost())
    job = runner.start(build_config({"name": "x"}))
    wait_for(lambda: job_json(job)["state"] == "lent")
    before = time.monotonic()
    runner.suspend(20)
    assert time.monotonic() - before < 5
    taken_back.set()
    time.sleep(0.2)
    assert job.running, "it goes on when the page is there"
    runner.unsuspend()
    assert wait(job)["state"] == "stopped"


def test_save_now(photos: Path, shallow_checkpoint: Path, tmp_path: Path) -> None:
    runner = Runner(shared_host(shallow_checkpoint, tmp_path / "out"))
    runner.save_now()  # nothing runs: nothing happens
    job = runner.start(small_config(photos, tmp_path, steps=500))
    wait_for(lambda: job_json(job)["step"] >= 1)
    runner.save_now()
    wait_for(lambda: job_json(job)["between"])
    runner.stop(keep=False)
    last = wait(job)
    (name,) = last["between"]
    assert name.startswith("blob-step") and (tmp_path / "out" / f"{name}.safetensors").is_file()
    assert last["state"] == "stopped" and last["phase"] == f"saved before the end: {name}"


@pytest.mark.parametrize("lends", [False, True], ids=["holds the model", "lends it"])
def test_a_paused_run_saves_and_draws_at_once_and_stays_paused(
    photos: Path, shallow_checkpoint: Path, tmp_path: Path, lends: bool
) -> None:
    runner = Runner(shared_host(shallow_checkpoint, tmp_path / "out"))
    runner.sample_now()  # nothing runs: nothing happens
    job = runner.start(
        small_config(
            photos, tmp_path, steps=500, generate_while_training=lends, sample_every_n_steps=2, sample_prompts="a blob --s 1"
        )
    )
    wait_for(lambda: job_json(job)["step"] >= 1)
    runner.pause()
    wait_for(lambda: job.control._still > 0)
    held = job_json(job)["step"]
    assert job_json(job)["asked"] == []
    runner.save_now()
    assert job_json(job)["asked"] == ["save"]
    wait_for(lambda: job_json(job)["between"] == [f"blob-step{held:08d}"])
    runner.sample_now()
    wait_for(lambda: job_json(job)["sampled"][-1:] == [[held, 1]] and job.control._still > 0)
    runner.save_now()
    runner.sample_now()
    wait_for(lambda: job_json(job)["asked"] == [] and job.control._still > 0)
    assert [step for step, _ in job_json(job)["sampled"]].count(held) == 1, "there already"
    told = job_json(job)
    assert (told["state"], told["step"], told["prompts"]) == ("paused", held, ["a blob"])
    assert told["between"] == [f"blob-step{held:08d}"], "the same file, not a second name"
    runner.unpause()
    wait_for(lambda: job_json(job)["step"] > held)
    runner.stop(keep=False)
    assert wait(job)["state"] == "stopped"


def test_the_page_gets_the_curve_and_what_is_new_of_it(photos: Path, shallow_checkpoint: Path, tmp_path: Path) -> None:
    runner = Runner(shared_host(shallow_checkpoint, tmp_path / "out"))
    job = runner.start(small_config(photos, tmp_path, steps=5, max_grad_norm=1.0))
    last = wait(job)
    told = page_json(job, 0, 0)
    assert "losses" not in told and told["loss_count"] == 5 and (told["steps_per_epoch"], told["epochs"]) == (12, 1)
    buckets = [Bucket(*row) for row in told["curve"]["buckets"]]
    assert [bucket.low for bucket in buckets] == [bucket.high for bucket in buckets] == last["losses"]
    assert all(bucket.norm > 0 and bucket.high_rate > 0 for bucket in buckets)
    assert page_json(job, 1, 4)["curve"] == {"stride": 1, "first": 4, "buckets": told["curve"]["buckets"][4:]}


def test_what_was_drawn_and_measured_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        StepDone(8, 9, 1, 0.5, (1e-4,)), Sampled(8, (Path("a.png"), Path("b.png")), ("a", "b")), HeldOut(8, 0.25),
        SavedBetween(Path("x-step00000008.safetensors"), 8), StepDone(9, 9, 1, 0.5, (1e-4,)),
        Sampled(9, (Path("c.png"), Path("d.png")), ("a", "b")), BestSaved(Path("x-best.safetensors"), 8, 0.25), Finished(None, 9),
    ]  # fmt: skip
    last = start(monkeypatch, list(events))
    assert last["first_step"] == 7 and last["held_out"] == [[8, 0.25]] and last["between"] == ["x-step00000008"]
    assert last["sampled"] == [[8, 2], [9, 2]] and last["prompts"] == ["a", "b"] and last["best"] == {"step": 8, "loss": 0.25}
    job = Job(build_config({"name": "x"}), torch.device("cpu"))
    for event in events:
        job.apply(event)
    assert job.sample(9, 1) == Path("d.png")
    assert [job.sample(*place) for place in ((9, 2), (9, -1), (7, 0))] == [None] * 3


def test_a_failure_tells_what_was_saved_before(monkeypatch: pytest.MonkeyPatch) -> None:
    last = start(monkeypatch, [SavedBetween(Path("x-000001.safetensors"), 8), LoraFileError("Full.")])
    assert (last["state"], last["phase"], last["problems"]) == ("failed", "saved before the end: x-000001", ["Full."])


def test_use_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_room, "use_best", lambda name, best, host: best.with_name(f"{name}-last.safetensors"))
    runner = Runner(NoHost())
    with pytest.raises(ConfigError, match="no other LoRA"):
        runner.use_best()
    done = [
        Saved(Path("a/x.safetensors"), 9),
        BestSaved(Path("a/x-best.safetensors"), 8, 0.25),
        Finished(Path("a/x.safetensors"), 9),
    ]
    monkeypatch.setattr(runner_room, "train", pretend(list(done)))
    wait(runner.start(build_config({"name": "x"})))
    assert runner.use_best() == "x is now the LoRA of step 8; the LoRA of the last step is x-last."
    assert runner.job is not None and job_json(runner.job)["best"] is None
    with pytest.raises(ConfigError, match="no other LoRA"):
        runner.use_best()


def test_a_best_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = [
        Saved(tmp_path / "x.safetensors", 9),
        BestSaved(tmp_path / "x-best.safetensors", 8, 0.25),
        Finished(tmp_path / "x", 9),
    ]
    monkeypatch.setattr(runner_room, "train", pretend(list(done)))
    runner = Runner(NoHost())
    wait(runner.start(build_config({"name": "x"})))
    with pytest.raises(LoraFileError, match="does not exist any more"):
        runner.use_best()


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        ([], "and there is no older one (after 0.2 s the run was still in step 5)"),
        ([Lent("lent to the webui, for a picture")], "(after 0.2 s the run was still at: lent to the webui, for a picture)"),
        ([StateSaved(Path("a"), 2)], "the last saved one is from step 2 (after"),
        ([StateSaved(Path("a"), 4)], None),
        ([StateError("The disk is full.")], "and there is no older one (The disk is full)"),
        ([Finished(Path("a"), 4)], None),
    ],
)
def test_what_is_lost_when_the_program_ends(
    behind: list[Event | Exception], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def train(*_: object) -> Iterator[Event]:
        yield from pretend([StepDone(4, 9, 1, 0.5, (0.1,)), *behind])(None, None, RunControl())  # type: ignore[operator]
        over.wait(60)

    monkeypatch.setattr(runner_room, "train", train)
    runner = Runner(NoHost())  # type: ignore[arg-type]
    runner.suspend(0)  # stands after its first event until it is told to leave
    job = runner.start(build_config({"name": "cat"}))
    deadline = time.monotonic() + 60
    while not job_json(job)["step"] and time.monotonic() < deadline:
        time.sleep(0.01)
    lost = runner.leave(0.2)
    over.set()
    if said is None:
        assert lost is None
    else:
        assert lost is not None and lost.startswith("The state of 'cat' after step 4 is not saved, ") and said in lost


def test_nothing_that_is_no_number_reaches_a_page() -> None:
    """Browsers read no NaN and no Infinity: an answer with one of them would be none at all."""
    job = Job(build_config({"name": "x"}), torch.device("cpu"))
    for loss in (float("nan"), float("inf"), float("-inf"), 0.5):
        job.apply(StepDone(1, 9, 1, loss, (loss,)))
        job.apply(HeldOut(1, loss))
    job.apply(BestSaved(Path("x-best.safetensors"), 1, float("nan")))
    told = job_json(job)
    json.dumps(told, allow_nan=False)
    assert told["losses"] == [None, None, None, 0.5] and [loss for _, loss in told["held_out"]] == [None, None, None, 0.5]
    entry = Entry("a", {"name": "x"}, 0.0, "failed", loss=float("nan"), curve=(0.5, float("inf")))
    json.dumps(details(entry), allow_nan=False)


def test_a_page_is_told_so_many_sentences_and_how_many_more() -> None:
    job = Job(build_config({"name": "x"}), torch.device("cpu"))
    for number in range(5000):
        job.apply(Note(f"Note {number}."))
        job.apply(Chosen(f"Choice {number}."))
    job.fail([f"Problem {number}." for number in range(5000)])
    told = job_json(job)
    for kind in ("notes", "choices", "problems"):
        assert len(told[kind]) == MOST + 1 and f"… and {5000 - MOST} more." in told[kind], kind
    assert told["notes"][0] == "Note 0." and told["notes"][-1] == "Note 4999.", "the newest are the most wanted"
    entry = Entry("a", {"name": "x"}, 0.0, "failed", notes=tuple(map(str, range(5000))), problems=tuple(map(str, range(5000))))
    assert len(details(entry)["notes"]) == len(details(entry)["problems"]) == MOST + 1


def test_what_is_left_is_seen_whatever_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x-state").mkdir()
    left = Left((tmp_path / "x-000001.safetensors", tmp_path / "x-state"))
    for end in (Finished(None, 1), ModelError("Gone.")):
        assert start(monkeypatch, [Phase("x"), left, end])["left"] == ["x-000001.safetensors", "x-state (0 files)"]
