"""The webui's queue during a run: requests that wait get the unchanged model between two steps, and none is lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib_lora.errors import ModelAway
from lib_lora.events import Finished, Lent, StepDone
from lib_lora.files.lora_file import read
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config
from tests.pins.test_webui_adapter import fingerprint, host, model, webui

__all__ = ["host", "model", "webui"]  # fixtures


class Waiting(threading.Thread):
    """Somebody who waits for the queue lock, and does `work` when it has it."""

    def __init__(self, webui: SimpleNamespace, work: Any) -> None:
        super().__init__(daemon=True)
        self._lock, self._work = webui.call_queue.queue_lock, work
        self.start()
        while not self._lock._pending_threads:
            time.sleep(0.001)

    def run(self) -> None:
        with self._lock:
            self._work()


@pytest.mark.case(40)
def test_whoever_waits_has_the_model_as_it_was(
    host: Any, webui: SimpleNamespace, model: Any, photos: Path, tmp_path: Path
) -> None:
    """Once per step; weights, flags, forwards and VAE as before, and the training is that of a run that was never disturbed."""
    model.first_stage_model.half()
    try:
        before, seen, waiting = fingerprint(model), [], []
        list(train(small_config(photos, tmp_path, name="alone", steps=4, ema_decay=0.9), host, RunControl()))
        for event in train(small_config(photos, tmp_path, steps=4, ema_decay=0.9), host, RunControl()):
            if isinstance(event, StepDone) and event.step < 4:
                waiting.append(Waiting(webui, lambda: seen.append((fingerprint(model), torch.randn(3)))))
                webui.shared.state.interrupted = True  # somebody presses Interrupt or Skip: no business of the training's
        assert [found for found, _ in seen] == [before] * 3 and fingerprint(model) == before
    finally:
        model.first_stage_model.float()
    alone, lent = (read(tmp_path / "Lora" / f"{name}.safetensors")[0] for name in ("alone", "blob"))
    assert [key for key in alone if not torch.equal(alone[key], lent[key])] == []
    assert not webui.call_queue.queue_lock.locked() and webui.shared.state.begun == webui.shared.state.ended


def test_who_was_overtaken_has_its_turn_after_the_next_step(
    host: Any, webui: SimpleNamespace, photos: Path, tmp_path: Path
) -> None:
    """A woken thread that is slow to take the lock is seen by nobody; it must not wait for the end of the training."""
    lock, steps, served = webui.call_queue.queue_lock, [], []
    lock.before_taking = lambda: time.sleep(0.6)  # longer than anybody waits for it
    for event in train(small_config(photos, tmp_path, steps=6), host, RunControl()):
        if isinstance(event, StepDone):
            steps.append(event.step)
            if event.step == 1:
                waiting = Waiting(webui, lambda: served.append(len(steps)))
            time.sleep(0.3)  # a step of a real model
    waiting.join(10)
    assert served and served[0] < 5


def test_everybody_who_waits_goes_first(host: Any, webui: SimpleNamespace, photos: Path, tmp_path: Path) -> None:
    served, steps, waiting = [], [], []
    for event in train(small_config(photos, tmp_path), host, RunControl()):
        if isinstance(event, StepDone):
            steps.append(event.step)
            if event.step == 1:
                waiting = [Waiting(webui, lambda: (time.sleep(0.05), served.append(len(steps)))) for _ in range(4)]
    assert served == [1] * 4
    assert all(not thread.is_alive() for thread in waiting)


def choose(webui: SimpleNamespace, model: Any, name: str) -> Any:
    """Select another checkpoint, as the webui's settings say it before it is loaded; what is called puts ours back."""
    ours = model.sd_checkpoint_info
    webui.sd_models.selected.info = SimpleNamespace(filename=f"/elsewhere/{name}", name=name, hash="0", sha256=None)
    return lambda: setattr(webui.sd_models.selected, "info", ours)


