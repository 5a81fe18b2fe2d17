"""A run that resumes from a state equals one without a break, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import lib_lora.output.checkpointer as checkpointer_room
from lib_lora.errors import ConfigError, DatasetError, TrainLoraError
from lib_lora.events import Encoded, Finished, Note, Planned, StateSaved, StepDone
from lib_lora.files.lora_file import read
from lib_lora.files.plain_values import StateError
from lib_lora.files.state_file import TENSORS, VALUES
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.optimizer import Updater
from tests.conftest import small_config, write_picture
from tests.models import shared_host
from tests.states import state_folder


@pytest.fixture
def host(mini_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    return shared_host(mini_checkpoint, tmp_path / "out")


def run(
    host: StandaloneHost, photos: Path, out: Path, stop_at: int = 0, **changes: object
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The tensors and the losses of a run, ended after `stop_at` steps and kept."""
    control, losses, path = RunControl(), [], None
    for event in train(small_config(photos, out, **changes), host, control):
        if isinstance(event, StepDone):
            losses.append(event.loss)
            if event.step == stop_at:
                control.request_stop(keep=True)
        if isinstance(event, Finished):
            path = event.path
    assert path is not None
    return read(path)[0], losses


RUNS = {
    "AdamW": {"lr_scheduler": "cosine", "lr_warmup_steps": 3},
    "two in a batch": {"batch_size": 2, "shuffle_caption": True, "caption_dropout_rate": 0.3, "noise_offset": 0.1},
    "Lion": {"optimizer": "Lion", "lr_scheduler_type": "StepLR", "lr_scheduler_args": ["step_size=2", "gamma=0.5"]},
    "Prodigy": {"optimizer": "Prodigy", "unet_lr": 1, "text_encoder_lr": 1},
    "LoKr of convolutions": {"adapter_type": "lokr", "conv_dim": 2, "rank_dropout": 0.3, "scale_weight_norms": 0.01},
    "DoRA": {"adapter_type": "dora", "ema_decay": 0.9},
    "AdaFactor": {"optimizer": "AdaFactor", "lr_scheduler": "adafactor"},
    "accumulated": {"gradient_accumulation_steps": 3, "ema_decay": 0.9, "network_dropout": 0.2, "rank_dropout": 0.1,
                    "module_dropout": 0.1, "stop_text_encoder_training": 4, "scale_weight_norms": 0.5},
    "live": {"cache_latents": False, "random_crop": True, "color_aug": True, "flip_aug": True, "validation_split": 0.25,
             "validate_every_n_steps": 2},
    "embedding": {"embedding_vectors": 2, "ema_decay": 0.9, "stop_embedding_training": 4, "text_encoder_lr": 0,
                  "validation_split": 0.25, "validate_every_n_steps": 2},
    "SGDNesterov": {"optimizer": "SGDNesterov", "unet_lr": 0.1, "text_encoder_lr": 0},
}  # fmt: skip


@pytest.mark.case(31)
@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_it_equals_the_run_without_a_break(
    changes: dict[str, object], photos: Path, host: StandaloneHost, tmp_path: Path
) -> None:
    """Broken twice, in the middle of an epoch and of a bucket: 4 images × 3 are an epoch of 12 steps, or of 7."""
    if changes.get("optimizer") in {"Lion", "Prodigy"}:
        pytest.importorskip({"Lion": "lion_pytorch", "Prodigy": "prodigyopt"}[str(changes["optimizer"])])
    whole, losses = run(host, photos, tmp_path, name="whole", steps=9, **changes)
    part = {"name": "part", "steps": 9, "save_state": True, "overwrite": True, **changes}
    first = run(host, photos, tmp_path, 2, **part)[1]
    second = run(host, photos, tmp_path, 5, resume="part", **part)[1]
    state, third = run(host, photos, tmp_path, resume="part", **part)
    assert [len(first), len(second), len(third)] == [2, 3, 4] and first + second + third == losses
    assert all(torch.equal(state[key], whole[key]) for key in whole)


