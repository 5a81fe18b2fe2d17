"""Whole runs on the standalone host."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import lib_lora.output.lora_writer as result_room
from lib_lora.config.groups import TrainConfig
from lib_lora.errors import ConfigError, DatasetError, HostChanged, LoraFileError
from lib_lora.events import Encoded, Event, Finished, Note, Planned, Saved, StepDone
from lib_lora.files.lora_file import read
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.model.base import networks
from lib_lora.plan import Batch
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.latents import LatentSource
from lib_lora.training.memory import OutOfMemoryError
from lib_lora.training.trainer import Trainer
from tests.conftest import small_config, write_picture
from tests.models import shared_host


@pytest.fixture
def host(mini_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    return shared_host(mini_checkpoint, tmp_path / "out")


def run(config: TrainConfig, host: StandaloneHost) -> list[Event]:
    return list(train(config, host, RunControl()))


def fingerprint(model: DiffusersModel) -> str:
    """Hash of everything that a run must not change."""
    digest = hashlib.sha256()
    for module in (*networks(model), model.vae):
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            digest.update(
                f"{name}{tensor.dtype}{tensor.device}{tensor.requires_grad}".encode() + tensor.detach().numpy().tobytes()
            )
        for name, child in module.named_modules():
            digest.update(f"{name}{child.training}{'forward' in child.__dict__}{len(child._forward_hooks)}".encode())
    return digest.hexdigest()


def borrowed(host: StandaloneHost) -> DiffusersModel:
    with host.borrow_model() as base:
        return base


def test_events_files_and_an_unchanged_model(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    before = fingerprint(borrowed(host))
    events = run(small_config(photos, tmp_path, preview_steps=2), host)
    assert isinstance(events[0], Planned) and events[0].plan.steps == 3
    assert [e.done for e in events if isinstance(e, Encoded)] == [1, 2, 3, 4]
    assert [e.step for e in events if isinstance(e, StepDone)] == [1, 2, 3]
    assert any(isinstance(e, Saved) for e in events) and isinstance(events[-1], Finished)
    path = events[-1].path
    assert path == tmp_path / "out" / "blob.safetensors"
    assert sorted(p.name for p in path.parent.iterdir()) == ["blob.json", "blob.png", "blob.safetensors"]
    assert Image.open(path.with_suffix(".png")).size == (64, 64)
    state, metadata = read(path)
    assert metadata["ss_steps"] == "3" and len(state) == 204 * 3
    assert any(value.abs().sum() > 0 for key, value in state.items() if "lora_up" in key)
    assert fingerprint(borrowed(host)) == before


def test_the_same_settings_give_the_same_lora(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    torch.manual_seed(1)
    states = []
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 7}), ("d", {"unet_lr": 2e-3})):
        torch.rand(3)
        run(small_config(photos, tmp_path, name=name, **changes), host)
        states.append(read(tmp_path / "out" / f"{name}.safetensors")[0])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    for other in states[2:]:
        assert any(not torch.equal(states[0][key], other[key]) for key in states[0])


def test_a_part_with_rate_zero_is_left_out(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    run(small_config(photos, tmp_path, name="u", text_encoder_lr=0), host)
    run(small_config(photos, tmp_path, name="t", unet_lr=0), host)
    assert {key.split("_")[1] for key in read(tmp_path / "out" / "u.safetensors")[0]} == {"unet"}
    assert {key.split("_")[1] for key in read(tmp_path / "out" / "t.safetensors")[0]} == {"te"}


def test_training_lowers_the_loss(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    losses = [
        e.loss
        for e in run(small_config(photos, tmp_path, steps=60, rank=8, alpha=8, unet_lr=1e-2), host)
        if isinstance(e, StepDone)
    ]
    assert sum(losses[-15:]) < 0.8 * sum(losses[:15])


@pytest.mark.parametrize("keep", [True, False])
def test_stop(photos: Path, host: StandaloneHost, tmp_path: Path, keep: bool) -> None:
    control, last = RunControl(), None
    for event in train(small_config(photos, tmp_path, steps=50), host, control):
        last = event
        if isinstance(event, StepDone) and event.step == 2:
            control.request_stop(keep=keep)
    assert isinstance(last, Finished) and last.steps == 2
    assert (last.path is not None) == keep == (tmp_path / "out" / "blob.safetensors").exists()
    if keep:
        assert read(last.path)[1]["ss_steps"] == "2"


def test_stop_while_encoding(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    control, events = RunControl(), []
    for event in train(small_config(photos, tmp_path), host, control):
        events.append(event)
        if isinstance(event, Encoded):
            control.request_stop(keep=True)
    assert isinstance(events[-1], Finished) and events[-1].path is None and not any(isinstance(e, StepDone) for e in events)


def test_all_problems_at_once_before_the_model_is_touched(tmp_path: Path) -> None:
    host = StandaloneHost(tmp_path / "missing.safetensors", tmp_path)
    write_picture(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b.jpg").write_text("x")
    with pytest.raises(ConfigError) as caught:
        run(small_config(tmp_path / "photos", tmp_path, name="a/b", trigger="", resolution=500, min_bucket_reso=64), host)
    told = caught.value.problems
    assert len(told) == 5
    for part in ("resolution", "plain file name", "missing.safetensors", "'a.png' has no caption", "'b.jpg' is not a readable"):
        assert any(part in problem for problem in told), part


@pytest.mark.parametrize("phase", ["encode", "step", "metadata", "check"])
def test_a_failure_anywhere_gives_the_model_back_and_lists_no_file(
    phase: str, photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(borrowed(host))

    def fail(*_: object, **__: object) -> Iterator[object]:
        raise RuntimeError("injected")

    place = {
        "encode": (DiffusersModel, "encode_image"), "step": (Trainer, "step"),
        "metadata": (result_room, "file_metadata"), "check": (StandaloneHost, "check_lora"),
    }[phase]  # fmt: skip
    monkeypatch.setattr(*place, fail)
    with pytest.raises((RuntimeError, LoraFileError), match="injected"):
        run(small_config(photos, tmp_path, preview_steps=1), host)
    assert fingerprint(borrowed(host)) == before
    left = sorted(path.name for path in (tmp_path / "out").glob("*"))
    assert left == ([".train-lora", "blob.safetensors.rescued"] if phase in {"metadata", "check"} else [])


@pytest.mark.parametrize("failing", ["draw_preview", "write_card"])
def test_a_card_that_fails_does_not_cost_the_lora(
    failing: str, photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(borrowed(host))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(result_room, failing, fail)
    events = run(small_config(photos, tmp_path, preview_steps=1), host)
    assert any(isinstance(e, Note) and "CUDA out of memory" in e.text for e in events)
    assert isinstance(events[-1], Finished) and events[-1].path is not None and events[-1].path.is_file()
    assert fingerprint(borrowed(host)) == before


@pytest.mark.case(66)
def test_a_name_that_is_taken_meanwhile_does_not_cost_the_lora(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    for event in train(small_config(photos, tmp_path), host, RunControl()):
        if isinstance(event, StepDone):
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out" / "Blob.safetensors").write_bytes(b"somebody else's")
        if isinstance(event, Finished):
            assert event.path == tmp_path / "out" / "blob-2.safetensors"
    assert (tmp_path / "out" / "Blob.safetensors").read_bytes() == b"somebody else's"


def test_running_out_of_memory_is_one_sentence(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate …")

    monkeypatch.setattr(DiffusersModel, "predict", full)
    with pytest.raises(OutOfMemoryError, match="ran out of memory at step 1, even with gradient checkpointing: Batch size"):
        run(small_config(photos, tmp_path), host)


def test_a_model_taken_away_in_the_middle_of_a_step_is_named(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def predict(*_: object) -> None:
        taken.append(True)
        raise RuntimeError("Expected all tensors to be on the same device")

    def verify(_: DiffusersModel) -> None:
        if taken:
            raise HostChanged("The checkpoint was unloaded.")

    monkeypatch.setattr(DiffusersModel, "predict", predict)
    monkeypatch.setattr(DiffusersModel, "verify", verify)
    with pytest.raises(HostChanged):
        run(small_config(photos, tmp_path, generate_while_training=False), host)


def test_a_picture_exchanged_after_the_check_is_noticed(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'0\.png' has changed since it was checked"):
        for event in train(small_config(photos, tmp_path), host, RunControl()):
            if isinstance(event, Planned):
                write_picture(photos / "3_blob" / "0.png", 40, 90)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_cannot_be_written_is_told_before(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="cannot be written to"):
        run(small_config(photos, tmp_path), host)


@pytest.mark.case(66)
def test_overwriting_keeps_the_old_file_until_the_new_one_loads(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(small_config(photos, tmp_path), host)
    path = tmp_path / "out" / "blob.safetensors"
    old = path.read_bytes()
    with pytest.raises(ConfigError, match="'blob' is taken; use 'blob-2'"):
        run(small_config(photos, tmp_path), host)
    with monkeypatch.context() as patch:
        patch.setattr(StandaloneHost, "check_lora", lambda *_: (_ for _ in ()).throw(LoraFileError("no")))
        with pytest.raises(LoraFileError):
            run(small_config(photos, tmp_path, overwrite=True, seed=9), host)
    assert path.read_bytes() == old
    run(small_config(photos, tmp_path, overwrite=True, seed=9), host)
    assert path.read_bytes() != old and sorted(p.name for p in path.parent.iterdir()) == [
        ".train-lora", "blob.json", "blob.safetensors", "blob.safetensors.rescued",
    ], "what did not load lies beside, with its state"  # fmt: skip


def test_a_model_that_is_taken_away_ends_the_run(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: DiffusersModel) -> None:
        raise HostChanged("gone")

    monkeypatch.setattr(DiffusersModel, "verify", gone)
    with pytest.raises(HostChanged):
        run(small_config(photos, tmp_path), host)


@pytest.mark.parametrize(
    ("flat", "sentence"),
    [
        ({"clip_skip": 4}, "got 4, but the text encoder has 2 layers"),
        ({"lr_scheduler_type": "OneCycleLR", "lr_scheduler_args": ["max_lr=0.001", "total_steps=5"], "steps": 8}, "ends at step"),
    ],
)
def test_what_would_fail_later_is_told_at_the_start(
    flat: dict[str, object], sentence: str, photos: Path, host: StandaloneHost, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(small_config(photos, tmp_path, **flat), host)


def test_a_step_in_which_every_layer_is_left_out_changes_nothing(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    events = run(small_config(photos, tmp_path, module_dropout=0.99, text_encoder_lr=0, steps=3), host)
    assert len([event for event in events if isinstance(event, StepDone)]) == 3


def test_steps_executed_are_the_steps_planned(host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty runs of random images, repeats, batches, accumulation, epochs and buckets; only the step's arithmetic is left out."""
    rng = random.Random(1)
    sizes = [(64, 64), (128, 64), (64, 128), (96, 96)]
    for number in range(8):
        write_picture(tmp_path / "all" / f"{number}.png", *sizes[number % 4], seed=number)
    executed: list[int] = []

    def step(_: Trainer, batches: list[Batch]) -> StepDone:
        executed.append(sum(len(batch.indices) for batch in batches))
        return StepDone(batches[0].step + 1, 0, batches[0].epoch + 1, 0.0, ())

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(LatentSource, "encode", lambda self: iter(range(1, self.total + 1)))
    for run_number in range(50):
        folders = []
        for name in ("a", "b")[: rng.randint(1, 2)]:
            folder = tmp_path / str(run_number) / f"{rng.randint(1, 4)}_{name}"
            folder.mkdir(parents=True)
            for picture in rng.sample(sorted((tmp_path / "all").iterdir()), rng.randint(1, 5)):
                shutil.copyfile(picture, folder / picture.name)
            folders.append(str(folder))
        flat = {"batch_size": rng.randint(1, 4), "gradient_accumulation_steps": rng.randint(1, 3), "epochs": rng.randint(1, 3),
                "steps": rng.choice([0, 0, 7]), "enable_bucket": rng.random() < 0.7, "text_encoder_lr": 0, "data": folders,
                "train_layers": "cross-attention", "overwrite": True}  # fmt: skip
        executed.clear()
        events = run(small_config(tmp_path, tmp_path, **flat), host)
        plan = events[0].plan
        assert len(executed) == plan.steps == events[-1].steps
        if not flat["steps"]:
            assert sum(executed) == flat["epochs"] * sum(sample.repeats for sample in plan.samples)
