"""The webui ends itself: "Apply and restart", and its API."""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.pins.webui_double import install


@pytest.mark.case(42)
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_is_left_before_the_process_ends(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, after any number of Reload UI; what is lost is told; and the process ends, too, where leaving goes wrong."""
    webui, told = install(monkeypatch, SimpleNamespace(), tmp_path), []
    webui.restart.stop_program = lambda: told.append("ended")
    room = importlib.import_module("lib_lora.hosts.webui_restart")

    def leave(timeout_s: float) -> str:
        told.append(timeout_s)
        if fails:
            raise OSError("disk")
        return "steps 4 to 9 are lost"

    for _ in range(3):
        room.save_before_a_restart(SimpleNamespace(leave=leave))
    with pytest.raises(OSError, match="disk") if fails else nullcontext():
        webui.restart.stop_program()
    assert told == [room.LEAVE_S, "ended"] and room.LEAVE_S < 10
    assert ("steps 4 to 9 are lost" in caplog.text) != fails