@pytest.mark.case(31)
def test_a_run_that_dies_within_an_accumulated_step(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is of the last whole step; the batches of the broken one are shown again, with the same draws."""
    flat = {"gradient_accumulation_steps": 3, "steps": 5, "save_state": True, "save_every_n_steps": 1, "overwrite": True}
    whole, losses = run(host, photos, tmp_path, name="whole", **flat)
    accumulate, calls = Updater.accumulate, []

    def dies(self: Updater, loss: torch.Tensor) -> None:
        calls.append(loss)
        if len(calls) == 8:  # the second batch of the third step
            raise KeyboardInterrupt
        accumulate(self, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Updater, "accumulate", dies)
        with pytest.raises(KeyboardInterrupt):
            run(host, photos, tmp_path, name="part", **flat)
    state, rest = run(host, photos, tmp_path, name="part", resume="part", **flat)
    assert losses[2:] == rest and all(torch.equal(state[key], whole[key]) for key in whole)


def test_from_a_state_in_between_with_more_steps(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    whole, _ = run(host, photos, tmp_path, name="whole", steps=6)
    run(host, photos, tmp_path, name="part", steps=4, save_every_n_steps=2, save_state=True)
    folder = tmp_path / "out" / ".train-lora" / "part" / "part-step00000002-state"
    for resume in (str(folder), "part-step00000002-state", "part", str(folder.parent)):
        name = f"more {len(resume)}"
        state, losses = run(host, photos, tmp_path, name=name, steps=6, resume=resume, save_precision="float")
        assert len(losses) == (4 if "step" in resume else 2) and all(torch.equal(state[key], whole[key]) for key in whole), resume


def test_a_schedule_goes_on_by_the_new_number_of_steps(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    flat = {"lr_scheduler": "linear", "save_state": True, "overwrite": True}
    run(host, photos, tmp_path, steps=2, **flat)
    rates = [
        event.learning_rates[0]
        for event in train(small_config(photos, tmp_path, steps=4, resume="blob", **flat), host, RunControl())
        if isinstance(event, StepDone)
    ]
    assert rates == pytest.approx([5e-4, 2.5e-4])


def test_state_at_the_end_alone(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    events = list(train(small_config(photos, tmp_path, save_every_n_steps=1, save_state_on_train_end=True), host, RunControl()))
    states = [event for event in events if isinstance(event, StateSaved)]
    assert [(event.folder.name, event.step) for event in states] == [("blob-state", 3)]


def test_stopping_without_keeping_writes_no_state(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    control = RunControl()
    for event in train(small_config(photos, tmp_path, save_state=True), host, control):
        if isinstance(event, StepDone):
            control.request_stop(keep=False)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A list that grows when a model is borrowed."""
    touched: list[bool] = []
    real = StandaloneHost.borrow_model

    def borrow(self: StandaloneHost) -> object:
        touched.append(True)
        return real(self)

    monkeypatch.setattr(StandaloneHost, "borrow_model", borrow)
    return touched


def refused(host: StandaloneHost, photos: Path, out: Path, **changes: object) -> Sequence[str]:
    with pytest.raises(ConfigError) as caught:
        run(host, photos, out, resume="blob", overwrite=True, steps=6, **changes)
    return caught.value.problems


def test_what_does_not_fit_is_told_before_the_model_is_touched(
    photos: Path, host: StandaloneHost, tmp_path: Path, untouched: list[bool]
) -> None:
    run(host, photos, tmp_path, save_state=True)
    untouched.clear()
    told = refused(host, photos, tmp_path, rank=3, unet_lr=2e-3, seed=7)
    assert len(told) == 1
    for part in ("Rank (rank) was 2, is 3", "Learning rate, U-Net (unet_lr) was 0.001, is 0.002", "Seed (seed) was 42, is 7"):
        assert part in told[0]
    for changes, said in (
        ({"name": "other"}, "neither the folder of a saved state nor the name"),
        ({"steps": 3}, "the state is at step 3 of 3, nothing is left to train"),
        ({"batch_size": 2}, "Batch size (batch_size) was 1, is 2"),
    ):
        flat = {"resume": "blob" if "name" not in changes else "nothing", "overwrite": True, "steps": 6, **changes}
        with pytest.raises(ConfigError, match=said.replace("(", r"\(").replace(")", r"\)")):
            run(host, photos, tmp_path, **flat)
    assert untouched == []


@pytest.mark.parametrize("change", ["caption", "picture", "more"])
def test_other_images_are_noticed(change: str, photos: Path, host: StandaloneHost, tmp_path: Path, untouched: list[bool]) -> None:
    run(host, photos, tmp_path, save_state=True)
    untouched.clear()
    folder = photos / "3_blob"
    if change == "caption":
        (folder / "1.txt").write_text("another")
    else:
        write_picture(folder / ("0.png" if change == "picture" else "9.png"), seed=77)
    assert refused(host, photos, tmp_path) == [
        "Resume from (resume): the state was trained on other images or captions; restore those."
    ]
    assert untouched == []


def test_an_image_that_goes_meanwhile_is_one_sentence(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    """Before its latents are made; they are of what was checked. Later nobody asks for the file."""
    for change, told in (
        (Path.unlink, r"'0\.png' cannot be read \(No such file or directory\); restore it"),
        (lambda path: write_picture(path, seed=77), r"'0\.png' has changed since it was checked; start again"),
    ):
        with pytest.raises(DatasetError, match=told):
            for event in train(small_config(photos, tmp_path, save_state=True), host, RunControl()):
                if isinstance(event, Planned):
                    change(photos / "3_blob" / "0.png")
        write_picture(photos / "3_blob" / "0.png")
    for event in train(small_config(photos, tmp_path, save_state=True), host, RunControl()):
        if isinstance(event, Encoded) and event.done == 4:
            (photos / "3_blob" / "0.png").unlink()
    assert isinstance(event, Finished) and event.path is not None


def test_images_may_move(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    whole, _ = run(host, photos, tmp_path, name="whole", steps=4)
    run(host, photos, tmp_path, save_state=True)
    photos.rename(tmp_path / "moved")
    state, losses = run(host, tmp_path / "moved", tmp_path, resume="blob", steps=4, name="other")
    assert len(losses) == 1 and all(torch.equal(state[key], whole[key]) for key in whole)


@pytest.mark.parametrize("damage", ["values", "tensors", "missing"])
def test_damage_is_told_before_the_model_is_touched(
    damage: str, photos: Path, host: StandaloneHost, tmp_path: Path, untouched: list[bool]
) -> None:
    run(host, photos, tmp_path, save_state=True)
    untouched.clear()
    folder = tmp_path / "out" / ".train-lora" / "blob" / "blob-state"
    path = folder / (VALUES if damage == "values" else TENSORS)
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-9])
    flat = {"resume": str(folder), "overwrite": True, "steps": 6}
    with pytest.raises(ConfigError, match=r"Resume from \(resume\).*choose an older state"):
        run(host, photos, tmp_path, **flat)
    assert untouched == []


@pytest.mark.case(32)
def test_another_checkpoint_is_refused_with_the_model_back(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib_lora.model.base import ModelInfo

    run(host, photos, tmp_path, save_state=True)
    monkeypatch.setattr(DiffusersModel, "info", lambda self: ModelInfo("other.safetensors", "00000000", None))
    with pytest.raises(TrainLoraError, match=r"another checkpoint than 'other\.safetensors'"):
        run(host, photos, tmp_path, resume="blob", steps=6, overwrite=True)


def test_files_of_the_part_before_are_not_in_the_way(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    flat = {"save_state": True, "save_every_n_steps": 1}
    run(host, photos, tmp_path, 2, steps=4, **flat)
    (tmp_path / "out" / "blob.safetensors").unlink()
    run(host, photos, tmp_path, resume="blob", steps=4, **flat)
    (tmp_path / "out" / "blob.safetensors").unlink()
    with pytest.raises(ConfigError, match="'blob-step00000003' exists already"):
        run(host, photos, tmp_path, resume="blob-step00000002-state", steps=4, **flat)


def test_newest_state_passes_over_damaged_ones(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    run(host, photos, tmp_path, save_state=True, save_every_n_steps=1)
    work = tmp_path / "out" / ".train-lora"
    assert state_folder("blob", work).name == "blob-state"
    for name in ("blob-state", "blob-step00000003-state"):
        (work / "blob" / name / VALUES).write_text("{")
    assert state_folder("blob", work).name == "blob-step00000002-state"


def test_a_lora_is_not_lost_with_the_last_state(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StateError("no space left on the disk")

    monkeypatch.setattr(checkpointer_room, "write_state", full)
    events = list(train(small_config(photos, tmp_path, save_state_on_train_end=True), host, RunControl()))
    assert isinstance(events[-1], Finished) and events[-1].path and events[-1].path.exists()
    assert any(isinstance(event, Note) and "not its state" in event.text for event in events)


def test_encoding_at_each_step_draws_other_latents(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    run(host, photos, tmp_path, 2, name="part", steps=4, save_state=True)
    with pytest.raises(ConfigError, match="cache_latents"):
        run(host, photos, tmp_path, name="more", steps=4, resume="part", cache_latents=False)
