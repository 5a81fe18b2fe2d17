"""Lending the model between two steps: what others see, and that the run's result is the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import lib_lora.training.loan as loan_room
from lib_lora.errors import HostChanged, ModelAway
from lib_lora.events import Event, Finished, Left, Lent, Note, Sampled, StateSaved, StepDone
from lib_lora.files.lora_file import read
from lib_lora.hosts.checkpoint import load_modules
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config
from tests.models import shared_host
from tests.test_train import fingerprint


class BusyHost(StandaloneHost):
    """Somebody waits after every step, and looks at the model while it is lent out."""

    def __init__(self, checkpoint: Path, out: Path, meanwhile: Callable[[DiffusersModel], None] = lambda _: None) -> None:
        super().__init__(checkpoint, out)
        self._meanwhile = meanwhile
        self.clean = ""
        self.away: list[ModelAway] = []
        self.again: list[tuple[bool, bool]] = []

    def someone_waits(self) -> bool:
        return True

    @contextmanager
    def borrow_model(self) -> Iterator[DiffusersModel]:
        with super().borrow_model() as base:
            yield base
        self.clean = fingerprint(base)

    @contextmanager
    def borrow_again(self, base: DiffusersModel, *, needs_vae: bool, insist: bool) -> Iterator[None]:
        self.again.append((needs_vae, insist))
        assert base.unet.forward.__func__ is type(base.unet).forward
        if self.away and not insist:
            raise self.away.pop(0)
        self._meanwhile(base)
        with super().borrow_again(base, needs_vae=needs_vae, insist=insist):
            yield


def draw(base: DiffusersModel) -> None:
    """What a generation leaves: other global random numbers."""
    torch.randn(7)
    with torch.no_grad():
        base.decode_latents(torch.randn(1, 4, 8, 8))


def rebuild(base: DiffusersModel, checkpoint: Path) -> None:
    """Another checkpoint of another kind was loaded, then ours again: in new modules."""
    again = DiffusersModel(load_modules(checkpoint, torch.float32), base.device, checkpoint)
    for name in ("unet", "text_encoders", "vae", "tokenizer"):
        setattr(base, name, getattr(again, name))


def lora(out: Path) -> dict[str, torch.Tensor]:
    return read(out / "blob.safetensors")[0]


Alone = Callable[..., dict[str, torch.Tensor]]
ALONE: dict[str, dict[str, torch.Tensor]] = {}


@pytest.fixture
def alone(photos: Path, mini_checkpoint: Path, tmp_path: Path) -> Alone:
    """The LoRA of an undisturbed run with these settings, made once for all tests."""

    def made(**flat: object) -> dict[str, torch.Tensor]:
        if repr(flat) not in ALONE:
            out = tmp_path / "alone"
            list(train(small_config(photos, tmp_path, **flat), shared_host(mini_checkpoint, out), RunControl()))
            ALONE[repr(flat)] = lora(out)
        return ALONE[repr(flat)]

    return made


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() and [key for key in one if not torch.equal(one[key], other[key])] == []


KEPT = {"ema_decay": 0.9, "gradient_accumulation_steps": 2, "batch_size": 1, "network_dropout": 0.2, "optimizer": "AdamW",
        "lr_scheduler": "cosine", "steps": 3}  # fmt: skip
ANEW = {"cache_latents": False, "color_aug": True, "shuffle_caption": True, "gradient_checkpointing": "on", "steps": 3,
        "conv_dim": 2, "scale_weight_norms": 0.5}  # fmt: skip


@pytest.mark.parametrize("flat", [KEPT, ANEW], ids=["kept", "anew"])
def test_a_run_that_lends_at_every_step_is_the_run_that_never_does(
    flat: dict[str, object], photos: Path, mini_checkpoint: Path, tmp_path: Path, alone: Alone
) -> None:
    busy = BusyHost(mini_checkpoint, tmp_path / "busy", draw)
    events = list(train(small_config(photos, tmp_path, **flat), busy, RunControl()))
    lent = sum(isinstance(event, Lent) for event in events)
    assert lent == len(busy.again) >= flat["steps"], "before every step, and while images are encoded"
    assert busy.again[-1] == (flat is ANEW, False)
    assert_same(alone(**flat), lora(tmp_path / "busy"))


def test_adapters_find_their_layers_in_modules_built_anew(
    photos: Path, mini_checkpoint: Path, tmp_path: Path, alone: Alone
) -> None:
    busy = BusyHost(mini_checkpoint, tmp_path / "busy", lambda base: rebuild(base, mini_checkpoint))
    list(train(small_config(photos, tmp_path), busy, RunControl()))
    assert_same(alone(), lora(tmp_path / "busy"))


def test_what_waits_sees_the_model_as_it_was(photos: Path, mini_checkpoint: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    busy = BusyHost(mini_checkpoint, tmp_path / "busy", lambda base: seen.append(fingerprint(base)))
    with busy.borrow_model():
        pass
    before = busy.clean
    list(train(small_config(photos, tmp_path), busy, RunControl()))
    assert set(seen) == {before} and len(seen) >= 3


def test_nothing_is_lent_where_that_is_off(photos: Path, mini_checkpoint: Path, tmp_path: Path) -> None:
    busy = BusyHost(mini_checkpoint, tmp_path / "busy")
    list(train(small_config(photos, tmp_path, generate_while_training=False), busy, RunControl()))
    assert busy.again == []


def test_a_paused_run_gives_the_model_back(photos: Path, mini_checkpoint: Path, tmp_path: Path) -> None:
    control, told = RunControl(), []
    host = shared_host(mini_checkpoint, tmp_path / "out")
    for event in train(small_config(photos, tmp_path), host, control):
        if isinstance(event, StepDone) and event.step == 2:
            control.pause()
        if isinstance(event, Lent):
            told.append(event.text)
            assert "forward" not in host._model.unet.__dict__
            assert not any("forward" in module.__dict__ for module in host._model.unet.modules())
            control.unpause()
    assert told == [loan_room.PAUSED] and lora(tmp_path / "out")


def away_from_step(host: BusyHost, photos: Path, tmp_path: Path, step: int, at: Callable[[RunControl], None]) -> list[Event]:
    """A run whose model is away from `step` on; `at` is called when the run says so."""
    control, events = RunControl(), []
    for event in train(small_config(photos, tmp_path), host, control):
        events.append(event)
        if isinstance(event, StepDone) and event.step == step:
            host.away = [ModelAway("Gone.")] * 3
        if isinstance(event, Lent) and event.text == "waiting: Gone.":
            at(control)
    return events


def test_a_model_that_is_away_is_waited_for(
    photos: Path, mini_checkpoint: Path, tmp_path: Path, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loan_room, "LOOK_AGAIN_S", 0.01)
    events = away_from_step(BusyHost(mini_checkpoint, tmp_path / "busy"), photos, tmp_path, 2, lambda control: None)
    told = [event.text for event in events if isinstance(event, Lent)]
    assert told.count("waiting: Gone.") == 1 and events[-1].steps == 3
    assert_same(alone(), lora(tmp_path / "busy"))


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_can_be_stopped_while_its_model_is_away(keep: bool, photos: Path, mini_checkpoint: Path, tmp_path: Path) -> None:
    host = BusyHost(mini_checkpoint, tmp_path / "busy")
    events = away_from_step(host, photos, tmp_path, 2, lambda control: control.request_stop(keep=keep))
    assert isinstance(events[-1], Finished) and events[-1].steps == 2
    assert (events[-1].path is not None) == keep == host.again[-1][1], "it is insisted on the model for the file alone"


@pytest.mark.case(38)
def test_a_step_whose_model_was_taken_away_is_made_again(
    photos: Path, mini_checkpoint: Path, tmp_path: Path, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_away(monkeypatch, at_call=3)  # the second batch of the second step
    host = shared_host(mini_checkpoint, tmp_path / "again")
    events = list(train(small_config(photos, tmp_path, **KEPT), host, RunControl()))
    assert sum(isinstance(event, Lent) for event in events) == 1
    assert_same(alone(**KEPT), lora(tmp_path / "again"))


def test_a_run_that_never_lends_leaves_its_state(
    photos: Path, mini_checkpoint: Path, tmp_path: Path, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learned is not lost with the model."""
    host, events = shared_host(mini_checkpoint, tmp_path / "out"), []
    with monkeypatch.context() as broken:
        take_away(broken, at_call=2)
        with pytest.raises(
            HostChanged,
            match=r"Unloaded\. The state after step 2 is saved; to continue, set Resume from \(resume\) to 'blob-state'",
        ):
            for event in train(small_config(photos, tmp_path, generate_while_training=False), host, RunControl()):
                events.append(event)
    assert isinstance(events[-2], StateSaved) and isinstance(events[-1], Left)
    list(train(small_config(photos, tmp_path, resume="blob-state"), host, RunControl()))
    assert_same(alone(), lora(tmp_path / "out"))


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_that_is_stopped_while_its_model_is_lent_touches_it_no_more(
    keep: bool, photos: Path, mini_checkpoint: Path, tmp_path: Path
) -> None:
    """Before the first step, so that there is nothing to keep; the samples before it are not drawn either."""
    control, seen = RunControl(), []
    busy = BusyHost(mini_checkpoint, tmp_path / "busy")
    for event in train(small_config(photos, tmp_path, sample_at_first=True, sample_prompts="a blob --s 1"), busy, control):
        seen.append(type(event))
        if isinstance(event, Lent) and seen.count(Lent) == 4:  # after the last picture was encoded
            control.request_stop(keep=keep)
    assert len(busy.again) == 3 and Sampled not in seen
    assert [kind for kind in seen if kind not in (Left, Note)][-2:] == [Lent, Finished]