@pytest.mark.case(37)
def test_another_checkpoint_is_waited_out(
    host: Any, webui: SimpleNamespace, model: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib_lora.training.loan.LOOK_AGAIN_S", 0.01)
    told: list[str] = []
    for event in train(small_config(photos, tmp_path), host, RunControl()):
        if isinstance(event, StepDone) and event.step == 2:
            back = choose(webui, model, "other.safetensors")
            Waiting(webui, lambda: None)
        if isinstance(event, Lent):
            told.append(event.text)
            if "other" in event.text:
                assert not webui.call_queue.queue_lock.locked()
                back()
    assert isinstance(event, Finished) and event.steps == 3 and event.path is not None
    assert told[-1] == (
        "waiting: The checkpoint 'other.safetensors' was selected; the run continues when 'sd15-mini.safetensors' is "
        "selected again. Stop and keep saves the LoRA as it is."
    )


def test_stop_and_keep_loads_our_checkpoint_for_the_file_and_brings_the_selected_one_back(
    host: Any, webui: SimpleNamespace, model: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str | None] = []

    def load(sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> Any:
        assert webui.call_queue.queue_lock.locked()
        loaded.append(info and info.name)

    control = RunControl()
    for event in train(small_config(photos, tmp_path), host, control):
        if isinstance(event, StepDone) and event.step == 2:
            choose(webui, model, "other.safetensors")
            Waiting(webui, lambda: None)
        if isinstance(event, Lent) and "other" in event.text:
            monkeypatch.setattr(webui.sd_models, "reload_model_weights", load)
            control.request_stop(keep=True)
    assert isinstance(event, Finished) and event.steps == 2 and event.path is not None
    assert loaded == ["sd15-mini.safetensors", None]


@pytest.mark.case(38)
def test_a_checkpoint_that_does_not_load_again_is_told(
    host: Any, webui: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with host.borrow_model() as base:
        pass

    def load(**_: Any) -> None:
        raise FileNotFoundError("no such file")

    monkeypatch.setattr(webui.sd_models, "reload_model_weights", load)
    said = r"'sd15-mini.safetensors' cannot be reloaded \(no such file\)"
    for insist in (False, True):
        with pytest.raises(ModelAway, match=said), host.borrow_again(base, needs_vae=False, insist=insist):
            pass
    assert not webui.call_queue.queue_lock.locked() and webui.shared.state.begun == webui.shared.state.ended


def test_patches_of_other_extensions_have_no_part_in_the_training(
    host: Any, webui: SimpleNamespace, model: Any, photos: Path, tmp_path: Path
) -> None:
    """Hung on the model in the middle of the run, and left there."""
    unet = model.model.diffusion_model
    patched, hung = [unet, unet.time_embed[0], model.first_stage_model.decoder, unet.input_blocks[1][1]], []

    def patch() -> None:
        for module in patched:
            module.forward = lambda *inputs, **named: 1 / 0
        hung.append(unet.register_forward_pre_hook(lambda *_: 1 / 0))
        hung.append(unet.out.register_forward_hook(lambda *_: 1 / 0))

    list(train(small_config(photos, tmp_path, name="alone"), host, RunControl()))
    try:
        for event in train(small_config(photos, tmp_path, preview_steps=1), host, RunControl()):
            if isinstance(event, StepDone) and event.step == 1:
                Waiting(webui, patch)
        assert isinstance(event, Finished) and len(hung) == 2
        assert all("forward" in module.__dict__ for module in patched) and unet._forward_pre_hooks and unet.out._forward_hooks
    finally:
        for module in patched:
            module.__dict__.pop("forward", None)
        for handle in hung:
            handle.remove()
    assert not unet._forward_pre_hooks and not unet.out._forward_hooks
    alone, patched_run = (read(tmp_path / "Lora" / f"{name}.safetensors")[0] for name in ("alone", "blob"))
    assert [key for key in alone if not torch.equal(alone[key], patched_run[key])] == []


@pytest.mark.parametrize(("part", "said"), [("model", "weights of 'sd15-mini"), ("first_stage_model", "Another VAE")])
def test_other_weights_are_noticed(host: Any, model: Any, part: str, said: str) -> None:
    """In the same modules, as the webui loads another checkpoint or VAE; bit for bit back, the run goes on."""
    with host.borrow_model() as base:
        pass
    weight = next(getattr(model, part).parameters())
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.001)
    try:
        with pytest.raises(ModelAway, match=said), host.borrow_again(base, needs_vae=True, insist=False):
            pass
        if part == "first_stage_model":
            with host.borrow_again(base, needs_vae=False, insist=False):
                base.verify()
    finally:
        with torch.no_grad():
            weight.copy_(before)
    with host.borrow_again(base, needs_vae=True, insist=False):
        base.verify()
