"""Every way a run can end: its messages, the files on disk, and what the shell and the page get."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import lib_lora.cli as cli_room
import lib_lora.training.step as step_room
from lib_lora.cli import main
from lib_lora.config.adapter import AdapterConfig
from lib_lora.errors import HostChanged, LoraFileError
from lib_lora.events import Encoded, Event, Finished, HeldOut, Left, Note, Saved, StepDone
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.jobs.runner import Runner
from lib_lora.model.adapter import state_dict
from lib_lora.model.adapter_types import adapter_delta, made_of, new_adapter
from lib_lora.model.base import Target
from lib_lora.output.effect import has_effect
from lib_lora.output.lora_writer import LoraWriter
from lib_lora.output.written_files import MOST_NAMED, left_lines
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.step import DivergedError
from lib_lora.training.trainer import Trainer
from tests.conftest import small_config, write_picture
from tests.models import shared_host
from tests.test_jobs import wait


@pytest.fixture
def host(shallow_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    return shared_host(shallow_checkpoint, tmp_path / "out")


def arguments(checkpoint: Path, photos: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--checkpoint", str(checkpoint), "--data", str(photos), "--out", str(out), "--name", "blob",
            "--trigger", "ohwx", "--resolution", "64", "--min-bucket-reso", "64", "--rank", "2", "--preview-steps", "0", *more]  # fmt: skip


def test_the_command_line_tells_what_the_report_tells(
    shallow_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of another kind, a folder without a number, an image beside the numbered folder; a caption of two lines, and none."""
    folder, out = tmp_path / "set", tmp_path / "out"
    for seed, place in enumerate(("2_zxq ball/a.png", "2_zxq ball/d.png", "more/c.png", "e.png")):
        write_picture(folder / place, seed=seed)
    Image.new("RGB", (64, 64)).save(folder / "2_zxq ball" / "b.gif")
    (folder / "2_zxq ball" / "a.txt").write_text("red ball,\ngrass")
    notes = [
        "2_zxq ball: files of the types .gif are not used; save them as PNG, JPEG, WEBP or BMP.",
        "set: folders without a number and images next to the numbered folders are not used.",
        "Captions: 1 of 2 from files, none for 'd.png'",
    ]
    argv = arguments(shallow_checkpoint, folder, out, "--steps", "1", "--save_state", "--cache_latents_to_disk")
    assert main(argv) == 0
    said = capsys.readouterr()
    assert said.out == f"{out / 'blob.safetensors'}\n"
    told = said.err.splitlines()
    assert all(note in told for note in notes)
    assert any(line.startswith("Caption file 'a.txt': only the first line is used") for line in told)
    left = [line.removeprefix("left on the disk: ") for line in told if line.startswith("left on the disk: ")]
    latents, state = folder / "2_zxq ball" / ".train-lora-latents", out / ".train-lora" / "blob" / "blob-state"
    assert left == [str(out / "blob.safetensors"), f"{state} (2 files)", str(out / "blob.json"), f"{latents} (2 files)"]
    assert main(["estimate", *argv[1:], "--device", "cpu"]) == 0
    assert set(notes) <= set(capsys.readouterr().err.splitlines())


