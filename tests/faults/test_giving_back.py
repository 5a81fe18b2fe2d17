"""Case 44 on the webui's model: a failure while it is borrowed, or while it is given back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from lib_lora.events import Finished
from lib_lora.training.trainer import Trainer
from tests.house import House, fingerprint

HOST, OURS, MODEL = "lib_lora.hosts.webui_host", "lib_lora.model.trainable", "lib_lora.hosts.webui_model"
# room, what in it fails while the model is taken, at which call (0: the first)
TAKING: list[tuple[str, str, int]] = [
    ("modules.shared:state", "begin", 0),
    ("modules.sd_models", "reload_model_weights", 0),
    ("modules.sd_unet", "apply_unet", 0),
    ("modules.sd_hijack:model_hijack", "apply_circular", 0),
    (HOST + ":webui_networks", "take_off", 0),
    (HOST, "_current_model", 0),
    (HOST, "_make_clean", 0),
    (HOST, "WebuiModel", 0),
    (MODEL, "mark", 1),
    (HOST, "made_trainable", 0),
    (OURS, "frozen", 0),
    (OURS, "others_aside", 0),
    (OURS, "_in_fp32", 0),
    (OURS, "fused_attention_forwards", 0),
    (OURS, "forwards_replaced", 0),
    (OURS, "frozen_forwards", 0),
    (OURS, "forwards_replaced", 1),
]
# what fails while it is given back: a function, or a context manager of ours at its exit
GIVING = [
    ("modules.sd_unet", "apply_unet", 1),
    ("modules.shared:state", "end", 0),
    (HOST, "made_trainable", 0),
    (OURS, "frozen", 0),
    (OURS, "others_aside", 0),
    (OURS, "_in_fp32", 0),
    (OURS, "forwards_replaced", 1),
]

NOT_WHOLE = "Not everything of the model could be restored (RuntimeError: injected)"


def owner(path: str) -> Any:
    room, _, inside = path.partition(":")
    found = importlib.import_module(room)
    return getattr(found, inside) if inside else found


def failing(real: Callable[..., Any], call: int, calls: list[str], when: str) -> Callable[..., Any]:
    """`real`, that fails at one of its calls: before it does anything, behind it, or at the exit. `calls` grows with each."""

    def fails(*args: Any, **kwargs: Any) -> Any:
        calls.append("called")
        if len(calls) != call + 1:
            return real(*args, **kwargs)
        if when == "before":
            raise RuntimeError("injected")
        found = real(*args, **kwargs)
        if not hasattr(found, "__enter__"):
            raise RuntimeError("injected")
        return _fails_inside(found, when)

    return fails


@contextmanager
def _fails_inside(inner: Any, when: str) -> Iterator[Any]:
    with inner as found:
        if when == "behind":
            raise RuntimeError("injected")
        yield found
    raise RuntimeError("injected")


def no_step(*_: object) -> None:
    raise OSError("the first reason")


class Webui:
    """What of the webui is no tensor, and must be as before."""

    def __init__(self) -> None:
        self.modules = sys.modules["modules"]
        self.unet = "None"
        self.modules.sd_unet.apply_unet = self.apply_unet  # type: ignore[attr-defined]
        self.apply_unet()

    def apply_unet(self, option: str | None = None) -> None:
        self.unet = option or "what the settings say"

    def seen(self) -> tuple[Any, ...]:
        shared, queue = self.modules.shared, self.modules.call_queue  # type: ignore[attr-defined]
        return self.unet, list(shared.loaded_hypernetworks), queue.queue_lock.locked(), len(queue.queue_lock._pending_threads)


@pytest.fixture
def webui(host: Any) -> Webui:
    return Webui()


@pytest.mark.case(44)
@pytest.mark.parametrize("when", ["before", "behind"])
def test_an_exception_while_the_model_is_taken(
    when: str, webui: Webui, ldm: Any, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    """An exception before or behind each thing that is done to the webui while its model is taken: all of it is as before."""
    before, tensors, state = webui.seen(), fingerprint(ldm), webui.modules.shared.state  # type: ignore[attr-defined]
    for room, name, call in TAKING:
        where, calls = f"{room} {name} {call}", list[str]()
        state.begun = state.ended = 0
        with monkeypatch.context() as patch:
            patch.setattr(owner(room), name, failing(getattr(owner(room), name), call, calls, when))
            with pytest.raises(RuntimeError, match="injected"), house.host.borrow_model():
                pass
        assert len(calls) > call, f"{where} is never reached"
        assert webui.seen() == before and fingerprint(ldm) == tensors, where
        assert state.ended == 1 and state.begun == (name != "begin" or when == "behind"), where
        state.begun = state.ended
    with monkeypatch.context() as patch:
        patch.setattr(owner(room), name, failing(getattr(owner(room), name), call, [], when))
        (told,) = house.run(quick(steps=1)).told
    assert "injected" in told
    assert house.run(quick(steps=1)).of(Finished), "the next one trains"
    figure(f"{len(TAKING)} places")


@pytest.mark.case(44)
@pytest.mark.parametrize("ends", ["finished", "failed"])
def test_an_exception_while_the_model_is_given_back(
    ends: str, webui: Webui, ldm: Any, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    """One thing that cannot be brought back: all others are, the lock is free, and a sentence says so beside what ended the run."""
    before, tensors = webui.seen(), fingerprint(ldm)
    for room, name, call in GIVING:
        where, calls = f"{room} {name} {call}", list[str]()
        with monkeypatch.context() as patch:
            patch.setattr(owner(room), name, failing(getattr(owner(room), name), call, calls, "at the exit"))
            if ends == "failed":
                patch.setattr(Trainer, "step", no_step)
            run = house.run(quick(steps=1, generate_while_training=False, overwrite=True))
        assert len(calls) > call, f"{where} is never reached"
        assert webui.seen() == before and fingerprint(ldm) == tensors, where
        assert NOT_WHOLE in run.told[-1] and run.told[-1].endswith("restart the webui before you generate or train."), where
        assert ["the first reason" in text for text in run.told] == ([True, False] if ends == "failed" else [False]), where
        assert run.job["state"] == "failed" and run.job["saved"] == (None if ends == "failed" else "blob"), where
    figure(f"{len(GIVING)} places")


@pytest.mark.case(44)
def test_an_exception_while_the_model_is_lent_out(
    webui: Webui, host: Any, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps somebody waits, and the model cannot be brought back whole: what was learned is kept, and told where."""
    monkeypatch.setattr(type(host), "someone_waits", lambda _: True)
    before, calls = webui.seen(), list[str]()
    with monkeypatch.context() as patch:
        images = 4
        ours = sys.modules[HOST]
        patch.setattr(ours, "made_trainable", failing(ours.made_trainable, images + 2, calls, "at the exit"))
        run = house.run(quick(steps=5))
    (told,) = run.told
    assert NOT_WHOLE in told and "to continue, set Resume from (resume) to 'blob-state'." in told
    assert webui.seen() == before and 0 < run.job["step"] < 5
    gone_on = house.run(quick(steps=5, resume="blob"))
    assert gone_on.of(Finished) and gone_on.job["first_step"] == run.job["step"]


