"""Webuis in which the extension cannot be imported."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.pins.webui_double import install

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_lora.py"


@pytest.mark.case(60)
@pytest.mark.parametrize("lacks", ["sd_unet", "call_queue"])
def test_a_failed_import_has_a_tab_with_the_reason(lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webui that lacks a part that ours has: it starts, and the tab says what is missing, as text."""
    webui = install(monkeypatch, SimpleNamespace(), tmp_path)
    tabs: list[Any] = []
    monkeypatch.setattr(webui.script_callbacks, "on_ui_tabs", tabs.append)
    monkeypatch.delattr(sys.modules["modules"], lacks)
    monkeypatch.delitem(sys.modules, f"modules.{lacks}")
    for room in ("webui_hooks", "webui_host", "webui_queue", "webui_restart", "webui_missing"):
        monkeypatch.delitem(sys.modules, f"lib_lora.hosts.{room}", raising=False)
    runpy.run_path(str(SCRIPT))
    ((blocks, title, _),) = tabs[0]()
    parts = [part["props"] for part in blocks.get_config_file()["components"]]
    (html,) = {part["value"] for part in parts if part.get("elem_id") == "train_lora_missing"}
    assert title == "Train LoRA" and lacks in html and "works without it" in html
