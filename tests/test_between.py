"""What a run writes between steps: files, samples, the best LoRA; and failures to write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

import lib_lora.output.checkpointer as checkpointer_room
import lib_lora.output.lora_writer as result_room
import lib_lora.output.preview as preview_room
from lib_lora.config.groups import TrainConfig
from lib_lora.errors import ConfigError, LoraFileError, TrainLoraError
from lib_lora.events import BestSaved, Event, Finished, HeldOut, Note, Sampled, Saved, SavedBetween, StateSaved, StepDone
from lib_lora.files import atomic
from lib_lora.files.lora_file import read
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.jobs.job import Job
from lib_lora.jobs.queue_listing import job_json
from lib_lora.output.preview import PreviewRequest
from lib_lora.output.publish import use_best
from lib_lora.output.samples import thumbnail
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.trainer import Trainer
from tests.conftest import small_config
from tests.models import shared_host
from tests.test_train import borrowed, fingerprint


@pytest.fixture
def host(shallow_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    return shared_host(shallow_checkpoint, tmp_path / "out")


def run(config: TrainConfig, host: StandaloneHost) -> list[Event]:
    return list(train(config, host, RunControl()))


def of(kind: type, events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def loras(out: Path) -> list[str]:
    return sorted(path.stem for path in out.glob("*.safetensors"))


def test_files_in_between(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    """4 images × 3 in batches of 4, by sizes: 4 steps an epoch."""
    config = small_config(
        photos, tmp_path, batch_size=4, steps=0, epochs=3, save_every_n_epochs=1, save_every_n_steps=5, training_comment="mine"
    )
    events = run(config, host)
    out = tmp_path / "out"
    per_epoch = of(Saved, events)[0].steps // 3
    steps = [f"blob-step{step:08d}" for step in range(5, 3 * per_epoch + 1, 5)]
    assert loras(out) == sorted(["blob", "blob-000001", "blob-000002", *steps])
    assert not of(Note, events) and len(of(SavedBetween, events)) == len(steps) + 2
    found = {name: read(out / f"{name}.safetensors") for name in loras(out)}
    assert [found[name][1]["ss_output_name"] for name in found] == list(found), "the webui's alias of each"
    moments = {name: (metadata["ss_steps"], metadata["ss_epoch"]) for name, (_, metadata) in found.items()}
    assert moments["blob-000001"] == (str(per_epoch), "1") and moments["blob-000002"] == (str(2 * per_epoch), "2")
    assert moments[steps[0]] == ("5", str(4 // per_epoch)) and moments["blob"] == (str(3 * per_epoch), "3")
    assert all(metadata["ss_training_comment"] == "mine" for _, metadata in found.values())
    assert all(json.loads((out / f"{name}.json").read_text())["activation text"] == "ohwx" for name in found)
    key = next(key for key in found["blob"][0] if "lora_up" in key)
    assert len({tuple(state[key].flatten().tolist()) for state, _ in found.values()}) == len(found)
    assert not (out / ".train-lora").exists()


def test_older_files_and_states_go(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    config = small_config(
        photos, tmp_path, steps=6, save_every_n_steps=1, save_last_n_steps=2, save_state=True, save_last_n_steps_state=1
    )
    run(config, host)
    out = tmp_path / "out"
    assert loras(out) == ["blob", "blob-step00000004", "blob-step00000005", "blob-step00000006"]
    assert sorted(path.stem for path in out.glob("*.json")) == loras(out), "a card goes with its file"
    states = sorted(path.name for path in (out / ".train-lora" / "blob").iterdir())
    assert states == ["blob-state", "blob-step00000005-state", "blob-step00000006-state"]


def test_save_now(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    control, events = RunControl(), []
    for event in train(small_config(photos, tmp_path, steps=4, save_state=True), host, control):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 2:
            control.request_save()
    assert loras(tmp_path / "out") == ["blob", "blob-step00000002"] and of(Finished, events)[0].steps == 4
    assert [event.step for event in of(StateSaved, events)] == [2, 4]


def test_saving_in_between_does_not_change_the_run(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    flat = {"steps": 4, "trigger": "ohwx"}
    run(small_config(photos, tmp_path, name="plain", **flat), host)
    changes = {
        "save_every_n_steps": 1,
        "save_state": True,
        "sample_every_n_steps": 2,
        "sample_prompts": "a --s 1",
        "sample_at_first": True,
    }
    run(small_config(photos, tmp_path, name="busy", **flat, **changes), host)
    plain, busy = (read(tmp_path / "out" / f"{name}.safetensors")[0] for name in ("plain", "busy"))
    assert all(torch.equal(plain[key], busy[key]) for key in plain)


def test_names_of_files_in_between_are_refused_before_the_start(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "blob-step00000002.safetensors").write_bytes(b"older")
    with pytest.raises(ConfigError, match="'blob-step00000002' exists already"):
        run(small_config(photos, tmp_path, save_every_n_steps=2), host)
    run(small_config(photos, tmp_path, save_every_n_steps=2, overwrite=True), host)
    assert read(tmp_path / "out" / "blob-step00000002.safetensors")[1]["ss_steps"] == "2"


@pytest.mark.parametrize("what", ["file", "state"])
def test_a_full_disk_ends_the_run_and_leaves_whole_files_alone(
    what: str, photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(borrowed(host))
    real, calls = atomic.os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if what == "file" and len(calls) == 1 or what == "state" and len(calls) > 4:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(atomic.os, "fsync", full)
    config = small_config(photos, tmp_path, steps=4, save_every_n_steps=2, save_state=True)
    with pytest.raises(TrainLoraError, match="No space left on device"):
        run(config, host)
    assert fingerprint(borrowed(host)) == before
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(path.name for path in left) == (
        ["blob-step00000002.safetensors.rescued", "state.json", "state.tensors"]  # the disk refused once
        if what == "file"
        else ["blob-step00000002.json", "blob-step00000002.safetensors"]
    )


PROMPTS = "a blob --s 2 --d 5 --w 64 --h 80\nred --n blue --s 2 --l 3"


def test_samples(photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PreviewRequest] = []
    real = preview_room.sample
    monkeypatch.setattr(
        preview_room, "sample", lambda base, request, precision: asked.append(request) or real(base, request, precision)
    )
    config = small_config(photos, tmp_path, steps=4, sample_prompts=PROMPTS, sample_every_n_steps=2, sample_at_first=True, seed=9)
    drawn = of(Sampled, run(config, host))
    folder = tmp_path / "out" / ".train-lora" / "blob" / "samples"
    assert [event.step for event in drawn] == [0, 2, 4] and drawn[0].prompts == ("a blob", "red")
    wanted = [folder / f"blob_{step:08d}_{place}.png" for step in (0, 2, 4) for place in ("00_5", "01_9")]
    assert [path for event in drawn for path in event.paths] == wanted and sorted(folder.iterdir()) == wanted
    assert Image.open(wanted[0]).size == (64, 80) and Image.open(wanted[1]).size == (64, 64)
    assert len({path.read_bytes() for path in wanted}) == 6, "they change while the LoRA learns"
    first, second = asked[:2]
    assert (first.seed, first.guidance, first.negative) == (5, 7.5, "")
    assert (second.seed, second.guidance, second.negative, second.steps) == (9, 3.0, "blue", 2)
    assert thumbnail(wanted[0]).startswith(b"\xff\xd8")


def test_every_part_of_a_request_counts(host: StandaloneHost) -> None:
    import dataclasses

    from lib_lora.data.sizes import Size
    from lib_lora.output.preview import sample
    from lib_lora.training.precision import Precision

    plain = PreviewRequest("a cat", Size(64, 64), 2, 1, 7.0)
    with host.borrow_model() as base:
        precision = Precision("no", torch.float32)
        first, again = (sample(base, plain, precision).tobytes() for _ in range(2))
        changes = [{"negative": "a dog"}, {"guidance": 1.0}, {"seed": 2}, {"steps": 3}, {"prompt": "a dog"}]
        others = [sample(base, dataclasses.replace(plain, **change), precision).tobytes() for change in changes]
    assert first == again and len({first, *others}) == 6


def test_without_prompts_the_trigger_is_drawn(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview_room, "STEPS", 1)
    config = small_config(photos, tmp_path, steps=1, sample_every_n_epochs=1)
    assert of(Sampled, run(config, host))[0].prompts == ("ohwx",)


def test_samples_that_fail_do_not_cost_the_lora(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(preview_room, "sample", fail)
    events = run(small_config(photos, tmp_path, sample_every_n_steps=1), host)
    assert len(of(Note, events)) == 1 and "CUDA out of memory" in of(Note, events)[0].text and of(Finished, events)[0].path


@pytest.fixture
def falling_and_rising(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {1: 0.9, 2: 0.5, 3: 0.7, 4: 0.8}
    measured = lambda self, done: HeldOut(done.step, losses[done.step])  # noqa: E731
    monkeypatch.setattr(checkpointer_room.Checkpointer, "_measured", measured)


def test_the_best_is_saved_beside_the_last(photos: Path, host: StandaloneHost, tmp_path: Path, falling_and_rising: None) -> None:
    events = run(small_config(photos, tmp_path, steps=4, save_every_n_steps=2), host)
    best = of(BestSaved, events)[0]
    assert (best.path.name, best.step, best.loss) == ("blob-best.safetensors", 2, 0.5) and len(of(HeldOut, events)) == 4
    state, metadata = read(best.path)
    assert (metadata["ss_best_step"], metadata["ss_steps"], metadata["ss_output_name"]) == ("2", "2", "blob-best")
    then, _ = read(tmp_path / "out" / "blob-step00000002.safetensors")
    assert all(torch.equal(state[key], then[key]) for key in then)


def test_the_best_outlives_a_break(photos: Path, host: StandaloneHost, tmp_path: Path, falling_and_rising: None) -> None:
    run(small_config(photos, tmp_path, steps=3, save_every_n_steps=2, save_state=True), host)
    events = run(small_config(photos, tmp_path, name="more", steps=4, resume="blob"), host)
    best = of(BestSaved, events)[0]
    then = read(tmp_path / "out" / "blob-step00000002.safetensors")[0]
    assert best.step == 2 and all(torch.equal(value, then[key]) for key, value in read(best.path)[0].items())


def test_files_and_samples_show_the_weights_that_are_kept_and_states_those_that_are_trained(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, falling_and_rising: None
) -> None:
    kept, seen = [], []

    @contextmanager
    def keep(_: Trainer) -> Iterator[None]:
        kept.append(True)
        yield
        kept.pop()

    def spied(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def spy(*args: object, **kwargs: object) -> object:
            seen.append((name, bool(kept)))
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, spy)

    monkeypatch.setattr(Trainer, "result", keep)
    spied(preview_room, "sample")
    spied(result_room, "state_dict")
    spied(Trainer, "state")
    run(
        small_config(
            photos, tmp_path, steps=2, save_every_n_steps=1, save_state=True, sample_every_n_steps=1, sample_prompts="a --s 1"
        ),
        host,
    )
    assert seen.count(("state_dict", True)) == 5  # a file and a best LoRA after each step, and the end
    assert set(seen) == {("state_dict", True), ("sample", True), ("state", False)}


def test_no_best_when_it_is_the_last(photos: Path, host: StandaloneHost, tmp_path: Path, falling_and_rising: None) -> None:
    assert not of(BestSaved, run(small_config(photos, tmp_path, steps=2), host)) and loras(tmp_path / "out") == ["blob"]


def test_use_best(photos: Path, host: StandaloneHost, tmp_path: Path, falling_and_rising: None) -> None:
    run(small_config(photos, tmp_path, steps=4), host)
    out = tmp_path / "out"
    best, last = (read(out / f"{name}.safetensors") for name in ("blob-best", "blob"))
    assert use_best("blob", out / "blob-best.safetensors", host) == out / "blob-last.safetensors"
    assert loras(out) == ["blob", "blob-last"]
    promoted, kept = (read(out / f"{name}.safetensors") for name in ("blob", "blob-last"))
    assert all(torch.equal(promoted[0][key], best[0][key]) and torch.equal(kept[0][key], last[0][key]) for key in best[0])
    assert promoted[1]["ss_output_name"] == promoted[1]["modelspec.title"] == "blob" and promoted[1]["ss_best_step"] == "2"
    assert kept[1]["ss_output_name"] == "blob-last" and kept[1]["sshs_model_hash"] == last[1]["sshs_model_hash"]
    with pytest.raises(LoraFileError, match="'blob-best.safetensors' does not exist any more"):
        use_best("blob", out / "blob-best.safetensors", host)
    assert loras(out) == ["blob", "blob-last"]


def test_a_best_whose_name_is_taken_bears_its_own(
    photos: Path, host: StandaloneHost, tmp_path: Path, falling_and_rising: None
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "blob-best.safetensors").touch()
    best = of(BestSaved, run(small_config(photos, tmp_path, steps=4), host))[0].path
    assert best.name == "blob-best-2.safetensors" and read(best)[1]["ss_output_name"] == "blob-best-2"
    use_best("blob", best, host)
    assert read(out / "blob.safetensors")[1]["ss_output_name"] == "blob"


def test_a_job_tells_the_files_that_are_there(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    config = small_config(photos, tmp_path, steps=6, save_every_n_steps=1, save_last_n_steps=1)
    job = Job(config, torch.device("cpu"))
    for event in run(config, host):
        job.apply(event)
    there = {path.stem for path in (tmp_path / "out").glob("blob-step*.safetensors")}
    assert set(job_json(job)["between"]) == there and len(there) < 6