@pytest.mark.case(44)
def test_hypernetworks_that_cannot_be_put_back(webui: Webui, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a list that refuses, nothing comes back; of everything else all does."""

    class Refuses(list[str]):
        def extend(self, _: Any) -> None:
            raise RuntimeError("injected")

    monkeypatch.setattr(webui.modules.shared, "loaded_hypernetworks", Refuses(["hyper"]))  # type: ignore[attr-defined]
    run = house.run(quick())
    assert webui.seen() == ("what the settings say", [], False, 0)
    assert [text.partition("(")[0] for text in run.told] == [NOT_WHOLE.partition("(")[0]]


@pytest.mark.case(44)
def test_a_vae_whose_format_changes_half_way(host: Any, ldm: Any, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The VAE is raised to fp32 and memory is out after half of it: that half is lowered again, exactly."""
    vae = ldm.first_stage_model
    vae.to(torch.bfloat16)
    real, calls = vae.to, []

    def to(dtype: torch.dtype) -> Any:
        calls.append(dtype)
        if len(calls) == 1:
            vae.encoder.to(dtype)
            raise torch.cuda.OutOfMemoryError("injected")
        return real(dtype)

    try:
        before = fingerprint(ldm)
        with monkeypatch.context() as patch:
            patch.setattr(vae, "to", to, raising=False)
            run = House(host).run(quick())
        assert calls == [torch.float32, torch.bfloat16] and fingerprint(ldm) == before
        assert len(run.told) == 1 and "injected" in run.told[0]
    finally:
        vae.float()
