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
    assert lacks in reason(started(tmp_path, monkeypatch, lacks))


@pytest.mark.case(60)
def test_another_gradio_has_a_tab_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with gradio 4: everything can be imported, but an event takes no `_js`."""
    tabs = started(tmp_path, monkeypatch)
    from lib_lora.ui import tab

    def another(*_: Any, **named: Any) -> None:
        raise TypeError(f"click() got an unexpected keyword argument {'_js' if '_js' in named else named!r}")

    monkeypatch.setattr(tab, "gr", SimpleNamespace(**{**vars(tab.gr), "Button": lambda *_, **__: SimpleNamespace(click=another)}))
    assert "unexpected keyword argument &#x27;_js&#x27;" in reason(tabs)


def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str = "") -> list[Any]:
    """What the script registers as tabs in a webui that lacks one of its parts."""
    webui = install(monkeypatch, SimpleNamespace(), tmp_path)
    tabs: list[Any] = []
    monkeypatch.setattr(webui.script_callbacks, "on_ui_tabs", tabs.append)
    if lacks:
        monkeypatch.delattr(sys.modules["modules"], lacks)
        monkeypatch.delitem(sys.modules, f"modules.{lacks}")
    runpy.run_path(str(SCRIPT))
    return tabs


def reason(tabs: list[Any]) -> str:
    """What the one tab says, as HTML."""
    ((blocks, title, _),) = tabs[0]()
    parts = [part["props"] for part in blocks.get_config_file()["components"]]
    (html,) = {str(part["value"]) for part in parts if part.get("elem_id") == "train_lora_missing"}
    assert title == "Train LoRA" and "works without it" in html
    return html