def test_a_lent_model_is_not_taken_again_while_the_program_stands(photos: Path, mini_checkpoint: Path, tmp_path: Path) -> None:
    busy, control, events = BusyHost(mini_checkpoint, tmp_path / "busy"), RunControl(), []
    lent = threading.Event()

    def follow() -> None:
        for event in train(small_config(photos, tmp_path, steps=1), busy, control):
            events.append(event)
            if isinstance(event, Lent) and not lent.is_set():
                control.suspend()
                lent.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert lent.wait(60)
    before = time.monotonic()
    control.wait_until_still(20)
    assert time.monotonic() - before < 5, "without its model it stands"
    thread.join(0.3)
    assert busy.again == [] and thread.is_alive()
    control.unsuspend()
    thread.join(60)
    assert isinstance(events[-1], Finished) and busy.again


def take_away(monkeypatch: pytest.MonkeyPatch, at_call: int) -> None:
    """The forward pass number `at_call` (from 0) meets weights on another device."""
    calls, whole = [], DiffusersModel.predict

    def predict(base: DiffusersModel, *inputs: object) -> torch.Tensor:
        calls.append(True)
        if len(calls) == at_call + 1:
            raise RuntimeError("Expected all tensors to be on the same device")
        return whole(base, *inputs)

    def verify(_: DiffusersModel) -> None:
        if len(calls) == at_call + 1:
            calls.append(True)  # from here on it is there again
            raise HostChanged("Unloaded.")

    monkeypatch.setattr(DiffusersModel, "predict", predict)
    monkeypatch.setattr(DiffusersModel, "verify", verify)
