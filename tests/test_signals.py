"""Our signal handler among others."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lib_lora.hosts import webui_signals

NUMBER = signal.SIGUSR1


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(webui_signals, "SIGNALS", (NUMBER,))
    monkeypatch.setattr(webui_signals, "_wrapped", set())
    monkeypatch.setattr(webui_signals, "_asked", set())
    before = signal.getsignal(NUMBER)
    yield
    signal.signal(NUMBER, before)


class Training:
    """A queue whose job runs and has learned something."""

    def __init__(self, lost: str | None = None) -> None:
        job = SimpleNamespace(
            running=True, progress=SimpleNamespace(step=3), config=SimpleNamespace(run=SimpleNamespace(name="猫"))
        )
        self.runner, self.left, self.lost = SimpleNamespace(job=job), 0, lost

    def leave(self, _seconds: float) -> str | None:
        self.left += 1
        return self.lost


def test_handlers_that_are_hung_in_front_of_ours_at_every_reload(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another extension wraps whatever handler is there, each time the UI is reloaded: every handler is called once, and ours do not pile up."""
    training, called, ended = Training("猫 is not saved."), [], threading.Event()
    signal.signal(NUMBER, lambda *_: (called.append("webui"), ended.set()))

    def other_extension() -> None:
        before: Any = signal.getsignal(NUMBER)

        def handler(number: int, frame: Any) -> None:
            called.append("other")
            before(number, frame)

        signal.signal(NUMBER, handler)

    real, ours = webui_signals._Leaving.__init__, []
    monkeypatch.setattr(webui_signals._Leaving, "__init__", lambda self, *args: (ours.append(self), real(self, *args))[1])
    for _ in range(6):
        webui_signals.save_before_the_end(training)  # type: ignore[arg-type]
        other_extension()
    webui_signals.save_before_the_end(training)  # type: ignore[arg-type]
    assert len(ours) == 2  # in front of the webui's, and once in front of the other extension's
    os.kill(os.getpid(), NUMBER)
    assert ended.wait(20)
    assert training.left == 1 and called.count("webui") == 1
    assert "\\u732b is not saved." in capsys.readouterr().out