def test_notes_reach_the_job(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    (photos / "3_blob" / "0.txt").write_text("a blob\nof two lines")
    last = wait(Runner(host).start(small_config(photos, tmp_path, steps=1)))
    assert last["state"] == "done" and any("'0.txt': only the first line" in note for note in last["notes"])
    assert last["left"] == ["blob.safetensors", "blob.json"], "a page sees no folders"


def failing(*_: object, **__: object) -> Any:
    raise LoraFileError("It does not load.")


def at_step(number: int, act: Callable[[RunControl], object]) -> Callable[[Event, RunControl], object]:
    return lambda event, control: act(control) if isinstance(event, StepDone) and event.step == number else None


ENDS: dict[str, tuple[Callable[[Event, RunControl], object], Callable[[pytest.MonkeyPatch], object], type[BaseException] | None]] = {
    "finished": (lambda *_: None, lambda _: None, None),
    "stopped": (at_step(2, lambda control: control.request_stop(keep=False)), lambda _: None, None),
    "stopped and kept": (at_step(2, lambda control: control.request_stop(keep=True)), lambda _: None, None),
    "left": (at_step(2, lambda control: control.request_leave()), lambda _: None, None),
    "failed at the save": (lambda *_: None, lambda patch: patch.setattr(LoraWriter, "card", failing), LoraFileError),
    "diverged": (
        at_step(2, lambda _: pytest.MonkeyPatch().setattr(Trainer, "_losses", diverging)),
        lambda patch: patch.setattr(Trainer, "_losses", Trainer._losses),
        DivergedError,
    ),
    "out of memory": (lambda *_: None, lambda patch: patch.setattr(Trainer, "step", breaking(MemoryError)), MemoryError),
    "interrupted": (lambda *_: None, lambda patch: patch.setattr(Trainer, "step", breaking(KeyboardInterrupt)), KeyboardInterrupt),
    "the model is gone": (lambda *_: None, lambda patch: patch.setattr(Trainer, "step", breaking(HostChanged)), HostChanged),
}  # fmt: skip


def diverging(*_: object) -> list[float]:
    raise DivergedError("The loss is not a number any more.")


def breaking(error: type[BaseException]) -> Callable[..., StepDone]:
    """A step that fails with `error` from the third on."""
    real = Trainer.step

    def step(self: Trainer, batches: Any) -> StepDone:
        if batches[0].step == 2:
            raise error("no more")
        return real(self, batches)

    return step


@pytest.mark.parametrize("end", ENDS)
def test_what_is_left_is_named_however_a_run_ends(
    end: str, photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the disk: every file that was not there before is named, or lies in a folder that is; nothing is named twice."""
    meanwhile, before, error = ENDS[end]
    there = {path for path in tmp_path.rglob("*") if path.is_file()}
    changes = {"save_every_n_steps": 1, "save_last_n_steps": 2, "save_state": True, "sample_every_n_steps": 2,
               "sample_prompts": "a blob --s 1", "cache_latents_to_disk": True, "steps": 8 if end == "diverged" else 4,
               "generate_while_training": False}  # fmt: skip
    before(monkeypatch)
    control, left = RunControl(), list[Left]()

    def run() -> None:
        for event in train(small_config(photos, tmp_path, **changes), host, control):
            meanwhile(event, control)
            if isinstance(event, Left):
                left.append(event)

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    (found,) = left
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - there
    unnamed = [path for path in new if not ({path, *path.parents} & set(found.paths))]
    assert new and not unnamed and len(found.paths) == len(set(found.paths)) and all(path.exists() for path in found.paths)
    assert not {path for path in found.paths if path in there or path in {folder for old in there for folder in old.parents}}


def test_many_files_are_a_number_and_their_folder(tmp_path: Path) -> None:
    samples = [tmp_path / "samples" / f"{number}.png" for number in range(MOST_NAMED + 1)]
    for path in (*samples, tmp_path / "x.safetensors", tmp_path / "x-state" / "state.json"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    paths = [tmp_path / "x.safetensors", *samples, tmp_path / "x-state"]
    assert left_lines(paths) == [
        str(tmp_path / "x.safetensors"), f"{tmp_path / 'samples'} ({MOST_NAMED + 1} png files)", f"{tmp_path / 'x-state'} (1 file)",
    ]  # fmt: skip
    assert left_lines(paths, folders=False) == ["x.safetensors", f"{MOST_NAMED + 1} png files", "x-state (1 file)"]


def not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    real = step_room.compute_loss
    monkeypatch.setattr(step_room, "compute_loss", lambda *args: real(*args) * torch.nan)


@pytest.mark.parametrize("steps", [4, 8])
def test_a_run_without_a_loss_that_is_a_number_is_no_success(
    steps: int,
    shallow_checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    not_a_number(monkeypatch)
    out = tmp_path / "out"
    assert main(arguments(shallow_checkpoint, photos, out, "--steps", str(steps))) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines()[-1].startswith("The loss is not a number any more. Lower the learning rates")
    assert not list(out.glob("*"))
    job = wait(Runner(shared_host(shallow_checkpoint, out)).start(small_config(photos, tmp_path, steps=1)))
    assert (job["state"], job["phase"]) == ("failed", "nothing was saved") and "not a number" in job["problems"][0]


def test_a_run_that_is_stopped_before_it_learned_anything_keeps_nothing_and_says_so(
    photos: Path, host: StandaloneHost, tmp_path: Path
) -> None:
    control, events = RunControl(), []
    for event in train(small_config(photos, tmp_path), host, control):
        events.append(event)
        if isinstance(event, Encoded):
            control.request_stop(keep=True)
    assert events[-1] == Finished(None, 0) and events[-2] == Left(())
    assert [event.text for event in events if isinstance(event, Note)] == [
        "The run was stopped before its first step; there is no LoRA to keep."
    ]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_what_ends_the_program_saves_the_state_on_the_command_line(
    name: str,
    shallow_checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = getattr(signal, name, None)
    if number is None or threading.current_thread() is not threading.main_thread():
        pytest.skip("no such signal here")
    before, report, out = signal.getsignal(number), cli_room._report, tmp_path / "out"

    def ending(event: Event) -> None:
        report(event)
        if isinstance(event, StepDone) and event.step == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(cli_room, "_report", ending)
    assert main(arguments(shallow_checkpoint, photos, out, "--steps", "50")) == 128 + number
    said, state = capsys.readouterr(), out / ".train-lora" / "blob" / "blob-state"
    assert said.out == "" and f"left on the disk: {state} (2 files)" in said.err
    assert said.err.splitlines()[-1] == "The run was ended after step 2; --resume blob-state continues from there."
    assert signal.getsignal(number) is before
    monkeypatch.setattr(cli_room, "_report", report)
    assert (
        main(arguments(shallow_checkpoint, photos, out, "--steps", "50", "--resume", "blob-state", "--max_train_steps", "3")) == 0
    )


def test_a_console_that_is_gone_costs_no_training(
    shallow_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def write(self, _: str) -> None:
            raise OSError(5, "Input/output error")

        flush = write

    monkeypatch.setattr("sys.stderr", Gone())
    assert main(arguments(shallow_checkpoint, photos, tmp_path / "out", "--steps", "1")) == 0


def test_a_signal_before_the_first_step_leaves_nothing_and_is_no_success(
    shallow_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = cli_room._report
    monkeypatch.setattr(
        cli_room, "_report", lambda event: (report(event), isinstance(event, Encoded) and os.kill(os.getpid(), signal.SIGTERM))
    )
    assert main(arguments(shallow_checkpoint, photos, tmp_path / "out", "--steps", "5")) == 128 + signal.SIGTERM
    assert "before its first step; there is no state to resume from." in capsys.readouterr().err


def test_a_signal_in_the_last_step_leaves_the_whole_lora(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    control, last = RunControl(), None
    for event in train(small_config(photos, tmp_path, steps=2), host, control):
        last = event
        if isinstance(event, StepDone) and event.step == 2:
            control.request_leave()
    assert last == Finished(tmp_path / "out" / "blob.safetensors", 2)


def test_a_held_out_loss_that_is_no_number_ends_with_the_run(
    photos: Path, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page reads strict JSON: a NaN in it would leave the job running there for ever."""
    monkeypatch.setattr(Trainer, "heldout_loss", lambda _: float("nan"))
    runner = Runner(host)
    changes = {"steps": 2, "validation_split": 0.3, "validate_every_n_steps": 1}
    last = wait(runner.start(small_config(photos, tmp_path, **changes)))
    assert last["state"] == "done" and last["held_out"] == [[1, None], [2, None]] and last["best"] is None
    json.dumps(last, allow_nan=False)
    assert cli_room._line(HeldOut(1, float("inf"))) == "step 1 validation loss is not a number"


def test_a_lora_that_changes_nothing_is_told_before_it_is_there(photos: Path, host: StandaloneHost, tmp_path: Path) -> None:
    changes = {"steps": 1, "unet_lr": 1e-12, "text_encoder_lr": 1e-12, "save_every_n_steps": 1}
    events = list(train(small_config(photos, tmp_path, save_precision="fp16", **changes), host, RunControl()))
    told = [(place, event.text) for place, event in enumerate(events) if isinstance(event, Note)]
    assert [text.split(":")[0] for _, text in told] == ["LoRA 'blob-step00000001' has no effect", "LoRA 'blob' has no effect"]
    assert told[1][0] < next(place for place, event in enumerate(events) if isinstance(event, Saved))
    assert (tmp_path / "out" / "blob.safetensors").is_file()
    events = list(train(small_config(photos, tmp_path, name="b", save_precision="float", **changes), host, RunControl()))
    assert not any(isinstance(event, Note) for event in events), "in fp32 there is something left"


TYPES = ("lora", "dora", "loha", "lokr", "ia3", "diag-oft", "glora")


@pytest.mark.parametrize("kind", TYPES)
def test_whether_a_type_has_an_effect_is_what_its_delta_says(kind: str) -> None:
    torch.manual_seed(0)
    target = Target("lora_unet_x_attn1_to_q", torch.nn.Linear(12, 8), "unet")
    device = torch.device("cpu")
    fresh = new_adapter(target, 2, 1.0, AdapterConfig(adapter_type=kind), 1, device, torch.float32)  # type: ignore[arg-type]
    assert not adapter_delta(fresh).abs().max() > 1e-6 and not has_effect(state_dict([fresh]), torch.float16, [fresh])
    for size, effect in ((1e-3, True), (1e-9, False)):
        moved = {key: value.detach() + size * torch.randn_like(value) for key, value in fresh.named().items()}
        trained = made_of(target, moved, fresh.alpha)
        rounded = made_of(target, {key: value.half().float() for key, value in moved.items()}, fresh.alpha)
        assert has_effect(state_dict([trained]), torch.float16, [trained]) is effect
        assert bool(adapter_delta(rounded).abs().max() > (2e-3 if kind == "dora" else 0) * 0.1) is effect
        assert has_effect(state_dict([trained]), torch.float32, [trained])


def test_a_word_of_its_own_is_an_effect() -> None:
    assert has_effect({"bundle_emb.ohwx.string_to_param.*": torch.zeros(1, 4)}, torch.float16, [])
    assert not has_effect({}, torch.float16, [])


@pytest.fixture(autouse=True)
def _whole_sessions() -> Iterator[None]:
    """Restores the class after a test that breaks it in the middle of a run."""
    real = Trainer._losses
    yield
    Trainer._losses = real  # type: ignore[method-assign]
